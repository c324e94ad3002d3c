"""Looks packages up in parallel, beside what the caller does, within one deadline for all."""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from aks_inference_runtime.packages.kept import Kept
from aks_inference_runtime.packages.page import File, Releases, releases
from aks_inference_runtime.packages.settings import PipSettings, shown
from aks_inference_runtime.packages.verdict import Refusal, judge

DEADLINE_S = 5.0
WORKERS = 8
QUIET_S = 60.0
"""A place that did not answer is not asked again for so long: a plugin makes many components."""
Fetch = Callable[..., tuple[File, ...] | None]


@dataclass(frozen=True)
class Question:
    """One requirement, and where pip would look for it."""

    requirement: str
    settings: PipSettings
    here: bool = True
    """For this interpreter and machine; else for those of an image."""


@dataclass(frozen=True)
class Unasked:
    """A package of which nothing can be said."""

    name: str
    place: str
    reason: str


@dataclass
class _Page:
    """What a place says of a package."""

    found: Releases | None = None
    reason: str = ""


_Key = tuple[str, str, bool]
_silent: dict[str, tuple[float, str]] = {}


class Lookups:
    """The questions of a program. Only one thread asks; the answers come beside it."""

    def __init__(
        self,
        kept: Kept,
        *,
        deadline_s: float = DEADLINE_S,
        get: Fetch | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`deadline_s`: for all questions, from the first one that needs an index. `get`: by HTTP unless given."""
        self._kept, self._deadline_s, self._get, self._clock = kept, deadline_s, get, clock
        self._pages: dict[_Key, _Page] = {}
        self._answered = threading.Condition()
        self._waiting: queue.SimpleQueue[tuple[_Key, PipSettings]] = queue.SimpleQueue()
        self._begun: set[_Key] = set()
        self._open: set[_Key] = set()
        self._workers = 0
        self._end: float | None = None
        self._settled: dict[Question, Refusal | Unasked | None] = {}
        self._asked: dict[Question, None] = {}

    def ask(self, question: Question) -> None:
        """Begins to look, unless what was kept answers it."""
        if question in self._asked:
            return
        self._asked[question] = None
        keys = list(_keys(question))
        for key in keys:
            if key not in self._pages:
                kept = self._kept.get(key[0], key[1], here=key[2])
                self._pages[key] = _Page(kept)
        if self._judge(question) is None:
            self._settled[question] = None
            return
        for key in keys:
            # What was kept is not good enough: a release may be new.
            if key not in self._begun:
                self._begin(key, question.settings)

    def answer(self, question: Question) -> Refusal | Unasked | None:
        """None: pip finds it. Waits until the deadline at most."""
        if question not in self._settled:
            self._wait(set(_keys(question)))
            self._settled[question] = self._judge(question)
        return self._settled[question]

    def _begin(self, key: _Key, settings: PipSettings) -> None:
        self._begun.add(key)
        if self._end is None:
            self._end = self._clock() + self._deadline_s
        silent = _silent.get(shown(key[0]))
        if silent is not None and self._clock() < silent[0]:
            self._pages[key] = _Page(reason=silent[1])
            return
        with self._answered:
            self._pages[key] = _Page()
            self._open.add(key)
            self._waiting.put((key, settings))
            if self._workers < WORKERS:
                self._workers += 1
                # No executor: at the program's end nobody waits for an index that does not answer.
                threading.Thread(target=self._work, name="package index", daemon=True).start()

    def _work(self) -> None:
        while True:
            try:
                key, settings = self._waiting.get_nowait()
            except queue.Empty:
                with self._answered:
                    if self._waiting.empty():
                        self._workers -= 1
                        return
                continue
            page = self._look(key, settings)
            with self._answered:
                self._pages[key] = page
                self._open.discard(key)
                self._answered.notify_all()

    def _look(self, key: _Key, settings: PipSettings) -> _Page:
        # Not before it is needed: most programs ask nothing, and it costs them a tenth of a second.
        from aks_inference_runtime.packages.fetch import NotAnswered, fetch

        index, name, here = key
        assert self._end is not None  # noqa: S101 - set before the first key is put
        left = self._end - self._clock()
        if left <= 0:
            return _Page(reason=self._late())
        try:
            files = (self._get or fetch)(index, name, left, cert=settings.cert, proxy=settings.proxy)
        except NotAnswered as error:
            late = self._clock() >= self._end
            reason = self._late() if late else str(error)
            if late or error.of_place:
                _silent[shown(index)] = (self._clock() + QUIET_S, reason)
            return _Page(reason=reason)
        if files is None:
            return _Page()
        found = releases(name, files, here=here)
        self._kept.put(index, name, found, here=here)
        return _Page(found)

    def _late(self) -> str:
        return f"did not answer within {self._deadline_s:g} s"

    def _wait(self, keys: set[_Key]) -> None:
        with self._answered:
            while (still := keys & self._open) and self._end is not None and (left := self._end - self._clock()) > 0:
                self._answered.wait(left)
            for key in still:
                self._pages[key] = _Page(reason=self._late())

    def _judge(self, question: Question) -> Refusal | Unasked | None:
        requirement = Requirement(question.requirement)
        name, settings = canonicalize_name(requirement.name), question.settings
        linked, unread = _linked(settings.links, name, here=question.here)
        pages = {index: self._pages[index, name, question.here] for index in settings.indexes}
        found = [page.found for page in pages.values() if page.found is not None] + linked
        places = " and ".join(dict.fromkeys(shown(index) for index in settings.indexes)) or "the given links"
        refusal = judge(requirement, found, places, pre=settings.pre)
        if refusal is None:
            return None
        for index, page in pages.items():
            if page.reason:
                return Unasked(name, shown(index), page.reason)
        return Unasked(name, unread, "is not read here") if unread else refusal


def _keys(question: Question) -> Iterator[_Key]:
    name = canonicalize_name(Requirement(question.requirement).name)
    return ((index, name, question.here) for index in question.settings.indexes)


def _linked(links: Iterable[str], name: str, *, here: bool) -> tuple[list[Releases], str]:
    """What folders of `--find-links` have, and one that cannot be read here."""
    found, unread = [], ""
    for link in links:
        folder = Path(link.removeprefix("file://")).expanduser()
        try:
            files = [File(path.name) for path in folder.iterdir()]
        except FileNotFoundError:
            if "://" not in link or link.startswith("file:"):
                continue  # as pip does
            unread = shown(link)
            continue
        except OSError:
            unread = "a place of --find-links"
            continue
        releases_there = releases(name, files, here=here)
        if releases_there != Releases():
            found.append(releases_there)
    return found, unread
