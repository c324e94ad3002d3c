"""Azure Container Registry by the identity of a pod: which registries, what is sent, what is said when refused."""

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from azure.core.exceptions import ClientAuthenticationError

from aks_inference_runtime.api.errors import AksInferenceError
from aks_inference_runtime.images.errors import AccessDenied, RegistryUnavailable
from aks_inference_runtime.images.registry.credentials import TOKEN_USER, CredentialStore, Login
from aks_inference_runtime.models.registry_identity import audience, exchanged, with_identity


@pytest.mark.parametrize(
    ("registry", "wanted"),
    [
        ("prod.azurecr.io", "https://containerregistry.azure.net"),
        ("prod.westeurope.data.azurecr.io", "https://containerregistry.azure.net"),
        ("prod.azurecr.us", "https://management.usgovcloudapi.net"),
        ("prod.azurecr.cn", "https://management.chinacloudapi.cn"),
        ("azurecr.io.example.com", None),
        ("prod.azurecr.io:8443", None),
        ("docker.io", None),
        ("127.0.0.1:5000", None),
    ],
)
def test_whose_registry_it_is(registry: str, wanted: str | None) -> None:
    assert audience(registry) == wanted


async def test_a_login_that_is_known_goes_first() -> None:
    known = CredentialStore({"prod.azurecr.io": Login("me", "secret")})
    assert await with_identity(known, "prod.azurecr.io") is known
    nothing = CredentialStore()
    assert await with_identity(nothing, "registry.example") is nothing


@pytest.fixture
async def registry() -> AsyncIterator[Any]:
    """`answer` is what the exchange gives; `seen` what it was sent."""
    told = SimpleNamespace(answer=web.json_response({"refresh_token": "refresh-1"}), seen=[], origin="")

    async def exchange(request: web.Request) -> web.StreamResponse:
        told.seen.append(dict(await request.post()))
        return told.answer

    application = web.Application()
    application.router.add_post("/oauth2/exchange", exchange)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    told.origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield told
    await runner.cleanup()


class Identity:
    def __init__(self) -> None:
        self.scopes: list[str] = []

    def get_token(self, *scopes: str) -> object:
        self.scopes += scopes
        return SimpleNamespace(token="of-entra")


async def test_a_token_is_exchanged(registry: Any) -> None:
    identity = Identity()
    login = await exchanged(identity, "prod.azurecr.io", "https://containerregistry.azure.net", registry.origin)
    assert (login.username, login.identity_token) == (TOKEN_USER, "refresh-1")
    assert identity.scopes == ["https://containerregistry.azure.net/.default"]
    wanted = {"grant_type": "access_token", "service": "prod.azurecr.io", "access_token": "of-entra"}
    assert registry.seen == [wanted]
    assert "refresh-1" not in repr(login)


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (401, {}, AccessDenied, "refuses this identity (401); give it the role AcrPull"),
        (200, {}, AccessDenied, "refuses this identity"),
        (200, [], AccessDenied, "refuses this identity"),
        (503, {}, RegistryUnavailable, "answered 503"),
        (429, {}, RegistryUnavailable, "answered 429"),
    ],
)
async def test_what_is_refused(registry: Any, status: int, body: Any, kind: type[AksInferenceError], said: str) -> None:
    registry.answer = web.json_response(body, status=status)
    with pytest.raises(kind) as caught:
        await exchanged(Identity(), "prod.azurecr.io", "https://x", registry.origin)
    assert said in str(caught.value)
    assert "of-entra" not in str(caught.value)


async def test_no_identity_and_no_registry() -> None:
    def refuse(*_: str) -> object:
        raise ClientAuthenticationError(message="DefaultAzureCredential failed\nwith pages of reasons")

    with pytest.raises(AccessDenied, match=r"no identity gave a token \(DefaultAzureCredential failed\)"):
        await exchanged(SimpleNamespace(get_token=refuse), "prod.azurecr.io", "https://x")
    with pytest.raises(RegistryUnavailable, match="exchange of a token failed"):
        await exchanged(Identity(), "prod.azurecr.io", "https://x", "http://127.0.0.1:9")
