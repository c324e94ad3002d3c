"""One page of a package index, read within a time and a size."""

import base64
import netrc
import os
import ssl
import time
import zlib
from collections.abc import Callable
from functools import cache
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

from aks_inference_runtime.packages.page import ACCEPT, File, NoPage, read_page

MOST_BYTES = 64 * 1024 * 1024
"""Of a page, unpacked. The largest of pypi.org have some 15 MB."""
_PIECE = 64 * 1024
_GONE = (404, 410)


class NotAnswered(Exception):
    """The index cannot be asked; the text is the reason, without addresses."""

    def __init__(self, reason: str, *, of_place: bool = False) -> None:
        """`of_place`: it is the same for every package."""
        super().__init__(reason)
        self.of_place = of_place


def fetch(
    index: str,
    name: str,
    seconds: float,
    *,
    cert: str | None = None,
    proxy: str | None = None,
    most_bytes: int = MOST_BYTES,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[File, ...] | None:
    """The files of a package; None where the index has no such package. Raises NotAnswered.

    Args:
        index: Required. The index's address, which may hold credentials.
        name: Required. The canonical name of the package.
        seconds: Required. For all of it.
        cert: Optional. File with certificate authorities. Default: the system's.
        proxy: Optional. Default: what the system's variables say.
        most_bytes: Optional. Of the page, unpacked.
        clock: Optional. In seconds.
    """
    end = clock() + seconds
    try:
        request = _request(index, name)
        with _opener(cert, proxy).open(request, timeout=seconds) as response:
            return read_page(response.headers.get("Content-Type", ""), _read(response, end, most_bytes, clock))
    except HTTPError as error:
        error.close()
        if error.code in _GONE:
            return None
        raise NotAnswered(f"answered {error.code}") from None
    except NoPage as error:
        raise NotAnswered(str(error)) from None
    except URLError as error:
        raise NotAnswered(_reason(error.reason, seconds), of_place=True) from None
    except (OSError, HTTPException, ValueError, zlib.error) as error:
        # ValueError: an address that is none.
        raise NotAnswered(_reason(error, seconds), of_place=isinstance(error, OSError)) from None


def _request(index: str, name: str) -> Request:
    parts = urlsplit(index)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise NotAnswered("is no address of HTTP")
    host = parts.netloc.rpartition("@")[2]
    path = f"{parts.path.rstrip('/')}/{name}/"
    request = Request(urlunsplit((parts.scheme, host, path, parts.query, "")))  # noqa: S310 - http(s), as checked above
    request.add_header("Accept", ACCEPT)
    request.add_header("Accept-Encoding", "gzip")
    request.add_header("User-Agent", "aks-inference")
    login = (unquote(parts.username), unquote(parts.password or "")) if parts.username else netrc_login(parts.hostname)
    if login is not None:
        # Never to where the index redirects.
        request.add_unredirected_header("Authorization", basic(*login))
    return request


def basic(user: str, password: str) -> str:
    """The header `Authorization` of a login."""
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def netrc_login(host: str) -> tuple[str, str] | None:
    """User and password for a host, of the file that NETRC names, else of `~/.netrc`."""
    try:
        file = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
        found = netrc.netrc(file).authenticators(host) if file.exists() else None
    except (OSError, netrc.NetrcParseError, RuntimeError):
        return None
    return (found[0], found[2] or "") if found else None


@cache
def _opener(cert: str | None, proxy: str | None) -> OpenerDirector:
    context = ssl.create_default_context(cafile=cert)
    proxies = ProxyHandler({"http": proxy, "https": proxy}) if proxy else ProxyHandler()
    opener = OpenerDirector()
    # Not build_opener's: an index sends to no ftp server and to no file.
    for handler in (
        proxies,
        UnknownHandler(),
        HTTPHandler(),
        HTTPSHandler(context=context),
        HTTPDefaultErrorHandler(),
        HTTPRedirectHandler(),
        HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _read(response: HTTPResponse, end: float, most_bytes: int, clock: Callable[[], float]) -> bytes:
    packed = response.headers.get("Content-Encoding", "").lower() == "gzip"
    unpack: Any = zlib.decompressobj(wbits=31) if packed else None
    pieces: list[bytes] = []
    size = 0
    while piece := response.read1(_PIECE):
        piece = unpack.decompress(piece, most_bytes - size + 1) if unpack else piece
        pieces.append(piece)
        size += len(piece)
        if size > most_bytes:
            raise NotAnswered(f"answered with more than {most_bytes // 1_000_000} MB")
        if clock() > end:
            raise TimeoutError
    if unpack is not None and not unpack.eof:
        raise NotAnswered("broke off in its answer")
    return b"".join(pieces)


def _reason(error: object, seconds: float) -> str:
    if isinstance(error, TimeoutError):
        return f"did not answer within {seconds:g} s"
    if isinstance(error, ssl.SSLError):
        return (
            f"cannot be trusted ({error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else 'TLS'})"
        )
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be reached ({error.strerror})"
    return f"cannot be asked ({type(error).__name__})"
