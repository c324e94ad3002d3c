"""Files of a router, and how HAProxy's configuration names them. Pure."""

import shlex
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """Files of the router's directory; sockets in a short one (108 bytes is the system's limit)."""

    directory: Path
    sockets: Path

    def config(self, name: str) -> Path:
        """Configuration of a process."""
        return self.directory / f"{name}.cfg"

    def routes(self, name: str) -> Path:
        """The map as a process starts with it."""
        return self.directory / f"{name}.routes"

    @property
    def certificate(self) -> Path:
        """The first process's certificate with its key, where it speaks TLS."""
        return self.directory / "p0.pem"

    def log(self, name: str) -> Path:
        """What a process says."""
        return self.directory / f"{name}.log"

    def record(self, name: str) -> Path:
        """Which process it is."""
        return self.directory / f"{name}.json"

    def starting(self, name: str) -> Path:
        """Which process it is, until it answers."""
        return self.directory / f"{name}.starting"

    def socket(self, name: str, kind: str) -> Path:
        """`admin`, `in` (requests from another process), `park`, `hold`, `again` (requests that were passed on)."""
        return self.sockets / f"{name}.{kind}"


def quoted(path: Path) -> str:
    """A path as one word of a line, whatever characters it has: HAProxy's quotes are those of a shell."""
    return shlex.quote(str(path))


def argument(path: Path) -> str:
    """A path as an argument of a converter: quoted for the list of arguments, and that again for the line."""
    text = str(path)
    inner = shlex.quote(text)
    if inner == text and "," in text:
        inner = f"'{text}'"
    return shlex.quote(inner) if inner != text else text
