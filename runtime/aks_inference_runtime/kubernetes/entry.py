"""How the programs of the runtime's pods begin and end."""

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from aks_inference_runtime.api.errors import AksInferenceError
from aks_inference_runtime.kubernetes.serving import answering
from aks_inference_runtime.router.gate.lines import logging_never_waits

FORM = "%(asctime)s %(levelname)s %(name)s %(message)s"
Work = Coroutine[Any, Any, None]


def serve(name: str, begin: Callable[[], Work], loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> int:
    """Runs a program to its end.

    Args:
        name: Required. Of the program, before its errors.
        begin: Required. Reads the settings, and returns what runs. Raises AksInferenceError for settings.
        loop: Optional. Makes the event loop. Default: asyncio's own.

    Returns:
        Exit status: 0 after a signal, 2 for settings that cannot be used, 1 for what went wrong.
    """
    logging.getLogger().setLevel(logging.INFO)
    try:
        with logging_never_waits(program=name, form=FORM):
            work = begin()
    except AksInferenceError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    try:
        # Endpoints change hands and are scaled whoever reads this, or does not.
        with logging_never_waits(program=name, form=FORM), asyncio.Runner(loop_factory=loop) as runner:
            runner.run(work)
    except (AksInferenceError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    return 0


def fast_loop() -> asyncio.AbstractEventLoop:
    """For who has much to send and to hear."""
    import uvloop

    return uvloop.new_event_loop()


async def until_told(
    works: Iterable[Work], host: str, port: int, ready: Callable[[], bool], metrics: Callable[[], str]
) -> None:
    """Does all works, and answers probes and Prometheus, until SIGTERM or SIGINT; raises what a work ended with."""
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    tasks = [asyncio.create_task(work) for work in works]
    try:
        async with answering(
            host, port, alive=lambda: not any(task.done() for task in tasks), ready=ready, metrics=metrics
        ):
            waiting = asyncio.create_task(asked.wait())
            done, _ = await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for ended in tasks:
        if ended in done:
            ended.result()
