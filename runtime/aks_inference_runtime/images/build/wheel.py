"""Unpacking wheels as an installer does (PEP 427, PEP 376), into entries of a layer."""

import base64
import configparser
import contextlib
import csv
import functools
import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from pathlib import Path, PurePosixPath

from packaging.utils import canonicalize_name

from aks_inference_runtime.api.content import file_digest
from aks_inference_runtime.images.build.tarball import Entry
from aks_inference_runtime.images.errors import BuildFailed

INSTALLER = b"aks-inference\n"
MAX_UNPACKED = 8 * 1024**3
MAX_ENTRIES = 200_000
"""Beyond these a wheel is a bomb: the largest published ones unpack to about 3 GB and 30,000 files."""
LAYOUT = 1
"""Grows when the same wheel is laid out differently."""
_OBJECT = re.compile(r"(?P<module>[\w.]+)(?:\s*:\s*(?P<attribute>[\w.]+))?")


@dataclass(frozen=True)
class Wheel:
    """A wheel on disk."""

    path: Path
    name: str
    """Canonical."""
    version: str
    sha256: str


@dataclass(frozen=True)
class Scheme:
    """Where an environment is in the image."""

    prefix: str
    """Absolute: `/opt/…`."""
    python: str
    """`3.11`."""

    @property
    def site(self) -> str:
        """site-packages, relative to the root."""
        return f"{self.prefix.lstrip('/')}/lib/python{self.python}/site-packages"

    @property
    def bin(self) -> str:
        """Scripts, relative to the root."""
        return f"{self.prefix.lstrip('/')}/bin"


def unpack(wheel: Wheel, scheme: Scheme, stack: contextlib.ExitStack) -> list[Entry]:
    """The files that installing the wheel makes. Raises BuildFailed for a wheel that is none, or another than it was.

    The wheel stays open, for the contents, until the stack ends.
    """
    try:
        _compare(wheel)
        return list(_entries(stack.enter_context(zipfile.ZipFile(wheel.path)), wheel, scheme))
    except (zipfile.BadZipFile, KeyError, configparser.Error, UnicodeDecodeError, EOFError) as error:
        raise BuildFailed(f"{wheel.path.name} is not a wheel: {error}") from None


def metadata(wheel: Wheel) -> Message:
    """The wheel's METADATA. Raises BuildFailed."""
    try:
        with zipfile.ZipFile(wheel.path) as archive:
            return BytesParser().parsebytes(archive.read(f"{_dist_info(archive, wheel)}/METADATA"))
    except (zipfile.BadZipFile, KeyError, EOFError, zlib.error) as error:
        _compare(wheel)
        raise BuildFailed(f"{wheel.path.name} is not a wheel: {error}") from None


def _compare(wheel: Wheel) -> None:
    """Of a cache anything may become: with a wheel that was cut each further build would fail, too."""
    if file_digest(wheel.path) != f"sha256:{wheel.sha256}":
        wheel.path.unlink(missing_ok=True)
        raise BuildFailed(f"{wheel.path}: is no longer the file that was fetched, and is taken away; apply again")


def _entries(archive: zipfile.ZipFile, wheel: Wheel, scheme: Scheme) -> Iterator[Entry]:
    files = [info for info in archive.infolist() if not info.is_dir()]
    _check(wheel, files)
    info_folder = _dist_info(archive, wheel)
    data_folder = info_folder.removesuffix(".dist-info") + ".data"
    # The digests that the wheel's own RECORD gives: what only moves is not read for them.
    known = {row[0]: (row[1], row[2]) for row in _rows(archive, f"{info_folder}/RECORD")}
    records: list[tuple[str, str, str]] = []
    names: set[str] = set()
    for info in files:
        name = _target(info.filename, data_folder, scheme, wheel)
        if info.filename.startswith(f"{info_folder}/RECORD"):
            continue
        names.add(name)
        if info.filename.startswith(f"{data_folder}/scripts/"):
            content = _script(archive.read(info), scheme)
            records.append(_record(name, content, scheme))
            yield Entry(name, content, executable=True)
        else:
            records.append((_relative(name, scheme.site), *known.get(info.filename, ("", ""))))
            executable = bool((info.external_attr >> 16) & 0o111)
            yield Entry(name, functools.partial(archive.read, info), executable)
    entry_points = f"{info_folder}/entry_points.txt"
    for name, content in _console_scripts(archive, entry_points, scheme):
        if name not in names:
            records.append(_record(name, content, scheme))
            yield Entry(name, content, executable=True)
    installer = f"{scheme.site}/{info_folder}/INSTALLER"
    if installer not in names:
        records.append(_record(installer, INSTALLER, scheme))
        yield Entry(installer, INSTALLER)
    yield Entry(f"{scheme.site}/{info_folder}/RECORD", _record_file(records, info_folder))


def _rows(archive: zipfile.ZipFile, name: str) -> list[list[str]]:
    rows = csv.reader(io.StringIO(archive.read(name).decode(), newline=""))
    return [row for row in rows if len(row) == 3]


def _check(wheel: Wheel, files: list[zipfile.ZipInfo]) -> None:
    if len(files) > MAX_ENTRIES or sum(info.file_size for info in files) > MAX_UNPACKED:
        raise BuildFailed(f"{wheel.path.name} unpacks to more than {MAX_UNPACKED} bytes or {MAX_ENTRIES} files")
    for info in files:
        parts = PurePosixPath(info.filename).parts
        if not parts or parts[0].startswith("/") or ".." in parts or "\\" in info.filename:
            raise BuildFailed(f"{wheel.path.name} holds the path {info.filename!r}, which leaves the environment")


def _dist_info(archive: zipfile.ZipFile, wheel: Wheel) -> str:
    folders = {name.partition("/")[0] for name in archive.namelist()}
    found = [name for name in folders if name.endswith(".dist-info") and _named(name, wheel)]
    if len(found) != 1:
        raise BuildFailed(f"{wheel.path.name} is not a wheel: it has {len(found)} .dist-info folders of {wheel.name}")
    return found[0]


def _named(folder: str, wheel: Wheel) -> bool:
    return canonicalize_name(folder.removesuffix(".dist-info").rpartition("-")[0]) == wheel.name


def _target(name: str, data_folder: str, scheme: Scheme, wheel: Wheel) -> str:
    head, _, rest = name.partition("/")
    if head != data_folder:
        return f"{scheme.site}/{name}"
    kind, _, rest = rest.partition("/")
    prefix = scheme.prefix.lstrip("/")
    places = {
        "purelib": scheme.site,
        "platlib": scheme.site,
        "scripts": scheme.bin,
        "headers": f"{prefix}/include/site/python{scheme.python}/{wheel.name}",
        "data": prefix,
    }
    if kind not in places or not rest:
        raise BuildFailed(f"{wheel.path.name} holds {name!r}, which no installer knows")
    return f"{places[kind]}/{rest}"


def _script(content: bytes, scheme: Scheme) -> bytes:
    if not content.startswith(b"#!python"):
        return content
    _, _, rest = content.partition(b"\n")
    return f"#!{scheme.prefix}/bin/python\n".encode() + rest


def _console_scripts(archive: zipfile.ZipFile, entry_points: str, scheme: Scheme) -> Iterator[tuple[str, bytes]]:
    if entry_points not in archive.namelist():
        return
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(archive.read(entry_points).decode())
    for section in ("console_scripts", "gui_scripts"):
        for name, value in parser.items(section) if parser.has_section(section) else ():
            match = _OBJECT.match(value.strip())
            if match and match["attribute"] and "/" not in name:
                module, attribute = match["module"], match["attribute"]
                text = (
                    f"#!{scheme.prefix}/bin/python\nimport sys\nfrom {module} import {attribute.partition('.')[0]}\n"
                    f'if __name__ == "__main__":\n    sys.exit({attribute}())\n'
                )
                yield f"{scheme.bin}/{name}", text.encode()


def _record(name: str, content: bytes, scheme: Scheme) -> tuple[str, str, str]:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return _relative(name, scheme.site), f"sha256={digest}", str(len(content))


def _relative(name: str, site: str) -> str:
    if name.startswith(f"{site}/"):
        return name.removeprefix(f"{site}/")
    # From lib/pythonX.Y/site-packages up to the prefix.
    return "../../../" + name.removeprefix(site.partition("/lib/python")[0] + "/")


def _record_file(records: list[tuple[str, str, str]], info_folder: str) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([*sorted(records), (f"{info_folder}/RECORD", "", "")])
    return text.getvalue().encode()
