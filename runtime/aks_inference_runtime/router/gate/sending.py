"""What answers still wait for their readers after all replicas are done: only asked for at a gate's end."""

from pathlib import Path

from aks_inference_runtime.router.gate.reading import Reading

_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTENS = "0A"


def unsent(port: int) -> int:
    """Bytes that the system keeps for the other ends of this port: also of connections that were closed, which nothing
    but its table tells of. 0 where it has none."""
    count = 0
    for table in _TABLES:
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, local, _, state, queues, *_ = line.split()
            if int(local.rpartition(":")[2], 16) == port and state != _LISTENS:
                count += int(queues.partition(":")[0], 16)
    return count


class Leftovers:
    """How long they are waited for: as for any reader."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._reading: Reading | None = None
        self._left = 0

    def wait(self, left: int, now: float) -> bool:
        """Whether so many bytes are still worth waiting for."""
        if not left:
            self._reading = None
            return False
        if self._reading is None:
            self._reading = Reading(self._grace_s, now)
        else:
            self._reading.took(max(0, self._left - left), now)
        self._left = left
        return self._reading.left_s(now) > 0
