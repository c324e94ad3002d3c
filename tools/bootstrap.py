"""Makes the checkout's virtual environment from the lock file; does nothing when it is up to date.

Runs with the system's Python (3.11 or newer) and nothing but the standard library. Prints the interpreter's path.
"""

import contextlib
import fcntl
import hashlib
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
STAMP = ENVIRONMENT / ".lock-digest"
INPUTS = ("requirements.lock", "pyproject.toml")


def digest() -> str:
    """What the environment was made from: the lock, the project file and the interpreter."""
    content = hashlib.sha256(sys.version.encode())
    for name in INPUTS:
        content.update((ROOT / name).read_bytes())
    return content.hexdigest()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Two commands started at once make one environment."""
    with (ROOT / ".venv.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def pip(*arguments: str) -> None:
    """Runs pip in the environment; its output goes to stderr and only if it fails."""
    command = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    # A user's PIP_* index settings are meant and stay; only what would change the hashes' meaning is left out.
    environment = {k: v for k, v in os.environ.items() if k not in ("PIP_TARGET", "PIP_PREFIX", "PIP_USER")}
    done = subprocess.run(
        [*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
        sys.exit(f"setup failed: pip ended with {done.returncode}. Is a package index reachable?")


def main() -> None:
    """Brings the environment up to date."""
    wanted = digest()
    with alone():
        if not STAMP.exists() or STAMP.read_text() != wanted:
            print("setting up: packages of requirements.lock into .venv (a minute or two, once)", file=sys.stderr)
            if not (ENVIRONMENT / "bin" / "python").exists():
                venv.EnvBuilder(with_pip=True, clear=ENVIRONMENT.exists()).create(ENVIRONMENT)
            pip("--require-hashes", "-r", "requirements.lock")
            pip("--no-deps", "--no-build-isolation", "--editable", ".")
            STAMP.write_text(wanted)
    print(ENVIRONMENT / "bin" / "python")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        # The next run makes it whole.
        sys.exit("setup stopped")
