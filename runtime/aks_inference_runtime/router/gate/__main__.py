"""`python -m aks_inference_runtime.router.gate <settings.json>`: runs one gate until SIGTERM or SIGINT."""

import asyncio
import gc
import signal
import sys
from pathlib import Path

from pydantic import ValidationError

from aks_inference_runtime.router.gate.lines import logging_never_waits
from aks_inference_runtime.router.gate.server import serving
from aks_inference_runtime.router.gate.settings import GateSettings

USAGE = "usage: python -m aks_inference_runtime.router.gate <settings.json>"


async def run(settings: GateSettings) -> None:
    """Serves until a signal; what runs then is finished first, a second signal ends at once."""
    loop = asyncio.get_running_loop()
    asked, again = asyncio.Event(), asyncio.Event()

    def stop() -> None:
        (again if asked.is_set() else asked).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    async with serving(settings) as gate:
        # What is here stays: looking through it for garbage would hold requests up.
        gc.freeze()
        await asked.wait()
        gate.end()
        ends = [asyncio.ensure_future(gate.drained()), asyncio.ensure_future(again.wait())]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()


def main(arguments: list[str]) -> int:
    """Exit status: 0 after a signal, 2 for settings that cannot be read, 1 when it cannot listen."""
    if len(arguments) != 1:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        settings = GateSettings.model_validate_json(Path(arguments[0]).read_bytes())
    except (OSError, ValidationError) as error:
        print(f"gate: {arguments[0]}: {error}", file=sys.stderr)
        return 2
    try:
        with logging_never_waits(), asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(run(settings))
    except OSError as error:
        print(f"gate: {error}", file=sys.stderr)
        return 1
    return 0


def _loop_factory() -> "type[asyncio.AbstractEventLoop] | None":
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.Loop


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
