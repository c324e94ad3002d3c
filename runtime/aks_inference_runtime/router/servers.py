"""The replicas as servers of HAProxy's slots: what the agent has set, and the commands that change it."""

from collections import Counter
from collections.abc import Callable, Mapping

from aks_inference_runtime.api.errors import OperationFailed, RuntimeUnavailable
from aks_inference_runtime.router.admin import AdminSocket, ServerRow, word
from aks_inference_runtime.router.slots import Slot

GATED = (
    # What a gate that is gone had in hand leaves quickly: a server with idle connections cannot be deleted.
    "pool-purge-delay 1s"
    # A gate that refuses a connection is out at once, before the request is tried elsewhere: no agent is as quick.
    " observe layer4 error-limit 1 on-error mark-down"
    # Looked at often only while it is down; the agent does not wait for that.
    " check inter 60s downinter 200ms rise 1 fall 1"
)
"""Options of a server that is a gate."""


class Servers:
    """Cap by slot and replica; 0 is drained."""

    def __init__(self, admin_of: Callable[[int], AdminSocket]) -> None:
        self._admin_of = admin_of
        self._caps: dict[Slot, dict[str, int]] = {}
        self._unsure: set[Slot] = set()
        """Slots in which a command may or may not have had its effect."""
        self._under_way: Counter[Slot] = Counter()
        self.surprises = 0
        """Grows whenever caps are, or may be, others than those that were set."""

    def of(self, slot: Slot) -> Mapping[str, int]:
        """The servers of a slot."""
        return self._caps.get(slot, {})

    def unsure(self, process: int) -> bool:
        """Whether it is to be learned how things are there."""
        return any(slot.process == process for slot in self._unsure)

    def occupied(self) -> set[Slot]:
        """Slots with servers."""
        return {slot for slot, servers in self._caps.items() if servers}

    def forget(self, process: int) -> None:
        """The process is new: it has none."""
        self.surprises += 1
        self._caps = {slot: servers for slot, servers in self._caps.items() if slot.process != process}
        self._unsure = {slot for slot in self._unsure if slot.process != process}

    def adopt(self, slot: Slot, rows: tuple[ServerRow, ...]) -> None:
        """Takes over what a running process has."""
        self.surprises += 1
        self._caps[slot] = {row.name: row.maxconn if row.status.startswith(("UP", "no")) else 0 for row in rows}

    def settle(self, process: int, rows: Mapping[Slot, tuple[ServerRow, ...]]) -> None:
        """Learns from what a process has just shown how it really is where a command's effect is not known."""
        for slot in [s for s in self._unsure if s.process == process and not self._under_way[s]]:
            self.adopt(slot, rows.get(slot, ()))
            self._unsure.discard(slot)

    async def set_cap(self, slot: Slot, replica_id: str, address: str, cap: int, *, gated: bool) -> None:
        """Adds, raises, lowers or drains. For a process that does not answer it is settled once it does."""
        servers = self._caps.setdefault(slot, {})
        before = servers.get(replica_id)
        if before == cap or (before is None and cap == 0):
            return
        # Noted first: commands go out in the order in which they were noted.
        servers[replica_id] = cap
        name = f"{slot.backend}/{replica_id}"
        if before is None:
            options = f" {GATED}" if gated else ""
            commands = [f"add server {name} {word(address)} maxconn {cap}{options}", f"enable server {name}"]
            if gated:
                commands.insert(1, f"enable health {name}")
        elif cap == 0:
            commands = [f"set server {name} state drain"]
        elif before == 0:
            # HAProxy does not look at its queue when a drained server returns; setting maxconn makes it look.
            commands = [f"set server {name} state ready", f"set maxconn server {name} {cap}"]
            if gated:
                commands.insert(0, f"set server {name} health up")
        else:
            commands = [f"set maxconn server {name} {cap}"]
        await self._send(slot, commands)

    async def remove(self, slot: Slot, replica_id: str) -> bool:
        """Deletes a drained server without requests; False when HAProxy still holds something of it."""
        servers = self._caps.get(slot, {})
        if replica_id not in servers:
            return True
        name = f"{slot.backend}/{replica_id}"
        try:
            await self._send(slot, [f"set server {name} state maint", f"del server {name}"])
        except OperationFailed:
            # Its connections are just being closed: again at the next look.
            return False
        servers.pop(replica_id, None)
        return True

    async def cut(self, slot: Slot, replica_id: str) -> None:
        """Ends the requests that a server has; nothing of the replica is waited for."""
        try:
            await self._admin_of(slot.process).run(f"shutdown sessions server {slot.backend}/{replica_id}")
        except RuntimeUnavailable:
            self._doubt(slot)

    async def _send(self, slot: Slot, commands: list[str]) -> None:
        self._under_way[slot] += 1
        try:
            await self._admin_of(slot.process).must(commands, accept=("New server registered", "Server deleted"))
        except RuntimeUnavailable:
            self._doubt(slot)
        except BaseException:
            # Refused, or given up half-way: an endpoint that ends takes its round with it.
            self._doubt(slot)
            raise
        finally:
            self._under_way[slot] -= 1

    def _doubt(self, slot: Slot) -> None:
        self._unsure.add(slot)
        self.surprises += 1
