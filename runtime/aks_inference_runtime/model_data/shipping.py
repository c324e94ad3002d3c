"""From a pod's spool to blobs: each row once, whole and below its header, whoever else appends to the same blob.

An append is conditional on the blob's length, and is sent once; where it is to go is written down before. So after an
answer that was lost, or a kill between append and removal, looking there tells whether the rows are stored. Equal bytes
of another one are taken for ours only then, if ours did not arrive: rows with a correlation id are never equal.
"""

import fcntl
import json
import logging
import os
import re
from enum import Enum, auto
from pathlib import Path
from typing import NamedTuple, Protocol

from pydantic import Field, ValidationError

from aks_inference_runtime.api.base import Wire
from aks_inference_runtime.api.errors import AksInferenceError, RuntimeUnavailable

TAKEN = ".taken"
"""Ends the name of a file that nobody appends to any more."""
PLACE = ".place"
"""Ends the name of what says where its rows go."""
MOST_NAMES = 1_000
"""Blobs of one name, each with another header or full."""
_SPOOLED = re.compile(r"(?P<name>.+\.csv)\.\d+")
_log = logging.getLogger(__name__)


class Outcome(Enum):
    """Of an append."""

    DONE = auto()
    MOVED = auto()
    """The blob has another length than was thought; nothing of this append is there."""
    FULL = auto()
    """It takes no more blocks."""


class NotAppended(RuntimeUnavailable):
    """The storage refused an append: nothing of it is there."""


class Blobs(Protocol):
    """Blobs that grow at their end. All calls raise AksInferenceError where the storage fails."""

    def length(self, name: str, *, headed: bool) -> int | None:
        """Of a blob, which is made where there is none; None where it cannot be appended to, or was made for rows
        without a header and these are `headed`, or the other way round.
        """

    def read(self, name: str, start: int, count: int) -> bytes:
        """What is there of these bytes."""

    def append(self, name: str, position: int, block: bytes) -> Outcome:
        """Appends if the blob is as long as `position`. The request is sent once. Raises NotAppended where that is
        certain; after other errors it may be there.
        """


class Place(Wire):
    """Where the rows of a file go."""

    blob: str
    position: int = Field(ge=0)


class _Content(NamedTuple):
    header: bytes
    rows: bytes

    def block(self, position: int) -> bytes:
        return self.rows if position else self.header + self.rows

    @property
    def headed(self) -> bool:
        return bool(self.header)


class Shipper:
    """Takes what is in a spool."""

    def __init__(self, spool: Path, blobs: Blobs) -> None:
        self._spool, self._blobs = spool, blobs
        self._chosen: dict[tuple[str, bytes], int] = {}
        """Of a name and header: how many blobs before were others'."""
        self._lengths: dict[str, int] = {}

    def round(self) -> int:
        """Ships what there is; gives the number of files. Raises AksInferenceError and OSError, and goes on from there
        the next time. What cannot be stored holds up what else is of its name, and nothing of other ones.
        """
        shipped = 0
        failed: dict[Path, AksInferenceError] = {}
        for path in sorted(self._spool.rglob("*")):
            if _SPOOLED.fullmatch(path.name):
                _take(path)
        for path in sorted(self._spool.rglob(f"*{TAKEN}")):
            name = path.with_name(path.name.partition(".csv")[0])
            if name in failed:
                continue
            try:
                self._ship(path)
            except AksInferenceError as error:
                failed[name] = error
            else:
                shipped += 1
        for first in failed.values():
            raise first
        return shipped

    def _ship(self, taken: Path) -> None:
        match = _SPOOLED.fullmatch(taken.name.removesuffix(TAKEN))
        content = _content(taken)
        mark = taken.with_name(taken.name + PLACE)
        if match is not None and content is not None:
            name = taken.relative_to(self._spool).with_name(match["name"]).as_posix()
            if not self._is_there(_place(mark), content):
                self._append(name, content, mark)
        # In this order: a place without rows is never looked at.
        taken.unlink()
        mark.unlink(missing_ok=True)

    def _is_there(self, place: Place | None, content: _Content) -> bool:
        if place is None:
            return False
        block = content.block(place.position)
        return self._blobs.read(place.blob, place.position, len(block)) == block

    def _append(self, name: str, content: _Content, mark: Path) -> None:
        key = (name, content.header)
        number = self._chosen.get(key, 0)
        while number < MOST_NAMES:
            blob = f"{name.removesuffix('.csv')}-{number + 1}.csv" if number else name
            if self._append_to(blob, content, mark, checked=self._chosen.get(key) == number):
                self._chosen[key] = number
                return
            number += 1
        _log.error("%s: %s blobs have other headers; rows are dropped", name, MOST_NAMES)

    def _append_to(self, blob: str, content: _Content, mark: Path, *, checked: bool) -> bool:
        """False: it has another header, is full, or no blob that grows. `checked`: its header is known to be ours."""
        while True:
            # One that is known from rows with another header tells nothing here.
            position = self._lengths.get(blob) if checked else None
            if position is None:
                position = self._blobs.length(blob, headed=content.headed)
            if position is None:
                return False
            if position and not checked:
                if self._blobs.read(blob, 0, len(content.header)) != content.header:
                    return False
                checked = True
            place = Place(blob=blob, position=position)
            _write(mark, place.model_dump_json(by_alias=True))
            block = content.block(position)
            # Of a name that another one appends to as well the length is asked for each time.
            self._lengths.pop(blob, None)
            try:
                outcome = self._blobs.append(blob, position, block)
            except NotAppended:
                mark.unlink()
                raise
            if outcome is Outcome.DONE:
                self._lengths[blob] = position + len(block)
                return True
            # Whatever lies there now is another one's.
            mark.unlink()
            if outcome is Outcome.FULL:
                return False
            checked = checked and position > 0


def _take(path: Path) -> None:
    """Gives a file another name, so that who collects begins a new one. Not while somebody writes, nor over one that
    still waits.
    """
    taken = path.with_name(path.name + TAKEN)
    if taken.exists():
        return
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        # A kill after the removal of the one before leaves its place, which says nothing of these rows.
        taken.with_name(taken.name + PLACE).unlink(missing_ok=True)
        path.rename(taken)


def _content(taken: Path) -> _Content | None:
    """None: nobody wrote anything that can be read."""
    head, end, rows = taken.read_bytes().partition(b"\n")
    if not end or not rows:
        return None
    try:
        header = json.loads(head)["header"]
    except (ValueError, KeyError, TypeError):
        _log.error("%s is damaged; its rows are dropped", taken.name)
        return None
    return _Content(str(header).encode(), rows)


def _place(mark: Path) -> Place | None:
    try:
        return Place.model_validate_json(mark.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _write(mark: Path, text: str) -> None:
    temporary = mark.with_name(f".{mark.name}")
    temporary.write_text(text, "utf-8")
    os.replace(temporary, mark)  # noqa: PTH105 - a rename over what is there
