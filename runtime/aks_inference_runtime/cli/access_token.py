"""A token for an endpoint that asks for them: from its issuer by client credentials, or from the Azure CLI.

What comes back is looked at before it is given out: a token that the routers would refuse is an error that says why.
"""

import asyncio
import base64
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp

from aks_inference_runtime.api.errors import InvalidInput, OperationFailed, RuntimeUnavailable
from aks_inference_runtime.proxies import machine_proxy

ANSWER_S = 30.0
AZ_S = 60.0
REFRESH_AT = 0.75
"""Of its life: then the next one should be asked for. Azure ML said a time too, and nothing about how it is chosen."""
ENTRA_HOSTS = frozenset(
    {
        "login.microsoftonline.com",
        "login.microsoftonline.us",
        "login.partner.microsoftonline.cn",
        "login.chinacloudapi.cn",
        "sts.windows.net",
    }
)


@dataclass(frozen=True)
class Wanted:
    """For whom a token is."""

    issuer: str
    audiences: tuple[str, ...]
    scope: str | None = None
    """None: made from the first audience for Entra ID, else not sent."""

    @property
    def entra(self) -> bool:
        """Whether Entra ID issues it."""
        return (urlsplit(self.issuer).hostname or "") in ENTRA_HOSTS

    @property
    def asked_scope(self) -> str | None:
        """Entra ID takes no audience, but a scope made of it."""
        if self.scope is None and self.entra:
            return f"{self.audiences[0]}/.default"
        return self.scope


@dataclass(frozen=True)
class AccessToken:
    """As Azure ML gave it; times in seconds since 1970."""

    access_token: str
    refresh_after: int
    expiry_on: int
    issuer: str
    audience: str

    def as_json(self) -> dict[str, object]:
        """Azure ML's names."""
        return {
            "accessToken": self.access_token,
            "tokenType": "Bearer",
            "refreshAfter": self.refresh_after,
            "expiryOn": self.expiry_on,
            "issuer": self.issuer,
            "audience": self.audience,
        }


def read_token(text: str, wanted: Wanted, now: float) -> AccessToken:
    """What a token says of itself, held against what the routers ask for. Raises OperationFailed."""
    import jwt

    try:
        claims: dict[str, Any] = jwt.decode(text, options={"verify_signature": False})
        expires = float(claims["exp"])
    except (jwt.PyJWTError, KeyError, TypeError, ValueError):
        raise OperationFailed(
            f"{wanted.issuer} gave a token that is no JWT with a time of expiry: routers verify nothing else; ask its "
            f"administrator for JWT access tokens of {wanted.audiences[0]}"
        ) from None
    given = claims.get("aud", ())
    theirs = (given,) if isinstance(given, str) else tuple(given)
    if claims.get("iss") != wanted.issuer:
        hint = ": an app registration for v2 tokens has requestedAccessTokenVersion 2" if wanted.entra else ""
        raise OperationFailed(
            f"the token is from {claims.get('iss')!r}, the endpoint takes those of {wanted.issuer!r}{hint}"
        )
    fitting = [audience for audience in theirs if audience in wanted.audiences]
    if not fitting:
        raise OperationFailed(
            f"the token is for {', '.join(map(repr, theirs)) or 'nobody'}, the endpoint takes those for "
            f"{', '.join(map(repr, wanted.audiences))}: give --scope or --audience as the issuer knows them"
        )
    if expires <= now:
        raise OperationFailed("the token has expired already; does the clock of this machine go right?")
    return AccessToken(text, int(now + REFRESH_AT * (expires - now)), int(expires), wanted.issuer, fitting[0])


async def by_client_credentials(
    wanted: Wanted, client_id: str, secret: str, clock: Callable[[], float] = time.time
) -> AccessToken:
    """OAuth 2.0's client credentials at the issuer's token endpoint. Raises OperationFailed, RuntimeUnavailable."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(ANSWER_S)) as session:
        where = f"{wanted.issuer.rstrip('/')}/.well-known/openid-configuration"
        status, document = await _asked(session, "GET", where)
        endpoint = document.get("token_endpoint")
        if status >= 400 or not isinstance(endpoint, str):
            raise OperationFailed(f"{where}: no token endpoint (status {status}); is it the issuer's address?")
        form = {"grant_type": "client_credentials", "audience": wanted.audiences[0]}
        if wanted.asked_scope is not None:
            form["scope"] = wanted.asked_scope
        posted = "client_secret_post" in (document.get("token_endpoint_auth_methods_supported") or ())
        if posted:
            form |= {"client_id": client_id, "client_secret": secret}
        # RFC 6749, 2.3.1: both are form-encoded before they are joined.
        both = f"{quote(client_id, safe='')}:{quote(secret, safe='')}"
        headers = {} if posted else {"authorization": f"Basic {base64.b64encode(both.encode()).decode()}"}
        status, answer = await _asked(session, "POST", endpoint, data=form, headers=headers)
    token = answer.get("access_token")
    if status >= 400 or not isinstance(token, str):
        raise OperationFailed(f"{endpoint} gave no token (status {status}): {_reason(answer)}")
    return read_token(token, wanted, clock())


async def by_azure_cli(wanted: Wanted, clock: Callable[[], float] = time.time) -> AccessToken:
    """What `az` gives for who is logged in there. Raises InvalidInput, OperationFailed."""
    program = shutil.which("az")
    if program is None:
        raise InvalidInput(
            "no credentials: set AKS_INFERENCE_CLIENT_ID and AKS_INFERENCE_CLIENT_SECRET, or install the Azure CLI and "
            "log in with `az login`"
        )
    if not wanted.entra:
        raise InvalidInput(
            f"{wanted.issuer} is not Entra ID, so the Azure CLI has no token of it: set AKS_INFERENCE_CLIENT_ID and "
            f"AKS_INFERENCE_CLIENT_SECRET"
        )
    tenant = urlsplit(wanted.issuer).path.strip("/").split("/")[0]
    arguments = ["account", "get-access-token", "--output", "json", "--scope", wanted.asked_scope or ""]
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        *(["--tenant", tenant] if tenant else []),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(AZ_S):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise OperationFailed(f"az gave no token within {AZ_S:g} s; try `az login`") from None
    if process.returncode != 0:
        raise OperationFailed(f"az gave no token: {err.decode(errors='replace').strip()[-600:] or 'no reason'}")
    try:
        return read_token(str(json.loads(out)["accessToken"]), wanted, clock())
    except (ValueError, KeyError, TypeError):
        raise OperationFailed("az answered something else than a token; try `az upgrade`") from None


async def _asked(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    *,
    data: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, dict[str, Any]]:
    try:
        async with session.request(method, url, data=data, headers=headers, proxy=machine_proxy(url)) as answer:
            text = await answer.text(errors="replace")
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        late = isinstance(error, TimeoutError)
        why = f"nothing within {ANSWER_S:g} s" if late else str(error) or type(error).__name__
        raise RuntimeUnavailable(f"the issuer does not answer ({url}): {why}") from None
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    return answer.status, found if isinstance(found, dict) else {}


def _reason(answer: Mapping[str, Any]) -> str:
    """OAuth's words; never what was sent."""
    words = [str(answer[name]) for name in ("error", "error_description") if answer.get(name)]
    return ": ".join(words)[:600] or "no reason given"
