"""HAProxy asks, the agent answers: once for each token, afterwards the digest stands in HAProxy's map until it expires.

One line each way over a Unix socket: `<value of the path in the map> <path> <token>`; `ok`, `no`, or `later` where
nobody can tell, because the issuer's keys cannot be read.
"""

import asyncio
import contextlib
import hashlib
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from aks_inference_runtime.api.errors import RuntimeUnavailable
from aks_inference_runtime.router.model import TokenRules
from aks_inference_runtime.router.tokens.keys import Fetch, IssuerKeys
from aks_inference_runtime.router.tokens.verify import MOST_BYTES, Verdict, verify

MOST_KNOWN = 10_000
MOST_IN_MAP = 50_000
"""Of good ones in HAProxy's map: for a further one the oldest goes, and is asked about again."""
REFUSED_S = 5.0
"""A bad token is not looked at again for so long: whoever sends it in a loop costs little."""
TELL_S = 2.0
"""Between lines that say how many were refused, and why."""
MOST_KINDS = 20
OTHERS = "tokens are refused for other reasons"
_LINE_BYTES = MOST_BYTES + 1_024

Remember = Callable[[str, bool], Coroutine[Any, Any, None]]
"""Puts a key into HAProxy's map, or takes it out."""
_log = logging.getLogger(__name__)


class Verdicts:
    """Answers until closed."""

    def __init__(self, socket: Path, fetch: Fetch, remember: Remember, now: Callable[[], float] = time.time) -> None:
        self._socket = socket
        self._fetch = fetch
        self._remember = remember
        self._now = now
        self._rules: Mapping[str, TokenRules] = {}
        self._keys: dict[tuple[str, str | None], IssuerKeys] = {}
        self._known: dict[str, Verdict] = {}
        self._server: asyncio.Server | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        """By what HAProxy knows: it asks anew for each after a restart."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._noted: Counter[str] = Counter()
        self._telling: asyncio.TimerHandle | None = None

    def declare(self, rules: Mapping[str, TokenRules]) -> None:
        """By path. A verdict belongs to its rules: with others it is made anew."""
        if rules != self._rules:
            self._rules = dict(rules)
            self._known.clear()

    async def open(self) -> None:
        """Begins to answer. Raises OSError."""
        self._socket.unlink(missing_ok=True)
        mask = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._answer, str(self._socket), limit=_LINE_BYTES)
        finally:
            os.umask(mask)

    async def close(self) -> None:
        """Ends answering."""
        for timer in self._timers.values():
            timer.cancel()
        if self._telling is not None:
            self._telling.cancel()
            self._tell()
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(keys.close() for keys in self._keys.values()))
        self._socket.unlink(missing_ok=True)

    async def verdict(self, meta: str, path: str, token: str) -> bool:
        """Whether the token opens the path. A good one is known to HAProxy from then on.

        Raises RuntimeUnavailable when nobody can tell now.
        """
        rules = self._rules.get(path)
        if rules is None:
            return False
        entry = f"{hashlib.sha256(token.encode()).hexdigest()}#{meta}"
        known = self._known.get(entry)
        now = self._now()
        if known is None or known.until <= now:
            known = await verify(token, rules, self._issuer(rules), self._now)
            if not known.good:
                self._note(f"{path}: a token is refused: {known.why}")
                known = Verdict(False, now + REFUSED_S, known.why)
            while len(self._known) >= MOST_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[entry] = known
        if known.good:
            await self._remember(entry, True)
            self._forget_at(entry, known.until - now)
        return known.good

    def _note(self, text: str) -> None:
        """Told together with others of its kind: whoever has no key can send many."""
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(TELL_S, self._tell)
        self._noted[text if text in self._noted or len(self._noted) < MOST_KINDS else OTHERS] += 1

    def _tell(self) -> None:
        self._telling = None
        for text, count in self._noted.items():
            _log.info("%s (%d)", text, count)
        self._noted.clear()

    def _issuer(self, rules: TokenRules) -> IssuerKeys:
        found = self._keys.get((rules.issuer, rules.jwks_uri))
        if found is None:
            clock = asyncio.get_running_loop().time
            found = IssuerKeys(rules.issuer, rules.jwks_uri, self._fetch, clock)
            self._keys[rules.issuer, rules.jwks_uri] = found
        return found

    def _forget_at(self, entry: str, seconds: float) -> None:
        if (before := self._timers.pop(entry, None)) is not None:
            before.cancel()
        self._timers[entry] = asyncio.get_running_loop().call_later(seconds, self._forget, entry)
        while len(self._timers) > MOST_IN_MAP:
            oldest = next(iter(self._timers))
            self._timers[oldest].cancel()
            self._forget(oldest)

    def _forget(self, entry: str) -> None:
        del self._timers[entry]
        task = asyncio.get_running_loop().create_task(self._remember(entry, False))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told = b"no\n"
        try:
            meta, path, token = (await reader.readline()).decode("ascii").strip().split(" ")
            if await self.verdict(meta, path, token):
                told = b"ok\n"
        except RuntimeUnavailable as error:
            self._note(f"a token cannot be verified: {error}")
            told = b"later\n"
        except ValueError:
            self._note("a token is refused: it is longer than any, or has strange letters")
        with contextlib.suppress(OSError):
            writer.write(told)
            await writer.drain()
        writer.close()
