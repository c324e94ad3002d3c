"""What wheels are chosen for: interpreter, platform and C library of the base image."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from aks_inference_runtime.images.environment.model import Platform

MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
DEFAULT_GLIBC = (2, 28)
"""Where the base does not tell: Debian 10, Ubuntu 18.10 and RHEL 8 have it or newer."""
INTERPRETER = re.compile(r"(?:^|/)((?:[\w.+-]+/)*bin/python(3\.\d+))$")
UV_GLIBC = ((2, 40), (2, 38), (2, 36), (2, 34), (2, 31), (2, 28), (2, 17))
"""C libraries that uv has a platform name for (`uv pip compile --python-platform`)."""
_MUSL_FILE = re.compile(r"(?:^|/)lib/ld-musl-[\w-]+\.so\.1$")
_GLIBC_FILE = re.compile(r"(?:^|/)libc-(2)\.(\d+)\.so$")
_GLIBC_BY_SYSTEM = {
    ("debian", "10"): (2, 28),
    ("debian", "11"): (2, 31),
    ("debian", "12"): (2, 36),
    ("debian", "13"): (2, 41),
    ("ubuntu", "20.04"): (2, 31),
    ("ubuntu", "22.04"): (2, 35),
    ("ubuntu", "24.04"): (2, 39),
}
"""By /etc/os-release: the C library's file carries no version since glibc 2.34."""
PREFERRED = ("usr/local/bin/", "opt/", "usr/bin/")
"""An interpreter that somebody put there goes before the system's own."""


@dataclass(frozen=True)
class Target:
    """An interpreter in an image."""

    python: str
    """Two numbers: `3.11`."""
    interpreter: str
    """Absolute path in the image."""
    platform: Platform = field(default_factory=Platform)
    glibc: tuple[int, int] = DEFAULT_GLIBC
    musl: bool = False
    """Alpine's C library in place of glibc."""

    @property
    def libc(self) -> str:
        """The C library, for people."""
        return "musl" if self.musl else f"glibc {'.'.join(map(str, self.glibc))}"

    @property
    def uv_platform(self) -> str:
        """What uv calls its platform: with the newest C library of uv's that is not newer."""
        machine = MACHINES[self.platform.architecture]
        if self.musl:
            return f"{machine}-unknown-linux-musl"
        glibc = next((one for one in UV_GLIBC if one <= self.glibc), UV_GLIBC[-1])
        return f"{machine}-manylinux_{glibc[0]}_{glibc[1]}"

    @property
    def tag(self) -> str:
        """`cp311`."""
        return "cp" + self.python.replace(".", "")

    @property
    def pip_platforms(self) -> tuple[str, ...]:
        """The platform tags that its wheels may carry, best first (PEP 656, PEP 600, PEP 599, PEP 571)."""
        machine = MACHINES[self.platform.architecture]
        if self.musl:
            # musl 1.2 is of 2020; its wheels say the lowest that they run with.
            return (*(f"musllinux_1_{minor}_{machine}" for minor in (2, 1, 0)), f"linux_{machine}")
        lowest = 5 if machine == "x86_64" else 17
        newer = [f"manylinux_2_{minor}_{machine}" for minor in range(self.glibc[1], lowest - 1, -1)]
        legacy = [("manylinux2014", 17), ("manylinux2010", 12), ("manylinux1", 5)]
        aliases = [f"{name}_{machine}" for name, minor in legacy if self.glibc[1] >= minor >= lowest]
        return (*newer, *aliases, f"linux_{machine}")


def choose_interpreter(paths: Iterable[str], wanted: str | None) -> tuple[str, str] | None:
    """Absolute path and version (`3.11`) of the interpreter among an image's files; `wanted` narrows the version."""
    minor = ".".join(wanted.split(".")[:2]) if wanted else None
    found = []
    for path in paths:
        match = INTERPRETER.search(path)
        if match and (minor is None or match[2] == minor):
            rank = next(
                (number for number, start in enumerate(PREFERRED) if match[1].startswith(start)), len(PREFERRED)
            )
            found.append((rank, -int(match[2].partition(".")[2]), match[1], match[2]))
    if not found:
        return None
    _, _, path, version = min(found)
    return f"/{path}", version


def has_musl(paths: Iterable[str]) -> bool:
    """Whether the C library is musl, by its loader."""
    return any(_MUSL_FILE.search(path) for path in paths)


def glibc_of(paths: Iterable[str], os_release: str | None) -> tuple[int, int]:
    """The C library's version, from its file's name or the system's release; else a safe default."""
    for path in paths:
        match = _GLIBC_FILE.search(path)
        if match:
            return int(match[1]), int(match[2])
    fields = dict(line.split("=", 1) for line in (os_release or "").splitlines() if "=" in line)
    key = fields.get("ID", "").strip('"'), fields.get("VERSION_ID", "").strip('"')
    return _GLIBC_BY_SYSTEM.get(key, DEFAULT_GLIBC)
