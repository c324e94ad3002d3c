"""A small client of Azure's API (ARM): just what attaching a cluster and building images need.

Credentials are those that pulumi-azure-native takes: a service principal or a federated token in the environment
(`ARM_*`, else `AZURE_*`), else the login of the Azure CLI.
"""

import asyncio
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from aks_inference_runtime.api.errors import OperationFailed

CLUSTER_API = "2025-09-01"
TAGS_API = "2021-04-01"
_CALL_TIMEOUT_S = 30.0
_CLI_TIMEOUT_S = 30.0
_ATTEMPTS = 5
_LONGEST_WAIT_S = 20.0
_LATER = frozenset({429})
"""What is asked again after a while; a write of tags also while another operation goes on (409)."""
_CLOUDS = {
    "public": ("https://management.azure.com", "https://login.microsoftonline.com"),
    "usgovernment": ("https://management.usgovcloudapi.net", "https://login.microsoftonline.us"),
    "china": ("https://management.chinacloudapi.cn", "https://login.chinacloudapi.cn"),
}
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class AzureFailed(OperationFailed):
    """Azure refused a call, did not answer it, or does not know who asks."""

    def __init__(self, message: str, status: int = 0, code: str = "") -> None:
        """`status`: of the answer; `code`: Azure's own word for it."""
        super().__init__(message)
        self.status, self.code = status, code


@dataclass(frozen=True)
class Credentials:
    """How to sign in. Without any of it there is nothing to look with."""

    management: str
    authority: str
    tenant: str | None = None
    client: str | None = None
    secret: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    """A federated token, instead of a secret."""
    subscription: str | None = None
    cli: str | None = None
    """Path of `az`."""

    @property
    def usable(self) -> bool:
        """Whether one can sign in."""
        return self.cli is not None or None not in (self.tenant, self.client, self.secret or self.token)


def credentials_of(environment: Mapping[str, str]) -> Credentials:
    """What the environment says. Raises AzureFailed for an endpoint that a token must not be sent to."""

    def named(name: str) -> str | None:
        return environment.get(f"ARM_{name}") or environment.get(f"AZURE_{name}") or None

    cloud = (named("ENVIRONMENT") or "public").lower()
    if cloud not in _CLOUDS:
        raise AzureFailed(f"ARM_ENVIRONMENT {cloud!r} is none of {', '.join(_CLOUDS)}")
    management, authority = _CLOUDS[cloud]
    management = named("RESOURCE_MANAGER_ENDPOINT") or management
    authority = named("AUTHORITY_HOST") or authority
    for url in (management, authority):
        parts = urlsplit(url)
        if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
            raise AzureFailed(f"{url}: credentials are sent over https only")
    token = named("OIDC_TOKEN")
    return Credentials(
        management=management.rstrip("/"),
        authority=authority.rstrip("/"),
        tenant=named("TENANT_ID"),
        client=named("CLIENT_ID"),
        secret=named("CLIENT_SECRET"),
        token=token,
        subscription=named("SUBSCRIPTION_ID"),
        cli=shutil.which("az", path=environment.get("PATH")),
    )


class Arm:
    """Signed-in calls. Use it as an async context manager. Raises AzureFailed with a text for people."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._session: aiohttp.ClientSession | None = None
        self._bearer = ""
        self.subscription = credentials.subscription

    async def __aenter__(self) -> "Arm":
        """Signs in."""
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_CALL_TIMEOUT_S), trust_env=True)
        try:
            self._bearer = await self._sign_in()
        except BaseException:
            await self._session.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, api: str) -> dict[str, Any] | None:
        """None: there is no such thing."""
        return await self._call("GET", path, api)

    async def listed(self, path: str, api: str) -> list[dict[str, Any]]:
        """All of a list, page by page."""
        found: list[dict[str, Any]] = []
        following: str | None = f"{self._credentials.management}{path}?api-version={api}"
        while following is not None:
            page = await self._send("GET", following) or {}
            found += page.get("value") or ()
            following = page.get("nextLink") or None
            if following is not None and not following.startswith(f"{self._credentials.management}/"):
                raise AzureFailed(f"GET {path}: goes on at another host")
        return found

    async def post(self, path: str, api: str, body: object = None) -> dict[str, Any]:
        """An action. Raises AzureFailed also where there is no such thing."""
        found = await self._call("POST", path, api, body)
        if found is None:
            raise AzureFailed(f"POST {path}: 404 there is no such thing, or no right to see it", 404)
        return found

    async def change_tags(self, scope: str, operation: str, tags: Mapping[str, str]) -> None:
        """`Merge` adds these tags, `Delete` takes them away; others stay as they are."""
        body = {"operation": operation, "properties": {"tags": dict(tags)}}
        path = f"{scope}/providers/Microsoft.Resources/tags/default"
        await self._call("PATCH", path, TAGS_API, body, later=_LATER | {409})

    async def _call(
        self, method: str, path: str, api: str, body: object = None, later: frozenset[int] = _LATER
    ) -> dict[str, Any] | None:
        return await self._send(method, f"{self._credentials.management}{path}?api-version={api}", body, later)

    async def _send(
        self, method: str, url: str, body: object = None, later: frozenset[int] = _LATER
    ) -> dict[str, Any] | None:
        assert self._session is not None  # noqa: S101 - made by __aenter__
        path = urlsplit(url).path
        headers = {"Authorization": f"Bearer {self._bearer}"}
        for attempt in range(_ATTEMPTS):
            try:
                async with self._session.request(method, url, json=body, headers=headers) as answer:
                    text = await answer.text()
                    if answer.status in later and attempt < _ATTEMPTS - 1:
                        await asyncio.sleep(_wait(answer.headers.get("Retry-After"), attempt))
                        continue
                    if answer.status == 404:
                        return None
                    if answer.status == 401 and attempt == 0:
                        # A token lives for an hour or so, and what is waited for may take longer.
                        self._bearer = await self._sign_in()
                        headers = {"Authorization": f"Bearer {self._bearer}"}
                        continue
                    if answer.status >= 400:
                        code, message = _words(text)
                        raise AzureFailed(f"{method} {path}: {answer.status} {message}", answer.status, code)
                    found: dict[str, Any] = json.loads(text) if text else {}
                    return found
            except (aiohttp.ClientError, TimeoutError) as error:
                raise AzureFailed(f"{self._credentials.management} does not answer: {error}") from None
        raise AzureFailed(f"{method} {path}: Azure asks to wait (429), {_ATTEMPTS} times")

    async def _sign_in(self) -> str:
        known = self._credentials
        if None in (known.tenant, known.client, known.secret or known.token):
            return await self._from_cli()
        assert self._session is not None  # noqa: S101 - made by __aenter__
        form = {
            "grant_type": "client_credentials",
            "client_id": known.client or "",
            "scope": f"{known.management}/.default",
        }
        if known.secret:
            form["client_secret"] = known.secret
        else:
            form["client_assertion_type"] = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
            form["client_assertion"] = known.token or ""
        url = f"{known.authority}/{known.tenant}/oauth2/v2.0/token"
        try:
            async with self._session.post(url, data=form) as answer:
                found = await answer.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise AzureFailed(f"{known.authority}: sign-in failed: {error}") from None
        if not isinstance(found, dict) or "access_token" not in found:
            reason = found.get("error_description") or found.get("error") if isinstance(found, dict) else "no token"
            raise AzureFailed(f"{known.authority}: sign-in failed: {reason}")
        return str(found["access_token"])

    async def _from_cli(self) -> str:
        if self._credentials.cli is None:
            raise AzureFailed(
                "no Azure credentials: set ARM_CLIENT_ID, ARM_CLIENT_SECRET (or ARM_OIDC_TOKEN), ARM_TENANT_ID and "
                "ARM_SUBSCRIPTION_ID, or sign in with the Azure CLI"
            )
        command = ("account", "get-access-token", "--resource", self._credentials.management, "--output", "json")
        process = await asyncio.create_subprocess_exec(
            self._credentials.cli, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        try:
            out, wrong = await asyncio.wait_for(process.communicate(), _CLI_TIMEOUT_S)
        except TimeoutError:
            process.kill()
            raise AzureFailed("az account get-access-token does not answer") from None
        if process.returncode:
            raise AzureFailed(f"az account get-access-token: {wrong.decode(errors='replace').strip()}")
        found = json.loads(out)
        self.subscription = self.subscription or found.get("subscription")
        return str(found["accessToken"])


def arm() -> Arm:
    """A client with the environment's credentials."""
    return Arm(credentials_of(os.environ))


def _wait(header: str | None, attempt: int) -> float:
    asked = float(header) if header and header.isdigit() else 2.0**attempt
    return min(asked, _LONGEST_WAIT_S)


def _words(text: str) -> tuple[str, str]:
    """Azure's code, and what it says for people."""
    try:
        error = json.loads(text)["error"]
    except (ValueError, KeyError, TypeError):
        return "", text[:200]
    if not isinstance(error, dict):
        return "", str(error)
    return str(error.get("code") or ""), f"{error.get('code')}: {error.get('message')}"
