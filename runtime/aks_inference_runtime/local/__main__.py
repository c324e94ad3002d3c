"""`python -m aks_inference_runtime.local <settings as JSON> [<restarts>]`: forks a supervisor away, says how that went.

Prints `ready`, or a problem as JSON. The starter ends then; the supervisor has a session and no parent of its own.
"""

import asyncio
import logging
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import ValidationError

from aks_inference_runtime.api.errors import AksInferenceError, InvalidInput, OperationFailed
from aks_inference_runtime.api.problems import to_problem
from aks_inference_runtime.api.supervisor import LocalSettings

DISTRIBUTION = "pulumi-aks-inference"


def main(arguments: list[str]) -> int:
    """Exit status 0: it is ready; 1: a problem was printed."""
    try:
        settings = LocalSettings.model_validate_json(arguments[0] if arguments else "")
    except ValidationError as error:
        problem = InvalidInput(f"settings: {error.errors()[0]['msg']}")
        print(to_problem(problem).model_dump_json())
        return 1
    os.umask(0o077)
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(reading)
        return _supervise(settings, writing, int(arguments[1]) if len(arguments) > 1 else 0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        line = pipe.readline()
    print(line, end="", flush=True)
    return 0 if line.strip() == "ready" else 1


def _supervise(settings: LocalSettings, writing: int, restarts: int) -> int:
    from aks_inference_runtime.local.serve import serve
    from aks_inference_runtime.router import HaproxyRouter
    from aks_inference_runtime.router.model import Router
    from aks_inference_runtime.router.tokens.fetch import fetch

    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    pipe = os.fdopen(writing, "w")

    def tell(line: str) -> None:
        if not pipe.closed:
            pipe.write(f"{line}\n")
            pipe.close()

    def router(folder: Path, settings: LocalSettings) -> Router:
        return HaproxyRouter(folder, host="127.0.0.1", port=settings.port, haproxy=settings.haproxy, fetch=fetch)

    try:
        asyncio.run(serve(settings, router, tell, _version(), restarts))
    except AksInferenceError as error:
        tell(to_problem(error).model_dump_json())
        return 1
    except OSError as error:
        logging.exception("the supervisor could not start")
        problem = OperationFailed(f"the supervisor could not start: {error}")
        tell(to_problem(problem).model_dump_json())
        return 1
    return 0


def _version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "0"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
