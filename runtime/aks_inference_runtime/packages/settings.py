"""Where pip would look for packages: its environment variables, its configuration files, options of requirements.

The order is pip's own: a later one of global, user, site, PIP_CONFIG_FILE and PIP_* replaces an earlier one, and the
section [install] the section [global].
"""

import configparser
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

DEFAULT_INDEX = "https://pypi.org/simple"
_SECTIONS = ("global", "install")
_TRUE = frozenset({"1", "true", "yes", "on", "y", "t"})
_LOGIN = re.compile(r"(?<=://)\S*@")
_QUERY = re.compile(r"(https?://[^\s?]*)\?[^\s`'\")]*")
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")
SHORT_OPTIONS = {"-i": "--index-url", "-f": "--find-links"}
_TAKEN = frozenset({"--index-url", "--extra-index-url", "--find-links", "--pre", "--no-index", "--trusted-host"})
_BUILDS = ("--no-binary", "--only-binary")


@dataclass(frozen=True)
class PipSettings:
    """Where packages come from. Addresses may hold credentials: none of this is ever shown but by `shown`."""

    indexes: tuple[str, ...] = (DEFAULT_INDEX,)
    links: tuple[str, ...] = ()
    """Folders and pages with files (`--find-links`)."""
    pre: bool = False
    cert: str | None = None
    """File with certificate authorities. Default: the system's."""
    proxy: str | None = None
    """Default: the system's variables."""
    client_cert: str | None = None
    """File with a certificate of this client and its key."""
    trusted: tuple[str, ...] = ()
    """Hosts, with a port or without, whose certificates are not judged."""
    constraints: tuple[str, ...] = ()
    """Files and addresses."""
    keyring: bool = False
    """Passwords of an index whose address has a user only are asked of the program `keyring`."""
    timeout: str | None = None
    """Seconds that an index may be silent."""
    builds: tuple[str, ...] = ()
    """Options of a requirements file that say what is built from its source, such as `--only-binary numpy`."""
    logins: tuple[str, ...] = ()
    """Addresses that nothing is looked for at, with logins for files that are there."""


def shown(address: str) -> str:
    """Scheme and host: user, path and query of an index may be a secret."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    try:
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        port = ""
    return f"{parts.scheme}://{host}{port}"


def without_secrets(text: str, settings: PipSettings) -> str:
    """What another program said, with its addresses as they may be shown."""
    for address in filter(None, (*settings.indexes, *settings.links, *settings.logins, settings.proxy)):
        if "://" in address and address != DEFAULT_INDEX:
            bare = f"{shown(address)}{urlsplit(address).path}".rstrip("/")
            text = text.replace(address, shown(address)).replace(bare, shown(address))
    text = _LOGIN.sub("", text)
    return _QUERY.sub(r"\1", text)


def machine_settings(environ: Mapping[str, str], site: Path | None = None) -> PipSettings:
    """What pip would take of this machine. `site`: the folder of the environment that pip belongs to."""
    merged: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for path in _files(environ, site):
        for section in _SECTIONS:
            merged[section] |= _read(path, section)
    taken = merged["global"] | merged["install"]
    for name, value in environ.items():
        if name.startswith("PIP_") and value:
            taken[_key(name[4:])] = value
    indexes = [taken.get("index-url", DEFAULT_INDEX), *taken.get("extra-index-url", "").split()]
    return PipSettings(
        () if _switch(taken, "no-index") else tuple(dict.fromkeys(indexes)),
        tuple(taken.get("find-links", "").split()),
        _switch(taken, "pre"),
        _path(taken, "cert") or _bundle(environ),
        taken.get("proxy"),
        _path(taken, "client-cert"),
        tuple(taken.get("trusted-host", "").split()),
        tuple(taken.get("constraint", "").split()),
        taken.get("keyring-provider") == "subprocess" or environ.get("UV_KEYRING_PROVIDER") == "subprocess",
        taken.get("default-timeout") or taken.get("timeout"),
        tuple(other_options(f"{name} {taken.get(name[2:], '')}" for name in _BUILDS)),
    )


def with_options(settings: PipSettings, options: Iterable[str], environ: Mapping[str, str]) -> PipSettings:
    """With the options of a requirements file, such as `--extra-index-url https://…`; others are left alone."""
    parsed = [_option(line, environ) for line in options]
    given = [value for name, value in parsed if name == "--index-url" and value]
    extra = [value for name, value in parsed if name == "--extra-index-url" and value]
    links = [value for name, value in parsed if name == "--find-links" and value]
    trusted = [value for name, value in parsed if name == "--trusted-host" and value]
    indexes: Sequence[str] = given[-1:] or settings.indexes
    if any(name == "--no-index" for name, _ in parsed) or not settings.indexes:
        indexes, extra = (), []
    return replace(
        settings,
        indexes=tuple(dict.fromkeys([*indexes, *extra])),
        links=tuple(dict.fromkeys([*settings.links, *links])),
        pre=settings.pre or any(name == "--pre" for name, _ in parsed),
        trusted=tuple(dict.fromkeys([*settings.trusted, *trusted])),
    )


def other_options(options: Iterable[str]) -> Iterator[str]:
    """Those that `with_options` leaves alone; names of packages in lines of their own, as uv wants them."""
    for line in options:
        name, value = _option(line, {})
        if name in _BUILDS:
            yield from (f"{name} {package}" for package in value.replace(",", " ").split())
        elif name not in _TAKEN:
            yield line


def _option(line: str, environ: Mapping[str, str]) -> tuple[str, str]:
    name, _, value = line.strip().replace("=", " ", 1).partition(" ")
    # As pip does in requirements files, so that no credentials need stand in one.
    expanded = _VARIABLE.sub(lambda found: environ.get(found[1]) or found[0], value.strip())
    return SHORT_OPTIONS.get(name, name), expanded


def _bundle(environ: Mapping[str, str]) -> str | None:
    """Of the library by which pip asks."""
    given = environ.get("REQUESTS_CA_BUNDLE") or environ.get("CURL_CA_BUNDLE")
    return given if given and Path(given).is_file() else None


def _files(environ: Mapping[str, str], site: Path | None) -> Iterator[Path]:
    own = environ.get("PIP_CONFIG_FILE", "")
    if own == os.devnull:
        return
    home = Path(environ.get("HOME") or Path.home())
    configured = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    if sys.platform == "darwin":
        support = Path("Library/Application Support/pip/pip.conf")
        yield Path("/") / support
        user = home / support if (home / support).parent.is_dir() else configured / "pip" / "pip.conf"
    else:
        shared = (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")
        yield from (Path(folder) / "pip" / "pip.conf" for folder in shared if folder)
        yield Path("/etc/pip.conf")
        user = configured / "pip" / "pip.conf"
    if not (own and Path(own).exists()):
        yield home / ".pip" / "pip.conf"
        yield user
    if site is not None:
        yield site / "pip.conf"
    if own:
        yield Path(own)


def _read(path: Path, section: str) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(path.read_text("utf-8"))
        return {_key(name): value for name, value in parser.items(section)}
    except (OSError, UnicodeDecodeError, configparser.Error):
        # pip itself says what is wrong with it.
        return {}


def _key(name: str) -> str:
    return name.lower().replace("_", "-").removeprefix("--")


def _switch(taken: Mapping[str, str], name: str) -> bool:
    return taken.get(name, "").strip().lower() in _TRUE


def _path(taken: Mapping[str, str], name: str) -> str | None:
    return str(Path(taken[name]).expanduser()) if taken.get(name) else None
