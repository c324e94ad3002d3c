"""The streams of words between routers: each listens to every other one."""

import asyncio
import logging
from collections.abc import Callable, Mapping

import aiohttp
from aiohttp import web
from pydantic import ValidationError

from aks_inference_runtime.kubernetes.words import SILENCE_S, Heard, View, Word, view

SAY_S = 0.1
AGAIN_S = 0.05
PATH = "/v1/routers"
_log = logging.getLogger(__name__)


class Heartbeats:
    """Says and hears."""

    def __init__(self, me: str, changed: Callable[[], None]) -> None:
        self.me = me
        self.leaving = False
        self._changed = changed
        self._word: Word | None = None
        self._held: Mapping[str, int] = {}
        self._version = 0
        self._news = asyncio.Event()
        self._known: dict[str, float] = {}
        self._addresses: dict[str, str] = {}
        self._heard: dict[str, Heard] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def view(self) -> View:
        """The routers now."""
        now = asyncio.get_running_loop().time()
        return view(self.me, leaving=self.leaving, known=self._known, heard=self._heard, now=now)

    def say(self, *, clock: int, candidates: frozenset[str], held: Mapping[str, int]) -> None:
        """What the others hear from now on; at once when it is news."""
        word = Word(router=self.me, clock=clock, candidates=tuple(sorted(candidates)), leaving=self.leaving)
        if word == self._word and held == self._held:
            return
        if held != self._held:
            self._held = dict(held)
        self._word = word
        self._version += 1
        news, self._news = self._news, asyncio.Event()
        news.set()

    def listen(self, session: aiohttp.ClientSession, others: Mapping[str, str]) -> None:
        """To these others (name → URL of the agent), and no more."""
        for name in self._known.keys() - others.keys():
            self._tasks.pop(name).cancel()
            del self._known[name], self._addresses[name]
            self._heard.pop(name, None)
        for name, url in others.items():
            if self._addresses.get(name) != url:
                if name in self._tasks:
                    self._tasks[name].cancel()
                self._addresses[name] = url
                self._known.setdefault(name, asyncio.get_running_loop().time())
                self._tasks[name] = asyncio.create_task(self._hear(session, name, url))

    async def close(self) -> None:
        """Ends listening."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """The handler of `GET /v1/routers`: a word now and then, from the first one on.

        Who does not know its endpoints yet says nothing: others would send it requests that it cannot place.
        """
        answer = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
        await answer.prepare(request)
        said: Mapping[str, int] | None = None
        try:
            while request.transport is not None:
                word, held, news = self._word, self._held, self._news
                if word is not None:
                    line = word if held is said else word.model_copy(update={"held": dict(held)})
                    said = held
                    await answer.write(line.model_dump_json(by_alias=True, exclude_none=True).encode() + b"\n")
                try:
                    async with asyncio.timeout(SAY_S):
                        await news.wait()
                except TimeoutError:
                    continue
        except ConnectionError:
            pass
        return answer

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

    def _take(self, name: str, word: Word) -> None:
        before = self._heard.get(name)
        held = word.held if word.held is not None else (before.held if before is not None else {})
        self._heard[name] = Heard(word, held, asyncio.get_running_loop().time())
        if before is None or before.word != word or word.held is not None:
            self._changed()
