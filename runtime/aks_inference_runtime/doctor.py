"""Whether hosts can be reached from where this runs: name, connection, TLS, an HTTP answer; each failure with its mend.

`python -m aks_inference_runtime.doctor` takes the list as JSON: that is what a Job in the cluster runs.
"""

import argparse
import asyncio
import json
import math
import socket
import ssl
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

TIMEOUT_S = 5.0
"""Of each stage. A firewall that drops packets answers nothing."""
AT_ONCE = 16
_LONGEST_HEAD = 4096


class Stage(StrEnum):
    """How far it got."""

    NAME = "name"
    CONNECTION = "connection"
    TLS = "TLS"
    HTTP = "HTTP"


@dataclass(frozen=True)
class Target:
    """A host to reach."""

    host: str
    port: int
    protocol: str
    """`HTTPS`, `HTTP`, `TCP` or `UDP`."""
    phases: tuple[str, ...] = ()
    """What breaks without it."""
    without_it: str = ""
    required: bool = True

    @property
    def can_be_checked(self) -> bool:
        """Patterns are for firewalls, and some names are known only after the creation."""
        return "*" not in self.host and "<" not in self.host


@dataclass(frozen=True)
class Result:
    """What came of it."""

    target: Target
    ok: bool
    failed_at: Stage | None = None
    detail: str = ""
    """An address and an HTTP status, or the error."""
    mend: str = ""
    seconds: float = 0.0

    def line(self) -> str:
        """For people."""
        place = f"{self.target.host}:{self.target.port}"
        if self.ok:
            return f"ok    {place}  {self.detail} in {self.seconds * 1000:.0f} ms"
        grade = "FAIL" if self.target.required else "warn"
        phases = f"; breaks: {', '.join(self.target.phases)}" if self.target.phases else ""
        without = f" ({self.target.without_it})" if self.target.without_it else ""
        return f"{grade}  {place}  {self.failed_at}: {self.detail}{phases}{without}; {self.mend}"


async def check_all(targets: Iterable[Target], timeout_s: float = TIMEOUT_S) -> list[Result]:
    """All of them, in their order; what cannot be checked is left out."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(target: Target) -> Result:
        async with places:
            return await check(target, timeout_s)

    return list(await asyncio.gather(*(one(target) for target in targets if target.can_be_checked)))


async def check(target: Target, timeout_s: float = TIMEOUT_S) -> Result:
    """One of them."""
    begun = time.monotonic()
    try:
        addresses = await asyncio.wait_for(_resolved(target), timeout_s)
    except (OSError, TimeoutError) as error:
        mend = "let the machine's DNS server answer for it (private zones must be linked to the network)"
        return _failed(target, Stage.NAME, error, mend, begun)
    if target.protocol == "UDP":
        return Result(target, True, detail=f"{addresses[0]} (UDP, not asked)", seconds=time.monotonic() - begun)
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(addresses[0], target.port), timeout_s)
    except (OSError, TimeoutError) as error:
        mend = f"let TCP {target.port} out to it (firewall, network security group, route)"
        return _failed(target, Stage.CONNECTION, error, mend, begun)
    try:
        return await _spoken(target, addresses[0], reader, writer, timeout_s, begun)
    finally:
        writer.close()


async def _spoken(
    target: Target,
    address: str,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    timeout_s: float,
    begun: float,
) -> Result:
    if target.protocol == "HTTPS":
        try:
            await asyncio.wait_for(
                writer.start_tls(ssl.create_default_context(), server_hostname=target.host), timeout_s
            )
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            mend = "a firewall that opens TLS must leave it alone, or its certificate must be trusted here and on nodes"
            return _failed(target, Stage.TLS, error, mend, begun)
    detail = address
    if target.protocol in {"HTTP", "HTTPS"}:
        request = (
            f"HEAD / HTTP/1.1\r\nHost: {target.host}\r\nUser-Agent: aks-inference-doctor\r\nConnection: close\r\n\r\n"
        )
        try:
            writer.write(request.encode())
            await asyncio.wait_for(writer.drain(), timeout_s)
            head = (await asyncio.wait_for(reader.read(_LONGEST_HEAD), timeout_s)).decode("latin-1")
        except (OSError, TimeoutError) as error:
            return _failed(target, Stage.HTTP, error, "a proxy or firewall holds the request back: let it pass", begun)
        status = head.split(" ", 2)[1:2]
        if not head.startswith("HTTP/") or not status:
            wrong = OSError("the connection was closed without an answer" if not head else "no HTTP answer")
            return _failed(target, Stage.HTTP, wrong, "a proxy or firewall stands in the way: let it pass", begun)
        # Every status is an answer of somebody; 401, 403 and 404 are what these hosts say to a stranger.
        detail = f"{address}, HTTP {status[0]}"
    return Result(target, True, detail=detail, seconds=time.monotonic() - begun)


async def _resolved(target: Target) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def _failed(target: Target, stage: Stage, error: Exception, mend: str, begun: float) -> Result:
    said = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
    return Result(target, False, stage, said, mend, time.monotonic() - begun)


def shown(results: Sequence[Result], as_json: bool) -> int:
    """Prints them; 1 where a required host failed, else 0."""
    if as_json:
        print(json.dumps([asdict(result) for result in results], indent=2))
    else:
        for result in results:
            print(result.line())
        failed = sum(not result.ok for result in results)
        print(f"{len(results)} hosts: {failed} cannot be reached" if failed else f"{len(results)} hosts: all reached")
    return int(any(not result.ok and result.target.required for result in results))


def seconds(text: str) -> float:
    """A time on the command line. Raises ArgumentTypeError."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is no time: give seconds above 0")
    return value


def main() -> None:
    """A list of targets as JSON, in a file or on standard input."""
    parser = argparse.ArgumentParser(prog="aks-inference doctor", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--file", type=argparse.FileType("r"), default=sys.stdin, help="default: standard input")
    parser.add_argument("--timeout", type=seconds, default=TIMEOUT_S, help="seconds of each stage")
    given = parser.parse_args()
    with given.file:
        targets = [Target(**{**each, "phases": tuple(each.get("phases", ()))}) for each in json.load(given.file)]
    sys.exit(shown(asyncio.run(check_all(targets, given.timeout)), given.json))


if __name__ == "__main__":
    main()
