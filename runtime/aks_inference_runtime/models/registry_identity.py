"""A login of Azure Container Registry by the identity of the pod or machine, where no other login is known.

Source: Azure/acr, docs/AAD-OAuth.md: a token of Entra ID is exchanged for a refresh token of the registry.
"""

import asyncio
import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Protocol

import aiohttp

from aks_inference_runtime.images.errors import AccessDenied, RegistryUnavailable
from aks_inference_runtime.images.registry.credentials import TOKEN_USER, CredentialStore, Login
from aks_inference_runtime.models.errors import MissingPackage

_AUDIENCES: Mapping[str, str] = {
    "azurecr.io": "https://containerregistry.azure.net",
    "azurecr.us": "https://management.usgovcloudapi.net",
    "azurecr.cn": "https://management.chinacloudapi.cn",
}
"""By the registry's domain: who the token is for."""
_HOST = re.compile(r"[a-z0-9][a-z0-9.-]*\.(azurecr\.(?:io|us|cn))", re.IGNORECASE)
TIMEOUT_S = 30


class Credential(Protocol):
    """Of azure-identity."""

    def get_token(self, *scopes: str) -> object:
        """A token of Entra ID; its text is `token`."""


def audience(registry: str) -> str | None:
    """Whom a token for a registry is for; None: it is none of Azure's."""
    found = _HOST.fullmatch(registry)
    return None if found is None else _AUDIENCES[found[1].lower()]


async def with_identity(credentials: CredentialStore, registry: str) -> CredentialStore:
    """The same logins, and one by the identity for a registry of Azure's that has none.

    Raises:
        MissingPackage: azure-identity is not installed.
        AccessDenied: there is no identity, or it may not use the registry.
        RegistryUnavailable: the registry does not answer.
    """
    wanted = audience(registry)
    if wanted is None or credentials.get(registry) is not None:
        return credentials
    if find_spec("azure") is None or find_spec("azure.identity") is None:
        raise MissingPackage(
            f"{registry}: no login is known, and its identity needs the package azure-identity; "
            f"pip install 'pulumi-aks-inference[azure]', or run `docker login {registry}`"
        )
    from azure.identity import DefaultAzureCredential

    return credentials.having(registry, await exchanged(DefaultAzureCredential(), registry, wanted))


async def exchanged(credential: Credential, registry: str, wanted: str, origin: str | None = None) -> Login:
    """A login from a token. `origin`: Optional. Where the registry answers. Default: by https."""
    from azure.core.exceptions import AzureError

    try:
        token = await asyncio.to_thread(credential.get_token, f"{wanted}/.default")
    except AzureError as error:
        first = str(error).strip().splitlines()[0]
        mend = f"give the pod a service account with workload identity, or run `docker login {registry}`"
        raise AccessDenied(f"{registry}: no identity gave a token ({first}); {mend}") from None
    form = {"grant_type": "access_token", "service": registry, "access_token": str(getattr(token, "token", ""))}
    url = f"{origin or f'https://{registry}'}/oauth2/exchange"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as session,
            session.post(url, data=form) as answer,
        ):
            body = await answer.json(content_type=None) if answer.status == 200 else {}
            status = answer.status
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise RegistryUnavailable(f"{registry}: the exchange of a token failed ({type(error).__name__})") from None
    refresh = body.get("refresh_token") if isinstance(body, dict) else None
    if status >= 500 or status == 429:
        raise RegistryUnavailable(f"{registry}: the exchange of a token was answered {status}")
    if not isinstance(refresh, str) or not refresh:
        mend = "give it the role AcrPull, for uploads AcrPush"
        raise AccessDenied(f"{registry}: refuses this identity ({status}); {mend}", status)
    return Login(TOKEN_USER, "", refresh)
