"""Authorization of requests: basic, or tokens as the distribution's token protocol and OAuth 2 give them."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from aks_inference_runtime.images.errors import AccessDenied, RegistryError
from aks_inference_runtime.images.registry.challenge import Challenge
from aks_inference_runtime.images.registry.credentials import CredentialStore, Login

DEFAULT_LIFE_S = 60.0
"""A token without `expires_in` lives at least so long (distribution specification, "Token authentication")."""
MARGIN_S = 10.0
"""A token is renewed this long before its end, so that it does not end on its way."""
CLIENT_ID = "aks-inference"


@dataclass(frozen=True)
class Ask:
    """One request for a token: `form` given means POST (OAuth 2), else GET with `query`, where `scope` may repeat."""

    url: str
    query: tuple[tuple[str, str], ...]
    form: Mapping[str, str] | None
    authorization: str | None


@dataclass(frozen=True)
class _Kept:
    value: str
    ends_s: float


def _in_order(scope: str) -> str:
    resource, colon, actions = scope.rpartition(":")
    return f"{resource}{colon}{','.join(sorted(actions.split(',')))}"


def ask_for_token(challenge: Challenge, login: Login | None, scope: str) -> Ask:
    """How to get the token that a challenge wants. Pure."""
    # What the registry asks for, and what we need beside it: it knows nothing of the repository to mount from.
    # A registry names the actions in any order: the same ones are asked for once.
    scopes = tuple(dict.fromkeys(_in_order(one) for one in [*challenge.scope.split(), *scope.split()]))
    if login and login.identity_token:
        form = {"grant_type": "refresh_token", "refresh_token": login.identity_token, "client_id": CLIENT_ID}
        return Ask(challenge.realm, (), form | {"service": challenge.service, "scope": " ".join(scopes)}, None)
    query = [("service", challenge.service), *(("scope", one) for one in scopes)]
    if login:
        query.append(("account", login.username))
    return Ask(challenge.realm, tuple(pair for pair in query if pair[1]), None, login.basic if login else None)


class Authorizer:
    """Keeps tokens per registry and scope; renews them when they end or a registry refuses them."""

    def __init__(
        self,
        store: CredentialStore,
        send: Callable[[Ask], "asyncio.Task[Mapping[str, object]]"],
        uses_tls: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`send` asks for a token; `uses_tls` says whether a registry is spoken to by https."""
        self._store = store
        self._uses_tls = uses_tls
        self._send = send
        self._clock = clock
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}

    def header(self, host: str, scope: str) -> str | None:
        """The Authorization header for a request; None while nobody asked for one."""
        kept = self._kept.get((host, scope))
        return kept.value if kept and kept.ends_s > self._clock() else None

    def refused(self, host: str) -> AccessDenied:
        """The error when a registry refuses what it has just asked for: these credentials may not do this."""
        return denied(host, self._store.get(host), "a fresh token was refused")

    async def answer(self, host: str, scope: str, challenges: tuple[Challenge, ...], refused: str | None) -> None:
        """Answers a 401. `refused`: the header that was sent. Raises AccessDenied when there is no answer."""
        lock = self._locks.setdefault((host, scope), asyncio.Lock())
        async with lock:
            if self.header(host, scope) not in {None, refused}:
                return  # somebody else has renewed it meanwhile
            self._kept.pop((host, scope), None)
            login = self._store.get(host)
            challenge = next((one for one in challenges if one.scheme == "bearer" and one.realm), None)
            if challenge is not None:
                self._kept[host, scope] = await self._token(host, challenge, login, scope)
            elif login is not None and login.password and any(one.scheme == "basic" for one in challenges):
                if refused == login.basic:
                    raise denied(host, login)
                self._kept[host, scope] = _Kept(login.basic, float("inf"))
            else:
                raise denied(host, login)

    async def _token(self, host: str, challenge: Challenge, login: Login | None, scope: str) -> _Kept:
        self._check_realm(host, challenge.realm)
        try:
            answer = await self._send(ask_for_token(challenge, login, scope))
        except RegistryError as error:
            if error.status in {400, 401, 403}:
                raise denied(host, login, str(error)) from None
            raise
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str) or not token or any(ord(letter) < 33 for letter in token):
            raise AccessDenied(f"{host}: {urlsplit(challenge.realm).netloc} answered without a token")
        life = answer.get("expires_in")
        seconds = float(life) if isinstance(life, int | float) and life > 0 else DEFAULT_LIFE_S
        return _Kept(f"Bearer {token}", self._clock() + max(seconds - MARGIN_S, seconds / 2))

    def _check_realm(self, host: str, realm: str) -> None:
        """Credentials must not go in clear to another machine because a registry says so."""
        url = urlsplit(realm)
        name = urlsplit(f"//{host}").hostname
        known = url.hostname in {"localhost", "127.0.0.1", "::1"} or (url.hostname == name and not self._uses_tls(host))
        if url.scheme != "https" and not (url.scheme == "http" and known):
            raise AccessDenied(f"{host}: wants its login sent to {realm}, which is not https; check its settings")


def denied(host: str, login: Login | None, why: str = "") -> AccessDenied:
    """The error for credentials that do not do, without showing them."""
    who = f"the login of {login.username!r} does not do" if login else "no login is known"
    mend = f"run `docker login {host}`, or give a user name and password"
    return AccessDenied(f"{host}: {who}{f' ({why})' if why else ''}; {mend}", 401)
