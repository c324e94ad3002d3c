"""`python -m aks_inference_runtime.kubernetes.gate`: the gate of one pod, beside its scoring server.

As on this machine, but the control socket is a TCP port too (routers are in other pods), and the kubelet asks four
questions: `/livez`, `/readyz`, `/drained`, whose answer comes when nothing runs any more and answers are taken, and
`/livez/replica`, of the other container: only the gate knows what that was given and did not answer. `/metrics` is
there for Prometheus; a line for each request goes to standard output.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.api.kubernetes import (
    GATE_CONTROL_PORT,
    GATE_READY_PORT,
    GATE_VARIABLE,
    REPLICA_LIVENESS_PATH,
    REPLICA_VARIABLE,
)
from aks_inference_runtime.observability.gates import gate_metrics
from aks_inference_runtime.observability.prometheus import CONTENT_TYPE
from aks_inference_runtime.router.gate.control import ControlConnection
from aks_inference_runtime.router.gate.health import accepts
from aks_inference_runtime.router.gate.lines import logging_never_waits
from aks_inference_runtime.router.gate.server import Gate, serving
from aks_inference_runtime.router.gate.settings import GateSettings

CONTROL_SOCKET = Path("/run/aks-inference/gate.sock")
ROUTERS_NOTICE_S = 2.0
"""After a pod began to end, routers may still send for a moment: until they have heard of it."""
_LOOK_S = 0.1
_QUIET_LOOKS = 3
"""In a row without a request: one may be on its way between two looks."""
_QUESTION_S = 5.0
_log = logging.getLogger(__name__)


def settings_of(environment: Mapping[str, str], control: Path = CONTROL_SOCKET) -> GateSettings:
    """From the pod's variables. Raises InvalidInput, naming the variable."""
    replica = environment.get(REPLICA_VARIABLE)
    if not replica:
        raise InvalidInput(f"{REPLICA_VARIABLE} is not set: the pod's uid, by the downward API")
    try:
        given = json.loads(environment.get(GATE_VARIABLE, ""))
    except ValueError as error:
        raise InvalidInput(f"{GATE_VARIABLE} is no JSON: {error}") from None
    if not isinstance(given, dict):
        raise InvalidInput(f"{GATE_VARIABLE} is no JSON object")
    try:
        return GateSettings.model_validate({"control": str(control), **given, "replicaId": replica})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InvalidInput(f"{GATE_VARIABLE}: {problems}") from None


class Questions:
    """Answers the kubelet over HTTP."""

    def __init__(self, gate: Gate, notice_s: float = ROUTERS_NOTICE_S) -> None:
        self._gate = gate
        self._notice_s = notice_s

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One question a connection."""
        try:
            async with asyncio.timeout(_QUESTION_S):
                line = await reader.readline()
                while (await reader.readline()).strip():
                    pass
            path = line.split(b" ")[1] if line.count(b" ") == 2 else b""
            body = self._metrics() if path == b"/metrics" else b""
            status = "200 OK" if body else await self._status(path)
            kind = f"Content-Type: {CONTENT_TYPE}\r\n" if body else ""
            head = f"HTTP/1.1 {status}\r\n{kind}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
        except (OSError, TimeoutError, ValueError):
            # Who asked is gone, or is no kubelet.
            pass
        finally:
            writer.close()

    def _metrics(self) -> bytes:
        settings = self._gate.settings
        labels = {"endpoint": settings.endpoint, "version": settings.version}
        return gate_metrics([(labels, self._gate.reporting.figures())]).encode()

    async def _status(self, path: bytes) -> str:
        match path:
            case b"/livez":
                return "200 OK"
            case path if path == REPLICA_LIVENESS_PATH.encode():
                return "200 OK" if await self._replica_lives() else "503 Service Unavailable"
            case b"/readyz":
                return "200 OK" if self._gate.ready else "503 Service Unavailable"
            case b"/drained":
                await self._drained()
                return "200 OK"
            case _:
                return "404 Not Found"

    async def _replica_lives(self) -> bool:
        if self._gate.admission.hung:
            _log.warning("the replica is hung: no answer to what it was given, long after the scoring timeout")
            return False
        return await accepts(self._gate.settings.upstream)

    async def _drained(self) -> None:
        await asyncio.sleep(self._notice_s)
        quiet = 0
        while quiet < _QUIET_LOOKS:
            quiet = 0 if self._gate.busy() else quiet + 1
            await asyncio.sleep(_LOOK_S)


async def run(settings: GateSettings, control_port: int = GATE_CONTROL_PORT, ready_port: int = GATE_READY_PORT) -> None:
    """Serves until a signal; what runs then is finished first, a second signal ends at once."""
    loop = asyncio.get_running_loop()
    asked, again = asyncio.Event(), asyncio.Event()

    def stop() -> None:
        (again if asked.is_set() else asked).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    host = settings.listen_host
    async with serving(settings) as gate:
        control = await loop.create_server(lambda: ControlConnection(gate.watchers, gate.departed), host, control_port)
        questions = await asyncio.start_server(Questions(gate).answer, host, ready_port)
        async with control, questions:
            await asked.wait()
            gate.end()
            ends = [asyncio.ensure_future(gate.drained()), asyncio.ensure_future(again.wait())]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                end.cancel()


def main() -> int:
    """Exit status: 0 after a signal, 2 for settings that cannot be used, 1 when it cannot listen."""
    import uvloop

    try:
        settings = settings_of(os.environ)
        with logging_never_waits(), asyncio.Runner(loop_factory=uvloop.Loop) as runner:
            runner.run(run(settings))
    except InvalidInput as error:
        print(f"gate: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"gate: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
