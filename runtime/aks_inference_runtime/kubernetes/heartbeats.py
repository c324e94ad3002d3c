"""The streams of words between router pods: each listens to every other one. A pod speaks for each of its lanes."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import aiohttp
from aiohttp import web
from pydantic import ValidationError

from aks_inference_runtime.kubernetes.words import SILENCE_S, Heard, View, Word, view

SAY_S = 0.1
AGAIN_S = 0.05
PATH = "/v1/routers"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Said:
    """What one of this pod's lanes says."""

    word: Word
    held: Mapping[str, int]


class Heartbeats:
    """Says and hears."""

    def __init__(self, me: str, changed: Callable[[], None]) -> None:
        """
        Args:
            me: Required. Name of this pod, and of its first lane.
            changed: Required. Called when something else than before was heard.
        """
        self.me = me
        self.said: dict[str, Said] = {}
        """By lane of this pod. Who does not know its endpoints yet says nothing: others would send it requests that
        it cannot place."""
        self._changed = changed
        self._news = asyncio.Event()
        self._known: dict[str, float] = {}
        self._addresses: dict[str, str] = {}
        self._lanes: dict[str, frozenset[str]] = {}
        """By other pod."""
        self._heard: dict[str, Heard] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def view(self, lane: str | None = None, *, leaving: bool = False) -> View:
        """The routers now, as one lane of this pod sees them. Default: the first."""
        me, now = lane or self.me, asyncio.get_running_loop().time()
        beside = {name: Heard(one.word, one.held, now) for name, one in self.said.items() if name != me}
        if not beside:
            return view(me, leaving=leaving, known=self._known, heard=self._heard, now=now)
        known = self._known | dict.fromkeys(beside, now)
        return view(me, leaving=leaving, known=known, heard=self._heard | beside, now=now)

    def lanes(self, pod: str) -> frozenset[str]:
        """The routers of another pod, as far as it has told."""
        return self._lanes.get(pod, frozenset({pod}))

    def say(self, lane: str, view: View, *, clock: int, leaving: bool, held: Mapping[str, int]) -> None:
        """What the others hear of a lane from now on; at once when it is news."""
        word = Word(router=lane, clock=clock, candidates=tuple(sorted(view.candidates)), leaving=leaving)
        before = self.said.get(lane)
        if before is not None and (word, held) == (before.word, before.held):
            return
        same = before is not None and held == before.held
        self.said[lane] = Said(word, before.held if before is not None and same else dict(held))
        self._tell()

    def forget(self, lane: str) -> None:
        """It is no more."""
        if self.said.pop(lane, None) is not None:
            self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()
        if self.said.keys() != {self.me}:
            self._changed()

    def listen(self, session: aiohttp.ClientSession, others: Mapping[str, str]) -> None:
        """To these other pods (name → URL of the agent), and no more."""
        for name in self._addresses.keys() - others.keys():
            self._tasks.pop(name).cancel()
            del self._addresses[name]
            for lane in self._lanes.pop(name):
                self._known.pop(lane, None)
                self._heard.pop(lane, None)
        for name, url in others.items():
            if self._addresses.get(name) != url:
                if name in self._tasks:
                    self._tasks[name].cancel()
                self._addresses[name] = url
                self._lanes.setdefault(name, frozenset({name}))
                self._known.setdefault(name, asyncio.get_running_loop().time())
                self._tasks[name] = asyncio.create_task(self._hear(session, name, url))

    async def close(self) -> None:
        """Ends listening."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """The handler of `GET /v1/routers`: a word of each lane now and then, from its first one on."""
        answer = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
        told: dict[str, Mapping[str, int]] = {}
        try:
            # Who asked may have left while this process stood still.
            await answer.prepare(request)
            while request.transport is not None:
                news = self._news
                # At once: who hears of a lane has to hear what it holds.
                if lines := self._lines(told):
                    await answer.write(lines)
                try:
                    async with asyncio.timeout(SAY_S):
                        await news.wait()
                except TimeoutError:
                    continue
        except ConnectionError:
            pass
        return answer

    def _lines(self, told: dict[str, Mapping[str, int]]) -> bytes:
        lanes = tuple(self.said)
        lines = []
        for name, one in self.said.items():
            more: dict[str, object] = {} if lanes == (self.me,) else {"lanes": lanes}
            if one.held is not told.get(name):
                more["held"] = dict(one.held)
            word = one.word.model_copy(update=more) if more else one.word
            lines.append(word.model_dump_json(by_alias=True, exclude_none=True).encode() + b"\n")
            told[name] = one.held
        return b"".join(lines)

    async def _hear(self, session: aiohttp.ClientSession, name: str, url: str) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE_S, sock_read=SILENCE_S)
        while True:
            try:
                async with session.get(url + PATH, timeout=timeout) as answer:
                    async for line in answer.content:
                        self._take(name, Word.model_validate_json(line))
            except (aiohttp.ClientError, TimeoutError, OSError, ValidationError, ValueError) as error:
                _log.debug("router %s is not heard: %r", name, error)
            await asyncio.sleep(AGAIN_S)

    def _take(self, pod: str, word: Word) -> None:
        now = asyncio.get_running_loop().time()
        lanes = frozenset({pod, *(word.lanes or ())})
        before = self._lanes.get(pod, frozenset())
        self._lanes[pod] = lanes
        for gone in before - lanes:
            self._known.pop(gone, None)
            self._heard.pop(gone, None)
        for name in lanes - before:
            self._known[name] = now
        heard = self._heard.get(word.router)
        if word.router in lanes:
            held = word.held if word.held is not None else (heard.held if heard is not None else {})
            self._heard[word.router] = Heard(word, held, now)
        if lanes != before or heard is None or heard.word != word or word.held is not None:
            self._changed()
