"""Files of packages, fetched in parallel, each as its digest says."""

import asyncio
import hashlib
import os
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from aks_inference_runtime.packages.fetch import basic, netrc_login
from aks_inference_runtime.packages.settings import PipSettings, shown
from aks_inference_runtime.packages.waiting import saying

PARALLEL = 8
TRIES = 4
WAIT_S = 0.5
"""Before the second try; each later one waits twice as long."""
MOST_BYTES = 8 * 1024**3
"""Of a file whose size nobody said: the largest published ones have about 3 GB."""
DIGESTS = ("sha256", "sha512", "sha384", "blake2b", "md5")
"""Best first: files are kept by the first."""
_PIECE = 256 * 1024
_SILENT_S = 60.0
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_KEYRING_S = 30.0


class NotFetched(Exception):
    """A file cannot be had; the text says which and why, without credentials."""


@dataclass(frozen=True)
class Wanted:
    """A file of an index."""

    filename: str
    url: str
    """Or the path of a file here."""
    digests: Mapping[str, str]
    """By their algorithms: one at least. Old indexes have MD5 alone."""
    size: int | None = None

    def place(self, folder: Path, sha256: str) -> Path:
        """Where it is kept."""
        return folder / sha256 / self.filename

    def judged(self) -> tuple[str, str]:
        """The best of its digests. Raises NotFetched."""
        for algorithm in DIGESTS:
            if algorithm in self.digests:
                return algorithm, self.digests[algorithm].lower()
        raise NotFetched(f"{self.filename}: its digests are of unknown kinds ({', '.join(self.digests)})")


class _Broken(Exception):
    """May go well another time."""


async def download(
    wanted: Sequence[Wanted],
    folder: Path,
    settings: PipSettings,
    progress: Callable[[str], None],
    wait_s: float = WAIT_S,
) -> list[str]:
    """Their SHA-256s, by which all are in the folder then; what is there is not fetched. The first that cannot be had
    ends the others. Raises NotFetched."""
    known = [one.digests.get("sha256", "").lower() for one in wanted]
    missing = [n for n, one in enumerate(wanted) if not (sha := known[n]) or not one.place(folder, sha).is_file()]
    if not missing:
        return known
    size = sum(wanted[n].size or 0 for n in missing)
    progress(f"fetching {len(missing)} packages" + (f" ({size / 1e6:.1f} MB)" if size else ""))
    slots = asyncio.Semaphore(PARALLEL)
    try:
        async with _Files(settings, wait_s) as files, asyncio.TaskGroup() as group:
            largest_first = sorted(missing, key=lambda n: -(wanted[n].size or 0))
            tasks = {n: group.create_task(_one(files, wanted[n], folder, slots)) for n in largest_first}
            async with saying(progress, lambda: files.told(size)):
                await asyncio.wait(tasks.values())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [tasks[n].result() if n in tasks else known[n] for n in range(len(wanted))]


async def _one(files: "_Files", one: Wanted, folder: Path, slots: asyncio.Semaphore) -> str:
    async with slots:
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        part = folder / f"{one.filename}.{os.getpid()}.{id(one)}.part"
        try:
            sha256 = await files.fetch(one, part)
            place = one.place(folder, sha256)
            place.parent.mkdir(exist_ok=True)
            part.replace(place)
        finally:
            part.unlink(missing_ok=True)
        return sha256


class _Files:
    """Where files come from: one session, and what logs in to the indexes."""

    def __init__(self, settings: PipSettings, wait_s: float) -> None:
        self._settings, self._wait_s = settings, wait_s
        places = (*settings.indexes, *settings.links, *settings.logins)
        self._logins = [url for place in places if (url := _url(place)) and (url.user or url.password)]
        self._asked: dict[URL, dict[str, str]] = {}
        self._keyring = asyncio.Lock()
        self._got: dict[Path, int] = {}

    def told(self, size: int) -> str:
        """How much is there, of as many bytes as are known of."""
        of = f" of {size / 1e6:.1f}" if size else ""
        return f"{sum(self._got.values()) / 1e6:.1f}{of} MB fetched"

    async def __aenter__(self) -> "_Files":
        context = _trust(self._settings)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=PARALLEL, ssl=context),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_SILENT_S, sock_read=_SILENT_S),
            headers={"User-Agent": "aks-inference", "Accept-Encoding": "identity"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def fetch(self, one: Wanted, part: Path) -> str:
        """Into a file of its own; its SHA-256. Raises NotFetched."""
        url, tried = _url(one.url), 0
        while True:
            try:
                return await _written(one, self._pieces(url) if url else _local(one.url), part, self._got)
            except _Broken as broken:
                tried += 1
                if tried == TRIES:
                    raise NotFetched(f"{one.filename}: {shown(one.url)} {broken}, {TRIES} times") from None
            await asyncio.sleep(self._wait_s * 2 ** (tried - 1))

    async def _pieces(self, url: URL) -> AsyncGenerator[bytes]:
        login, judged = await self._login(url), not self._trusted(url)
        try:
            proxy, bare = self._proxy(url), url.with_user(None)
            async with self._session.get(bare, headers=login, proxy=proxy, ssl=judged) as answer:
                if answer.status in _AGAIN:
                    raise _Broken(f"answered {answer.status}")
                if answer.status != 200:
                    raise NotFetched(_refused(url, answer.status))
                async for piece in answer.content.iter_chunked(_PIECE):
                    yield piece
        except aiohttp.ClientConnectorCertificateError as error:
            raise NotFetched(f"{url.name}: {_shown(url)} cannot be trusted ({error.certificate_error})") from None
        except TimeoutError:
            raise _Broken(f"was silent for {_SILENT_S:g} s") from None
        except (aiohttp.InvalidURL, ValueError) as error:
            raise NotFetched(f"{url.name}: {_shown(url)} cannot be asked ({type(error).__name__})") from None
        except (aiohttp.ClientError, OSError) as error:
            raise _Broken(f"broke off ({error or type(error).__name__})") from None

    def _trusted(self, url: URL) -> bool:
        return bool({url.host, f"{url.host}:{url.port}"} & set(self._settings.trusted))

    def _proxy(self, url: URL) -> str | None:
        """As uv takes it: what needs none has none, whoever names it."""
        if proxy_bypass(url.host or ""):
            return None
        machine = getproxies()
        found = self._settings.proxy or machine.get(url.scheme) or machine.get("all")
        return found if not found or "://" in found else f"http://{found}"

    async def _login(self, url: URL) -> dict[str, str]:
        """Of the address, of the index that it is nearest to at the same place, or of .netrc."""
        near = [one for one in self._logins if _origin(one) == _origin(url)]
        index = url if url.user or url.password else max(near, key=lambda one: _common(one, url), default=None)
        if index is None:
            found = netrc_login(url.host or "")
            return _authorization(*found) if found else {}
        if index.password is None and self._settings.keyring:
            async with self._keyring:
                if index not in self._asked:
                    self._asked[index] = await _of_keyring(index)
            return self._asked[index]
        return _authorization(index.user or "", index.password or "")


async def _written(one: Wanted, pieces: AsyncGenerator[bytes], part: Path, sizes: dict[Path, int]) -> str:
    algorithm, expected = one.judged()
    sha256 = hashlib.sha256()
    judged = sha256 if algorithm == "sha256" else hashlib.new(algorithm, usedforsecurity=False)
    got, most = 0, one.size if one.size is not None else MOST_BYTES
    with part.open("wb") as file:
        async with aclosing(pieces):
            async for piece in pieces:
                got += len(piece)
                sizes[part] = got
                if got > most:
                    raise NotFetched(f"{one.filename}: more than the {most} bytes that it should have came")
                for digest in {sha256, judged}:
                    digest.update(piece)
                file.write(piece)
    if judged.hexdigest() != expected:
        # Too few bytes, too: a proxy on the way ends a connection as if all had been said.
        raise _Broken(f"gave {got} bytes with the digest {algorithm}:{judged.hexdigest()}, not {algorithm}:{expected}")
    return sha256.hexdigest()


async def _local(address: str) -> AsyncGenerator[bytes]:
    parsed = URL(address)
    path = Path(parsed.path if parsed.scheme == "file" else address)
    try:
        file = await asyncio.to_thread(path.open, "rb")
        with file:
            while piece := await asyncio.to_thread(file.read, _PIECE):
                yield piece
    except OSError as error:
        raise NotFetched(f"{path.name}: {path}: {error.strerror or error}") from None


async def _of_keyring(index: URL) -> dict[str, str]:
    """As uv asks it: by the address, then by the host."""
    user = str(index.user)
    host = (index.host or "") if index.is_default_port() else f"{index.host}:{index.port}"
    for service in (str(index.with_user(None)), host):
        with suppress(OSError, TimeoutError, UnicodeDecodeError):
            asked = await asyncio.create_subprocess_exec(
                "keyring", "get", service, user, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
            )
            try:
                async with asyncio.timeout(_KEYRING_S):
                    said, _ = await asked.communicate()
            finally:
                with suppress(ProcessLookupError):
                    asked.kill()
            if asked.returncode == 0:
                return _authorization(user, said.decode().strip())
    return {}


def _authorization(user: str, password: str) -> dict[str, str]:
    # Not aiohttp's own, which refuses a colon in the name. Not sent on to where another place redirects.
    return {"Authorization": basic(user, password)}


def _trust(settings: PipSettings) -> ssl.SSLContext:
    """Raises NotFetched."""
    file = settings.cert
    try:
        folder = file is not None and Path(file).is_dir()
        context = ssl.create_default_context(cafile=None if folder else file, capath=file if folder else None)
        if file := settings.client_cert:
            context.load_cert_chain(file)
    except OSError as error:
        # An SSLError is one, too.
        reason = error.strerror or type(error).__name__
        raise NotFetched(
            f"{file}: no certificates can be read there ({reason}); correct `cert` of pip's settings"
        ) from None
    return context


def _url(address: str) -> URL | None:
    """None: a file here."""
    return URL(address) if address.startswith(("http://", "https://")) else None


def _origin(url: URL) -> tuple[str, int | None]:
    return url.host or "", url.port


def _common(one: URL, other: URL) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one.parts, other.parts, strict=False)))


def _shown(url: URL) -> str:
    return shown(str(url))


def _refused(url: URL, status: int) -> str:
    mend = "; give a login in the index's address, in .netrc or by keyring" if status in {401, 403} else ""
    return f"{url.name}: {_shown(url)} answered {status}{mend}"
