"""HAProxy's runtime API over its admin socket."""

import asyncio
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from aks_inference_runtime.api.errors import OperationFailed, RuntimeUnavailable
from aks_inference_runtime.router.slots import PUBLIC_ID, SLOT_ID

COMMAND_SECONDS = 5.0
PAYLOAD_BYTES = 12_000
"""HAProxy takes a command with its payload only if it fits its buffer of 16 KiB."""


@dataclass(frozen=True, slots=True)
class ServerRow:
    """A server as `show stat` has it."""

    backend: str
    name: str
    current: int
    """Requests on it now."""
    maxconn: int
    status: str
    total: int


@dataclass(frozen=True, slots=True)
class BackendRow:
    """A backend as `show stat` has it."""

    name: str
    queued: int
    total: int
    denied: int
    """By rules: the 429s."""
    failed: int
    """Requests that reached no server: the 503s."""


Counts = Mapping[str, tuple[str, ...]]
"""Of each backend what every request changes: queued, current, total, denied, failed; as text, to compare."""


@dataclass(frozen=True)
class Stat:
    """All backends and servers."""

    backends: Mapping[str, BackendRow]
    servers: Mapping[str, tuple[ServerRow, ...]]
    """By backend, without `park`."""
    counts: Counts

    def over(self, before: "Stat") -> "Stat":
        """With what was known before of the backends that this one does not tell of."""
        return Stat(
            {**before.backends, **self.backends},
            # A backend may have lost its last server.
            {b: rows for b, rows in before.servers.items() if b not in self.backends} | dict(self.servers),
            {**before.counts, **self.counts},
        )

    def has_requests(self, backend: str) -> bool:
        """Whether some wait in it, or run."""
        row = self.backends.get(backend)
        return bool(row and row.queued) or any(server.current for server in self.servers.get(backend, ()))

    @property
    def idle(self) -> bool:
        """No request waits or runs."""
        return not any(row.queued for row in self.backends.values()) and not any(
            server.current for servers in self.servers.values() for server in servers
        )


class AdminSocket:
    """Commands to one HAProxy process, one connection each: what is sent is always read to its end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = asyncio.Lock()
        self.silent_since: float | None = None
        """When that was asked (by the loop's clock) since which nothing was answered; None: all was."""
        self._unanswered = False
        """Whether a question has failed since."""

    @property
    def silent_s(self) -> float:
        """For so many seconds nothing was answered to what was asked; 0: it answered the last question, or one is under
        way for the first time: whoever asks may have stood still meanwhile."""
        if self.silent_since is None or not self._unanswered:
            return 0.0
        return asyncio.get_running_loop().time() - self.silent_since

    async def run(self, command: str) -> str:
        """Runs a command (or several, divided by `;`). Raises RuntimeUnavailable when HAProxy does not answer."""
        async with self._lock:
            return await self._run(command)

    async def must(self, commands: Sequence[str], accept: Iterable[str] = ()) -> None:
        """Runs commands whose success is silence (or one of the texts accepted), nobody else's between them.

        Raises OperationFailed when one is refused, RuntimeUnavailable when HAProxy does not answer.
        """
        async with self._lock:
            for batch in _batches(commands):
                answer = await self._run(";".join(batch))
                # Each answers for itself; what one alone says may have several lines.
                told = answer.splitlines() if len(batch) > 1 else [answer]
                if any(line and not any(text in line for text in accept) for line in told):
                    raise OperationFailed(f"haproxy refused {batch[0].splitlines()[0]!r}: {answer}")

    async def replace_map(self, name: Path, entries: Mapping[str, str]) -> None:
        """Replaces a map's content in one instant."""
        answer = await self.run(f"prepare map {word(name)}")
        _, _, version = answer.rpartition(" ")
        if not version.isdigit():
            raise OperationFailed(f"haproxy did not prepare {name}: {answer}")
        for payload in _payloads(entries):
            await self.must([f"add map @{version} {word(name)} <<\n{payload}"])
        await self.must([f"commit map @{version} {word(name)}"])

    async def add_to_map(self, name: Path, entries: Mapping[str, str]) -> None:
        """Adds to what a map has; those that fit a payload in one instant."""
        for payload in _payloads(entries):
            await self.must([f"add map {word(name)} <<\n{payload}"])

    async def show_map(self, name: Path) -> dict[str, str]:
        """A map's content."""
        lines = (line.split(" ", 2) for line in (await self.run(f"show map {word(name)}")).splitlines())
        return {parts[1]: parts[2] for parts in lines if len(parts) == 3}

    async def stat(self, slots: Collection[int] | None = None) -> Stat:
        """Queue, counts and servers of these slots; None: of every backend."""
        return parse_stat(await self._show(6, slots))

    async def counts(self, slots: Collection[int] | None = None) -> Counts:
        """The backends' counts only: much less to tell and to read than `stat`."""
        return {row[0]: _counts(row) for row in _rows(await self._show(2, slots))}

    async def connections(self) -> int:
        """Of clients, now."""
        return sum(_int(row[3]) for row in _rows(await self.run(f"show stat {PUBLIC_ID} 1 -1")))

    async def _show(self, kinds: int, slots: Collection[int] | None) -> str:
        if slots is None:
            return await self.run(f"show stat -1 {kinds} -1")
        if not slots:
            return ""
        return await self.run(";".join(f"show stat {SLOT_ID + number} {kinds} -1" for number in slots))

    async def _run(self, command: str) -> str:
        before = self.silent_since
        if before is None:
            self.silent_since = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                reader, writer = await asyncio.open_unix_connection(str(self._path))
                try:
                    writer.write(command.encode() + b"\n")
                    await writer.drain()
                    data = await reader.read(-1)
                finally:
                    writer.close()
        except OSError as error:
            self._unanswered = True
            raise RuntimeUnavailable(f"haproxy at {self._path} does not answer: {error!r}") from None
        except BaseException:
            # Nobody waits for it any more, so that it says nothing.
            self.silent_since = before
            raise
        self.silent_since, self._unanswered = None, False
        return data.decode(errors="replace").strip()


def word(path: Path | str) -> str:
    """A path as one word of a command: what divides words or commands gets a backslash."""
    return re.sub(r"""([\s\\;"'])""", r"\\\1", str(path))


_COLUMNS = ("pxname", "svname", "qcur", "scur", "slim", "stot", "dreq", "econ", "status")
"""Of `show stat`; none of them, and none before them, is ever quoted."""
_Row = tuple[str, ...]


def parse_stat(text: str) -> Stat:
    """From the CSV of `show stat`."""
    backends: dict[str, BackendRow] = {}
    servers: dict[str, list[ServerRow]] = {}
    parked: dict[str, int] = {}
    counts: dict[str, _Row] = {}
    for row in _rows(text):
        backend, name, queued, current, limit, total, denied, failed, status = row
        if name == "BACKEND":
            counts[backend] = _counts(row)
            backends[backend] = BackendRow(
                name=backend,
                queued=_int(queued),
                total=_int(total) - parked.get(backend, 0),
                denied=_int(denied),
                failed=_int(failed),
            )
        elif name == "park":
            # Its requests are the router's own; HAProxy lists servers before their backend.
            parked[backend] = _int(total)
        else:
            row_of = ServerRow(backend, name, _int(current), _int(limit), status, _int(total))
            servers.setdefault(backend, []).append(row_of)
    return Stat(backends, {backend: tuple(rows) for backend, rows in servers.items()}, counts)


def _rows(text: str) -> Iterable[_Row]:
    header, *lines = text.removeprefix("# ").splitlines() or [""]
    if not lines:
        return
    names = header.split(",")
    places = [names.index(column) for column in _COLUMNS]
    last = max(places) + 1
    pick = itemgetter(*places)
    for line in lines:
        # Several answers begin with the same header each.
        if line and not line.startswith("#"):
            yield pick(line.split(",", last))


def _counts(row: _Row) -> _Row:
    _, _, queued, current, _, total, denied, failed, _ = row
    return queued, current, total, denied, failed


def _int(text: str) -> int:
    return int(text) if text else 0


def _batches(commands: Iterable[str]) -> Iterable[list[str]]:
    """Commands that are sent together; one with a payload is sent alone."""
    batch: list[str] = []
    size = 0
    for command in commands:
        alone = "\n" in command
        length = len(command.encode()) + 1
        if batch and (alone or size + length > PAYLOAD_BYTES):
            yield batch
            batch, size = [], 0
        if alone:
            yield [command]
            continue
        batch.append(command)
        size += length
    if batch:
        yield batch


def _payloads(entries: Mapping[str, str]) -> Iterable[str]:
    lines: list[str] = []
    size = 0
    for key, value in entries.items():
        line = f"{key} {value}\n"
        if size + len(line) > PAYLOAD_BYTES:
            yield "".join(lines)
            lines, size = [], 0
        lines.append(line)
        size += len(line)
    if lines:
        yield "".join(lines)
