"""A page of a package index: which releases of a package there are (PEP 503, 592, 658, 691, 700)."""

import json
import platform
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import sys_tags
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

JSON_TYPE = "application/vnd.pypi.simple.v1+json"
ACCEPT = f"{JSON_TYPE}, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"
_SDISTS = (".tar.gz", ".zip", ".tar.bz2", ".tgz", ".tar.xz", ".tar")


class NoPage(Exception):
    """What was answered is no page of an index."""


@dataclass(frozen=True)
class File:
    """One file of a release."""

    name: str
    requires_python: str | None = None
    yanked: bool = False


@dataclass(frozen=True)
class Releases:
    """The versions of a package at one place."""

    usable: tuple[str, ...] = ()
    yanked: tuple[str, ...] = ()
    """Taken back by their authors: only for who pins them."""
    others: tuple[str, ...] = ()
    """With files for other interpreters and machines only."""


def read_page(kind: str, body: bytes) -> tuple[File, ...]:
    """The files that a page names. `kind`: its content type. Raises NoPage."""
    if kind.split(";", maxsplit=1)[0].strip().lower() in (JSON_TYPE, "application/json"):
        return tuple(_of_json(body))
    found = tuple(_of_html(body.decode("utf-8", "replace")))
    if not found:
        # Many things answer 200 with a page of their own, a login or a portal for example.
        raise NoPage("answered with a page that names no files")
    return found


def releases(name: str, files: Iterable[File], *, here: bool) -> Releases:
    """The versions of `name`. `here`: for this interpreter and machine; else for any."""
    usable: dict[str, None] = {}
    yanked: dict[str, None] = {}
    others: dict[str, None] = {}
    fits = _fits_here() if here else _fits_any
    for file in files:
        found = version_and_tags(name, file.name)
        if found is None:
            continue
        version, tags = found
        kept = (yanked if file.yanked else usable) if fits(tags, file.requires_python) else others
        kept[version] = None
    valid = [tuple(one for one in versions if _valid(one)) for versions in (usable, yanked, others)]
    return Releases(*valid)


def version_and_tags(name: str, file: str) -> tuple[str, frozenset[str] | None] | None:
    """Of a wheel or a source distribution (no tags) of the package; None: it is another file."""
    wanted = canonicalize_name(name)
    if file.endswith(".whl"):
        parts = file[:-4].split("-")
        if len(parts) not in (5, 6) or canonicalize_name(parts[0]) != wanted:
            return None
        pythons, abis, machines = (part.split(".") for part in parts[-3:])
        return parts[1], frozenset(f"{p}-{a}-{m}" for p in pythons for a in abis for m in machines)
    stem = next((file[: -len(ending)] for ending in _SDISTS if file.endswith(ending)), "")
    for place, letter in enumerate(stem):
        if letter == "-" and canonicalize_name(stem[:place]) == wanted:
            return stem[place + 1 :], None
    return None


def _of_json(body: bytes) -> Iterator[File]:
    try:
        page: Any = json.loads(body)
        files = page["files"]
        for file in files:
            needs = file.get("requires-python")
            yield File(str(file["filename"]), needs if isinstance(needs, str) else None, bool(file.get("yanked")))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise NoPage("answered with JSON that is no page of an index") from None


def _of_html(text: str) -> list[File]:
    from html.parser import HTMLParser

    files = []

    class Anchors(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            given = dict(attrs)
            name = unquote(urlsplit(given.get("href") or "").path).rpartition("/")[2] if tag == "a" else ""
            if name.endswith((".whl", *_SDISTS)):
                files.append(File(name, given.get("data-requires-python"), "data-yanked" in given))

    Anchors().feed(text)
    return files


Fits = Callable[[frozenset[str] | None, str | None], bool]


def _fits_any(tags: frozenset[str] | None, requires_python: str | None) -> bool:
    return True


@cache
def _fits_here() -> Fits:
    python = Version(platform.python_version().split("+")[0])
    known = frozenset(map(str, sys_tags()))

    @cache
    def allows(requires_python: str) -> bool:
        try:
            return SpecifierSet(requires_python).contains(python, prereleases=True)
        except InvalidSpecifier:
            return True  # as pip does

    def fits(tags: frozenset[str] | None, requires_python: str | None) -> bool:
        return (tags is None or not tags.isdisjoint(known)) and (not requires_python or allows(requires_python))

    return fits


def machine_name() -> str:
    """`Python 3.11 on linux-x86_64`."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    return f"Python {here} on {sys.platform}-{platform.machine()}"


def _valid(version: str) -> bool:
    try:
        Version(version)
    except InvalidVersion:
        return False
    return True
