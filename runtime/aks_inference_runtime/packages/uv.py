"""uv, which chooses packages for any interpreter: where it is, and pip's settings in its words."""

import errno
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote, urlsplit

from aks_inference_runtime.api.errors import OperationFailed
from aks_inference_runtime.packages.settings import DEFAULT_INDEX, PipSettings

_NAMED = re.compile(r"([\w.-]+)=(?=https?://)")
"""`name=https://…`"""
NOT_CHOSEN = "No solution found"
"""What uv says where no choice of packages meets what is asked."""
_LOGIN = "give the login in the index's address, in .netrc or by keyring"
_REFUSED = re.compile(r"HTTP status client error \(40[13]\b")
_UNREACHED = ("error sending request", "HTTP status server error", "operation timed out")


T = TypeVar("T")


class NoUv(OperationFailed):
    """The program is not there; the text says what to do."""


def mend(said: str) -> str:
    """What to do about what uv, which breaks its lines, says; empty where it says so itself."""
    text = " ".join(said.split())
    if f"os error {errno.ENOSPC}" in text:
        return "the disk is full: make room and apply again"
    if "invalid peer certificate" in text:
        return "name the file of its authority by PIP_CERT, or the host by PIP_TRUSTED_HOST"
    if any(one in text for one in _UNREACHED):
        return "what it asks does not answer: correct the address, such as PIP_INDEX_URL, or the proxy; or try again"
    if _REFUSED.search(text):
        return _LOGIN
    if NOT_CHOSEN not in text:
        return ""
    if "was not found in" in text:
        return f"no index has it, or one wants a login: correct the name, or {_LOGIN}"
    return "no choice of releases meets all that is asked: change a version, or leave one out"


async def with_newest(ask: Callable[..., Awaitable[T]]) -> T:
    """What uv answers; where nothing meets what is asked once more with `--refresh`, as a page of the index may have
    been kept that is older than the release. `ask` is given the switches; raises its OperationFailed."""
    try:
        return await ask()
    except OperationFailed as error:
        if NOT_CHOSEN not in str(error):
            raise
        return await ask("--refresh")


def uv_program() -> str:
    """The one of this installation. Raises NoUv."""
    try:
        # Images of the runtime itself are without it.
        from uv import find_uv_bin

        return find_uv_bin()
    except (ImportError, FileNotFoundError):
        raise NoUv("packages are chosen by uv, whose program is missing: install it again (`pip install uv`)") from None


def uv_variables(settings: PipSettings, cache: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """What tells uv the same as pip; variables, as addresses may hold credentials and arguments can be read by all.

    Settings that pip's configuration does not name are left to uv's own. `cache`: unless uv is told another. Of what is
    built from source says `settings.builds`, which no variable can.
    """
    found = {
        # As pip looks: what is newest in any index.
        "UV_INDEX_STRATEGY": environ.get("UV_INDEX_STRATEGY", "unsafe-best-match"),
        "UV_CACHE_DIR": _absolute(environ.get("UV_CACHE_DIR") or str(cache / "uv")),
        "UV_NO_PROGRESS": "1",
        "UV_SYSTEM_CERTS": "1",
        "NO_COLOR": "1",
    }
    if settings.indexes[:1] not in ((), (DEFAULT_INDEX,)):
        found["UV_DEFAULT_INDEX"] = settings.indexes[0]
    found |= _listed("UV_INDEX", settings.indexes[1:], " ")
    links = (_link(place) for place in settings.links)
    found |= _listed("UV_FIND_LINKS", tuple(one.replace(",", "%2C") for one in links if one), ",")
    found |= _listed("UV_INSECURE_HOST", settings.trusted, " ")
    found |= _listed("UV_CONSTRAINT", tuple(map(_absolute, settings.constraints)), " ")
    found |= {"UV_PRERELEASE": "allow"} if settings.pre else {}
    if settings.cert:
        folder = Path(settings.cert).is_dir()
        found["SSL_CERT_DIR" if folder else "SSL_CERT_FILE"] = _absolute(settings.cert)
    found |= {"SSL_CLIENT_CERT": _absolute(settings.client_cert)} if settings.client_cert else {}
    whole = settings.timeout or ""
    found |= {"UV_HTTP_TIMEOUT": whole} if whole.isdecimal() and "UV_HTTP_TIMEOUT" not in environ else {}
    found |= {"HTTPS_PROXY": settings.proxy, "HTTP_PROXY": settings.proxy} if settings.proxy else {}
    return found | ({"UV_KEYRING_PROVIDER": "subprocess"} if settings.keyring else {})


def uv_logins(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The indexes that uv itself is told of, with their logins: it leaves those out of what it writes."""
    found = []
    for variable in ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL"):
        for place in environ.get(variable, "").split():
            named = _NAMED.match(place)
            address = place[named.end() :] if named else place
            prefix = f"UV_INDEX_{named[1].upper().replace('-', '_').replace('.', '_')}" if named else ""
            user, password = (environ.get(f"{prefix}_{what}", "") for what in ("USERNAME", "PASSWORD"))
            if named and (user or password):
                scheme, _, rest = address.partition("://")
                address = f"{scheme}://{quote(user, '')}:{quote(password, '')}@{rest.rpartition('@')[2]}"
            found.append(address)
    return tuple(found)


def uv_switches(settings: PipSettings) -> list[str]:
    """What has no variable."""
    return [] if settings.indexes else ["--no-index"]


def _listed(name: str, values: tuple[str, ...], between: str) -> dict[str, str]:
    return {name: between.join(values)} if values else {}


def _link(place: str) -> str | None:
    """None: a folder that is not there, which pip leaves out and uv ends at."""
    if "://" in place and not place.startswith("file:"):
        return place
    path = Path(unquote(urlsplit(place).path)) if place.startswith("file:") else Path(_absolute(place))
    return path.as_uri() if path.exists() else None


def _absolute(place: str) -> str:
    # uv runs in another folder.
    return place if "://" in place else str(Path(place).expanduser().absolute())
