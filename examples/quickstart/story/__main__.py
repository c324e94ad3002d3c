"""The quickstart: the main job of this package, end to end, on this machine. No Azure, Kubernetes, Docker or root.

With --target kubernetes the same on a cluster: images and models go into the registry that you name.
"""

import argparse
import asyncio
import contextlib
import errno
import os
import secrets
import shlex
import shutil
import signal
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The story's modules, and train.py beside the program.
sys.path[:0] = [str(HERE), str(HERE.parent)]

import steps  # noqa: E402
from aks_inference_runtime.api.errors import InvalidInput  # noqa: E402
from aks_inference_runtime.cli.cluster import kubeconfigs  # noqa: E402
from engine import STACK, Engine, StoryError  # noqa: E402
from leftovers import free_port  # noqa: E402
from options import SERVICE_TYPES, arguments  # noqa: E402
from places import OnKubernetes, Place, ThisMachine  # noqa: E402
from report import Report  # noqa: E402

PROJECT = HERE.parent.parent.parent
STACK_FILE = PROJECT / f"Pulumi.{STACK}.yaml"
ENDS = (signal.SIGTERM, signal.SIGHUP)
NOBODY_READS = (errno.EPIPE, errno.EIO)
"""Of a pipe whose reader has enough (`| head`), and of a terminal that is gone."""
CLOSED_PIPE = 141
"""As a shell has it for the signal SIGPIPE."""


async def place_of(options: argparse.Namespace, work: Path) -> Place:
    """Where it runs. Raises StoryError where that cannot be."""
    if options.target == "local":
        port = free_port(options.port)
        if port != options.port:
            print(f"port {options.port} is taken; using {port}", file=sys.stderr)
        return ThisMachine(work, port)
    try:
        # Its steps name one file; of a list the first.
        found = kubeconfigs(options.kubeconfig)[0].resolve()
    except InvalidInput as error:
        raise StoryError(str(error)) from None
    service_type = options.service_type or SERVICE_TYPES[0]
    given = options.image, options.base_image, options.secret, service_type
    place = OnKubernetes(found, options.context, options.registry, *given)
    await place.check()
    return place


async def begin(engine: Engine, report: Report, work: Path, options: argparse.Namespace) -> None:
    """The story at its place."""
    await tell(steps.Story(engine, report, work, await place_of(options, work)), options.keep)


async def tell(story: steps.Story, keep: bool) -> None:
    """All steps in order; what was made is destroyed on every way out but --keep."""
    try:
        for step in (steps.train_models, steps.preview_first, steps.apply_first, steps.score_rows):
            await step(story)
        for step in (steps.roll_out, steps.scale, steps.apply_again):
            await step(story)
    except BaseException:
        await asyncio.shield(_clear(story))
        raise
    await (steps.keep(story) if keep else steps.destroy(story))


async def _clear(story: steps.Story) -> None:
    """After a failure or Ctrl-C: destroys what there is; what cannot be destroyed is named."""
    if STACK_FILE.exists():
        _say("cleaning up …")
        done = await story.engine.run("destroy", "--yes", "--skip-preview")
        if done.code == 0:
            done = await story.engine.run("stack", "rm", "--yes")
        if done.code:
            _say(f"could not clean up: {story.work} is kept\n{done.text}")
            return
    shutil.rmtree(story.work, ignore_errors=True)


def _say(text: str) -> None:
    """Whoever reads it may be gone: the cleaning up goes on."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr)


def end_like_ctrl_c() -> None:
    """A terminal that closes and SIGTERM end the story like Ctrl-C does: with everything cleaned up."""
    terminals = [number for number in (0, 1, 2) if os.isatty(number)]

    def end(number: int, _: object) -> None:
        for one in ENDS:
            # Of a closed terminal two tell: the system and the shell.
            signal.signal(one, signal.SIG_IGN)
        if number == signal.SIGHUP:
            # What is written there from now on would fail, and the cleaning up with it.
            null = os.open(os.devnull, os.O_RDWR)
            for terminal in terminals:
                os.dup2(null, terminal)
        os.kill(os.getpid(), signal.SIGINT)

    for one in ENDS:
        # `nohup` wants it to go on.
        if signal.getsignal(one) is not signal.SIG_IGN:
            signal.signal(one, end)


def main() -> int:
    """Runs the story; 0 when every step did what it must, 1 when one did not, 130 after Ctrl-C."""
    options = arguments()
    if STACK_FILE.exists():
        print(
            f"{STACK_FILE.name} is there: a quickstart of this checkout was kept running or is under way.\n"
            "End it with the command that it printed. Only if nothing of it runs any more: `rm` the file.",
            file=sys.stderr,
        )
        return 1
    work = Path(tempfile.mkdtemp(prefix="aks-inference-quickstart-")).resolve()
    # The CLI wants the folder of a file backend to be there.
    (work / "state").mkdir()
    passphrase = work / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_text(secrets.token_urlsafe(24))
    report = Report(options.json)
    end_like_ctrl_c()
    ending = ""
    try:
        engine = Engine(options.engine, PROJECT, work)
        ending = f"{engine.destroy_command} && rm -r {shlex.quote(str(work))}"
        asyncio.run(begin(engine, report, work, options))
    except StoryError as error:
        print(f"\nquickstart: {error}", file=sys.stderr)
        if not STACK_FILE.exists():
            shutil.rmtree(work, ignore_errors=True)
        return 1
    except KeyboardInterrupt:
        _say("\nquickstart: stopped")
        if STACK_FILE.exists():
            # It was pressed again while that was under way.
            _say(f"not cleaned up; once nothing of it runs any more: {ending}")
        return 130
    except OSError as error:
        if error.errno not in NOBODY_READS:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return CLOSED_PIPE
    report.end("Done. The program is examples/quickstart/__main__.py; the README says how to go on.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
