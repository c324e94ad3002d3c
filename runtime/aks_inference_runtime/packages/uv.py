"""uv, which chooses packages for any interpreter: where it is, and pip's settings in its words."""

from collections.abc import Mapping
from pathlib import Path

from aks_inference_runtime.packages.settings import DEFAULT_INDEX, PipSettings


class NoUv(Exception):
    """The program is not there; the text says what to do."""


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
    found |= _listed("UV_FIND_LINKS", tuple(map(_absolute, settings.links)), ",")
    found |= _listed("UV_INSECURE_HOST", settings.trusted, " ")
    found |= _listed("UV_CONSTRAINT", tuple(map(_absolute, settings.constraints)), " ")
    found |= {"UV_PRERELEASE": "allow"} if settings.pre else {}
    found |= {"SSL_CERT_FILE": _absolute(settings.cert)} if settings.cert else {}
    found |= {"SSL_CLIENT_CERT": _absolute(settings.client_cert)} if settings.client_cert else {}
    whole = settings.timeout or ""
    found |= {"UV_HTTP_TIMEOUT": whole} if whole.isdecimal() and "UV_HTTP_TIMEOUT" not in environ else {}
    found |= {"HTTPS_PROXY": settings.proxy, "HTTP_PROXY": settings.proxy} if settings.proxy else {}
    return found | ({"UV_KEYRING_PROVIDER": "subprocess"} if settings.keyring else {})


def uv_switches(settings: PipSettings) -> list[str]:
    """What has no variable."""
    return [] if settings.indexes else ["--no-index"]


def _listed(name: str, values: tuple[str, ...], between: str) -> dict[str, str]:
    return {name: between.join(values)} if values else {}


def _absolute(place: str) -> str:
    # uv runs in another folder.
    return place if "://" in place else str(Path(place).expanduser().absolute())
