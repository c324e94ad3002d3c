"""The agent's lasting connection to each gate: hears of orphans, readiness and claims, and acknowledges."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from aks_inference_runtime.router.gate.settings import GateStatus
from aks_inference_runtime.router.model import ControlAddress
from aks_inference_runtime.router.ownership import Epoch

ASK_SECONDS = 0.3
"""Between questions to a gate that nothing is known to go through."""
BUSY_SECONDS = 0.1
"""Between questions to one at which something runs or waits."""
SILENCE_SECONDS = 0.7
"""A gate that is silent for so long (paused, dead) gets no new request."""
RETRY_SECONDS = 0.1
RECOVER_SECONDS = 1.0
"""After an error that nobody has thought of: it will come again, and each one is logged."""
_log = logging.getLogger(__name__)

Act = Callable[[str], Awaitable[None]]


class GateWatch:
    """Watches one gate until closed."""

    def __init__(self, replica_id: str, control: Path | ControlAddress, act: Act, claim: Epoch | None = None) -> None:
        self.replica_id = replica_id
        self.status: GateStatus | None = None
        """The newest; None while the gate is not heard."""
        self._control = control
        self._act = act
        self._claim = claim
        self._writer: asyncio.StreamWriter | None = None
        self._first = asyncio.Event()
        self._began = asyncio.get_running_loop().time()
        self._gone: frozenset[str] = frozenset()
        self._task = asyncio.create_task(self._watch())

    @property
    def unheard(self) -> bool:
        """The watch has just begun, and there is no word yet."""
        return not self._first.is_set() and asyncio.get_running_loop().time() - self._began < SILENCE_SECONDS

    @property
    def granted(self) -> bool:
        """Whether the gate takes this router's requests for the owner's; without a claim there is none to ask."""
        return self._claim is None or (self.status is not None and _claim(self.status) == self._claim)

    @property
    def superseded_by(self) -> Epoch | None:
        """A higher claim than the own one."""
        claim = None if self.status is None else _claim(self.status)
        return claim if claim is not None and self._claim is not None and claim > self._claim else None

    @property
    def epoch(self) -> int:
        """Of the claim that holds, as far as is known."""
        return 0 if self.status is None else self.status.epoch

    def claim(self, claim: Epoch | None) -> None:
        """Says that this router sends from now on; None: that it does not."""
        if claim != self._claim:
            self._claim = claim
            if self._writer is not None:
                self._send_claim(self._writer)

    def _send_claim(self, writer: asyncio.StreamWriter) -> None:
        if self._claim is not None:
            message = {"op": "claim", "epoch": self._claim.number, "owner": self._claim.router}
            writer.write(json.dumps(message).encode() + b"\n")

    async def first(self, timeout_s: float) -> None:
        """Waits for the first word, for a while."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._first.wait()

    def tell_gone(self, turns: frozenset[str]) -> None:
        """Names requests that wait in the router and whose clients have left."""
        new, self._gone = turns - self._gone, turns
        if new and self._writer is not None:
            self._writer.write(json.dumps({"gone": sorted(new)}).encode() + b"\n")

    def look_closely(self) -> None:
        """Requests are on their way there: asks now, unless it is being asked often anyway."""
        if not self._busy:
            self._ask()

    @property
    def _busy(self) -> bool:
        return self.status is not None and bool(self.status.running or self.status.waiting)

    def _ask(self) -> None:
        if self._writer is not None:
            self._writer.write(b'{"op": "status", "clock": %d}\n' % (time.time() * 1_000))

    async def close(self) -> None:
        """Ends the watch."""
        self._task.cancel()
        # Not suppress(CancelledError): that would swallow a cancellation of the caller too.
        await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            well = await self._guarded(self._connected())
            if self.status is not None:
                # Not heard: it gets no new request until it is again.
                self.status = None
                well = await self._guarded(self._act(self.replica_id)) and well
            await asyncio.sleep(RETRY_SECONDS if well else RECOVER_SECONDS)

    async def _guarded(self, work: Awaitable[None]) -> bool:
        """False after an error that nobody has thought of: without the watch nobody would hear of the replica again."""
        try:
            await work
        except (OSError, ValueError):
            pass  # the gate is gone, or what answers is none
        except Exception:  # noqa: BLE001 - whatever it was is logged, and the watch begins anew
            _log.exception("the watch over the gate of %s failed; it begins anew", self.replica_id)
            return False
        return True

    async def _connected(self) -> None:
        reader, writer = await self._connect()
        try:
            await self._listen(reader, writer)
        finally:
            self._writer = None
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._control, Path):
            return await asyncio.open_unix_connection(str(self._control))
        async with asyncio.timeout(SILENCE_SECONDS):
            return await asyncio.open_connection(self._control.host, self._control.port)

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"op": "watch"}\n')
        self._writer = writer
        self._ask()
        self._send_claim(writer)
        if self._gone:
            writer.write(json.dumps({"gone": sorted(self._gone)}).encode() + b"\n")
        asking = asyncio.create_task(self._keep_asking())
        acted = -1
        before = b""
        try:
            while True:
                async with asyncio.timeout(SILENCE_SECONDS):
                    line = await reader.readline()
                if not line:
                    return
                if line == before:
                    continue
                before = line
                self.status = status = GateStatus.model_validate_json(line)
                self._first.set()
                if status.seq != acted:
                    acted = status.seq
                    await self._act(self.replica_id)
                    writer.write(json.dumps({"ack": status.seq}).encode() + b"\n")
        finally:
            # Not awaited: a cancellation of this task meanwhile would be taken for that of the other.
            asking.cancel()

    async def _keep_asking(self) -> None:
        while True:
            await asyncio.sleep(BUSY_SECONDS if self._busy else ASK_SECONDS)
            self._ask()


def _claim(status: GateStatus) -> Epoch | None:
    return Epoch(status.epoch, status.owner) if status.owner else None
