"""Runs a Pulumi program: the script that the program's own interpreter executes. Needs only the `pulumi` package.

The first argument is a JSON object with what the program may know; the configuration comes in the environment, because
it holds secrets. Exit status 33: done; 32: failed, and the engine has been told why; 1: failed with a message of the
program's own (`pulumi.RunError`). 0 is never this script's own: something ended the process in its place.
"""

import sys

# The folder of this script has modules with names of the standard library's; the program's own folder belongs here.
sys.path.pop(0)

import asyncio
import ctypes
import json
import logging
import os
import runpy
import signal
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TOLD = 32
DONE = 33
# Calls of the SDK block a thread each; waiting ones must not keep others from starting.
_THREADS_PER_STEP = 4
_PR_SET_PDEATHSIG = 1


def main() -> int:
    given = json.loads(sys.argv[1])
    _end_with_parent(given["parent"])
    program = Path(given["program"])
    folder = program if program.is_dir() else program.parent
    sys.path.insert(0, str(folder))
    sys.argv = [str(program)]
    os.chdir(folder)

    import pulumi
    import pulumi.runtime

    # One call to the engine for each, and it shows none of them.
    pulumi.log.debug = lambda *_, **__: None
    pulumi.runtime.set_all_config(pulumi.runtime.get_config_env(), pulumi.runtime.get_config_secret_keys_env())
    pulumi.runtime.configure(
        pulumi.runtime.Settings(
            monitor=given["monitor"],
            engine=given["engine"],
            project=given["project"],
            stack=given["stack"],
            parallel=given["parallel"],
            dry_run=given["dry_run"],
            organization=given["organization"],
            root_directory=given["root"],
        )
    )
    # Futures that nobody awaits are usual where a program ends early.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    executor = ThreadPoolExecutor(max_workers=max(given["parallel"], 1) * _THREADS_PER_STEP)
    loop.set_default_executor(executor)
    try:
        loop.run_until_complete(pulumi.runtime.run_in_stack(lambda: _execute(program)))
    except pulumi.RunError as error:
        pulumi.log.error(str(error))
        return 1
    except Exception as error:  # noqa: BLE001 - whatever a program raises is told to the engine
        pulumi.log.error(f"Program failed with an unhandled exception:\n{_trace(error, folder)}")
        return TOLD
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        sys.stdout.flush()
        sys.stderr.flush()
    return DONE


def _execute(program: Path) -> None:
    try:
        runpy.run_path(str(program), run_name="__main__")
    except SystemExit as end:
        # The body is over, well: what it has declared is still to be registered. Elsewhere (in an `apply`) `sys.exit()`
        # cuts that off.
        if end.code not in (None, 0):
            raise


def _trace(error: BaseException, folder: Path) -> str:
    """The traceback from the program's first own line on; without such a line, what is not machinery."""
    if error.__cause__ is not None:
        return "".join(traceback.format_exception(error))
    frames = traceback.extract_tb(error.__traceback__)
    own = [i for i, frame in enumerate(frames) if Path(frame.filename).is_relative_to(folder)]
    shown = frames[own[0] :] if own else [frame for frame in frames if not _machinery(frame.filename)]
    lines = traceback.format_list(shown) + traceback.format_exception_only(error)
    return "Traceback (most recent call last):\n" + "".join(lines)


def _machinery(filename: str) -> bool:
    import grpc
    import pulumi

    folders = [Path(str(module.__file__)).parent for module in (grpc, pulumi, asyncio)]
    library = Path(os.__file__).parent
    path = Path(filename)
    if filename == __file__ or filename.startswith("<frozen") or any(path.is_relative_to(f) for f in folders):
        return True
    return path.is_relative_to(library) and "site-packages" not in path.parts


def _end_with_parent(parent: int) -> None:
    """An engine that is killed leaves no program behind. Linux only; elsewhere the closed connection ends it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            sys.exit(TOLD)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # Threads that still wait for an answer must not keep the process.
    os._exit(status)
