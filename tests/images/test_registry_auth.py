"""Logins: basic and token authentication of a real registry, private authorities, where credentials go."""

import asyncio
import base64
import datetime
import itertools
import json
import logging
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.images import CredentialStore, Login, RegistryClient
from aks_inference_runtime.images.errors import AccessDenied, RegistryUnavailable
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry import Silence
from aks_inference_runtime.images.registry.challenge import Challenge, parse_challenges
from aks_inference_runtime.images.registry.manifest import Descriptor, sha256
from aks_inference_runtime.images.registry.tokens import ask_for_token
from aks_inference_runtime.images.registry.upload import UploadSource

PASSWORD = "a pass:word"
BLOB = Descriptor("application/octet-stream", sha256(b"content"), 7)


def certificate() -> tuple[rsa.RSAPrivateKey, x509.Certificate]:
    """An authority of the test's own, which is also the server's certificate."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return key, made


def pem_files(folder: Path, key: rsa.RSAPrivateKey, made: x509.Certificate) -> tuple[Path, Path]:
    certificate_file, key_file = folder / "certificate.pem", folder / "key.pem"
    certificate_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    return certificate_file, key_file


@dataclass
class TokenServer:
    """Gives tokens as the distribution's token protocol and as OAuth 2 (Azure Container Registry) do."""

    key: rsa.RSAPrivateKey
    certificate: x509.Certificate
    life_s: int = 300
    expires_in: int | None = None
    asked: list[tuple[str, str | None, str]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        if request.method == "POST":
            form = await request.post()
            scope = str(form["scope"])
            self.asked.append(("oauth2", str(form["refresh_token"]), scope))
            if form["refresh_token"] != "refresh me" or form["grant_type"] != "refresh_token":
                return web.json_response({"errors": [{"code": "UNAUTHORIZED", "message": "no"}]}, status=401)
            return web.json_response({"access_token": self.token(scope), "expires_in": self.expires_in or self.life_s})
        scope = " ".join(request.query.getall("scope", []))
        authorization = request.headers.get("Authorization")
        self.asked.append(("get", authorization, scope))
        if authorization not in {None, Login("user", PASSWORD).basic}:
            return web.json_response({"errors": [{"code": "UNAUTHORIZED", "message": "wrong password"}]}, status=401)
        granted = scope if authorization else scope.replace(",push", "").replace("push", "")
        return web.json_response({"token": self.token(granted), "expires_in": self.expires_in or self.life_s})

    def token(self, scope: str) -> str:
        access = []
        for one in scope.split():
            kind, name, actions = one.split(":")
            access.append({"type": kind, "name": name, "actions": [action for action in actions.split(",") if action]})
        der = self.certificate.public_bytes(serialization.Encoding.DER)
        now = int(time.time())
        claims = {"iss": "test", "aud": "registry", "sub": "user", "jti": "1", "access": access}
        claims |= {"iat": now, "nbf": now - 10, "exp": now + self.life_s}
        header = {"alg": "RS256", "typ": "JWT", "x5c": [base64.b64encode(der).decode()]}
        signed = f"{_part(header)}.{_part(claims)}"
        signature = self.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_urlsafe(signature)}"


def _part(content: Mapping[str, object]) -> str:
    return _urlsafe(json.dumps(content).encode())


def _urlsafe(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.fixture
async def token_registry(tmp_path: Path, server: Any, registry_with: Any, proxy_before: Any) -> tuple[TokenServer, Any]:
    """A registry that wants tokens, behind a proxy that remembers what it saw."""
    tokens = TokenServer(*certificate())
    bundle, _ = pem_files(tmp_path, tokens.key, tokens.certificate)
    host = await server(tokens.handle)
    settings = {"realm": f"http://{host}/token", "service": "registry", "issuer": "test", "rootcertbundle": str(bundle)}
    proxy = proxy_before(registry_with({"auth": {"token": settings}}).host)
    proxy.host = await server(proxy.handle)
    return tokens, proxy


def at(host: str, repository: str = "a/b") -> ImageReference:
    return ImageReference(host, repository, "one")


async def test_tokens_are_asked_for_once_per_scope(token_registry: Any, quick: Callable[..., RegistryClient]) -> None:
    tokens, proxy = token_registry
    store = CredentialStore({proxy.host: Login("user", PASSWORD)})
    async with quick(store) as client:
        for repository in ("a/b", "c/d"):
            await client.push_blob(at(proxy.host, repository), BLOB, UploadSource.of(b"content"))
            for _ in range(3):
                assert await client.has_blob(at(proxy.host, repository), BLOB.digest)
    scopes = [scope for _, _, scope in tokens.asked]
    wanted = [f"repository:{name}:{actions}" for name in ("a/b", "c/d") for actions in ("pull", "pull,push")]
    assert sorted(scopes) == wanted


def test_the_order_of_actions_does_not_count() -> None:
    challenge = Challenge("bearer", "https://r.example/token", "r.example", "repository:a/b:push,pull", "")
    query = ask_for_token(challenge, None, "repository:a/b:pull,push").query
    assert [value for name, value in query if name == "scope"] == ["repository:a/b:pull,push"]


async def test_mounting_with_a_token_of_both_repositories(token_registry: Any, quick: Any) -> None:
    _, proxy = token_registry
    async with quick(CredentialStore({proxy.host: Login("user", PASSWORD)})) as client:
        await client.push_blob(at(proxy.host, "mount/from"), BLOB, UploadSource.of(b"content"))
        assert await client.mount(at(proxy.host, "mount/to"), BLOB.digest, "mount/from")
    async with quick() as client:
        assert not await client.mount(at(proxy.host, "mount/other"), BLOB.digest, "mount/from")


async def test_without_a_login_public_images_are_read(
    token_registry: Any, quick: Callable[..., RegistryClient]
) -> None:
    _, proxy = token_registry
    async with quick(CredentialStore({proxy.host: Login("user", PASSWORD)})) as client:
        await client.push_blob(at(proxy.host), BLOB, UploadSource.of(b"content"))
    async with quick() as client:
        assert await client.has_blob(at(proxy.host), BLOB.digest)
        with pytest.raises(AccessDenied, match="docker login"):
            await client.push_blob(at(proxy.host, "x/y"), BLOB, UploadSource.of(b"content"))


async def test_identity_token_of_azure_container_registry(
    token_registry: Any, quick: Callable[..., RegistryClient]
) -> None:
    tokens, proxy = token_registry
    async with quick(CredentialStore({proxy.host: Login(identity_token="refresh me")})) as client:
        await client.push_blob(at(proxy.host), BLOB, UploadSource.of(b"content"))
    assert {kind for kind, _, _ in tokens.asked} == {"oauth2"}


async def test_expired_token_is_renewed(token_registry: Any, quick: Callable[..., RegistryClient]) -> None:
    """The registry calls it expired although it was said to live on: the clocks may differ."""
    tokens, proxy = token_registry
    tokens.life_s, tokens.expires_in = -120, 3600
    async with quick(CredentialStore({proxy.host: Login("user", PASSWORD)})) as client:
        with pytest.raises(AccessDenied):
            await client.has_blob(at(proxy.host), BLOB.digest)
        asked = len(tokens.asked)
        tokens.life_s = 300
        assert not await client.has_blob(at(proxy.host), BLOB.digest)
        assert len(tokens.asked) == asked + 1


async def test_wrong_password_says_whose_and_shows_none(
    token_registry: Any, quick: Callable[..., RegistryClient], caplog: pytest.LogCaptureFixture
) -> None:
    _, proxy = token_registry
    caplog.set_level(logging.DEBUG)
    async with quick(CredentialStore({proxy.host: Login("user", "wrong secret")})) as client:
        with pytest.raises(AccessDenied, match=r"login of 'user' does not do .*wrong password.*docker login") as caught:
            await client.has_blob(at(proxy.host), BLOB.digest)
    encoded = base64.b64encode(b"user:wrong secret").decode()
    for text in (str(caught.value), caplog.text):
        assert "wrong secret" not in text
        assert encoded not in text


@pytest.mark.skipif(shutil.which("htpasswd") is None, reason="no htpasswd: install Debian's apache2-utils")
async def test_basic_login(tmp_path: Path, registry_with: Any, quick: Callable[..., RegistryClient]) -> None:
    command = ["htpasswd", "-inB", "user"]
    made = await asyncio.to_thread(subprocess.run, command, input=PASSWORD, capture_output=True, text=True, check=True)
    line = made.stdout.strip()
    (tmp_path / "htpasswd").write_text(line + "\n")
    registry = registry_with({"auth": {"htpasswd": {"realm": "test", "path": str(tmp_path / "htpasswd")}}})
    async with quick(CredentialStore({registry.host: Login("user", PASSWORD)})) as client:
        await client.push_blob(at(registry.host), BLOB, UploadSource.of(b"content"))
        assert await client.has_blob(at(registry.host), BLOB.digest)
    async with quick(CredentialStore({registry.host: Login("user", "other")})) as client:
        with pytest.raises(AccessDenied, match="login of 'user' does not do"):
            await client.has_blob(at(registry.host), BLOB.digest)
    async with quick() as client:
        with pytest.raises(AccessDenied, match="no login is known"):
            await client.has_blob(at(registry.host), BLOB.digest)


async def test_login_is_not_sent_in_clear_to_another_machine(server: Any, quick: Callable[..., RegistryClient]) -> None:
    realm = "http://evil.example/token"

    async def handle(_request: web.Request) -> web.Response:
        return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="{realm}"'})

    host = await server(handle)
    async with quick(CredentialStore({host: Login("user", PASSWORD)})) as client:
        with pytest.raises(AccessDenied, match="not https"):
            await client.head(at(host))


async def test_private_authority(
    tmp_path: Path, registry: Any, server: Any, proxy_before: Any, quick: Callable[..., RegistryClient]
) -> None:
    key, made = certificate()
    certificate_file, key_file = pem_files(tmp_path, key, made)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_file, key_file)
    proxy = proxy_before(registry.host, scheme="https")
    host = (await server(proxy.handle, context)).replace("127.0.0.1", "localhost")
    async with quick(ca_file=certificate_file) as client:
        await client.push_blob(at(host, "tls/one"), BLOB, UploadSource.of(b"content"))
        assert await client.read_blob(at(host, "tls/one"), BLOB, 10) == b"content"
    other = tmp_path / "other"
    other.mkdir()
    other_file, _ = pem_files(other, *certificate())
    # In a preview, too: it is an answer, which the next who asks gets for himself.
    for silence in (None, Silence(10, 60, itertools.count(0, 11).__next__)):
        async with quick(ca_file=other_file, tries=2, silence=silence) as client:
            for _ in range(2):
                with pytest.raises(RegistryUnavailable, match=f"^{host}: HEAD failed .*CERTIFICATE_VERIFY_FAILED"):
                    await client.head(at(host, "tls/one"))
    # The same file with other content: authorities are kept, but not for longer than they are so.
    other_file.write_bytes(certificate_file.read_bytes())
    async with quick(ca_file=other_file, tries=2) as client:
        assert await client.has_blob(at(host, "tls/one"), BLOB.digest)


def test_file_without_certificates(tmp_path: Path, quick: Callable[..., RegistryClient]) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(InvalidInput, match="PEM"):
        quick(ca_file=tmp_path / "ca.pem")


DOCKER = {
    "auths": {
        "https://index.docker.io/v1/": {"auth": base64.b64encode(b"hub:hub secret").decode()},
        "https://registry.example/v2/": {"auth": base64.b64encode(b"user:a:b").decode()},
        "acr.example": {"auth": base64.b64encode(b"0:").decode(), "identitytoken": "token"},
        "plain.example:5000": {"username": "u", "password": "p"},
        "helper.example": {},
    },
    "credsStore": "desktop",
}


def test_docker_config(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(DOCKER))
    store = CredentialStore.from_docker(file)
    hub = Login("hub", "hub secret")
    assert [store.get(name) for name in ("docker.io", "registry-1.docker.io", "index.docker.io")] == [hub] * 3
    assert store.get("registry.example") == Login("user", "a:b")
    assert store.get("acr.example") == Login("0", "", "token")
    assert store.get("plain.example:5000") == Login("u", "p")
    assert store.get("helper.example") is None
    assert store.having("docker.io", Login("x", "y")).get("registry-1.docker.io") == Login("x", "y")
    for shown in (repr(store), repr(hub)):
        assert "secret" not in shown


@pytest.mark.parametrize(
    "text", ["{", '{"auths": []}', '{"auths": {"a": {"auth": "///secret"}}}', '{"auths": {"a": 1}}']
)
def test_broken_docker_config_is_said_without_its_content(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(InvalidInput, match="log in again") as caught:
        CredentialStore.from_docker(file)
    assert "secret" not in str(caught.value)


def test_no_docker_config(tmp_path: Path) -> None:
    assert CredentialStore.from_docker(tmp_path / "none.json").get("docker.io") is None


HEADERS = [
    (
        ['Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"'],
        [Challenge("bearer", "https://auth.docker.io/token", "registry.docker.io", "repository:a/b:pull,push")],
    ),
    (
        ['Basic realm="Registry", Bearer realm="https://x/oauth2/token",service="x"'],
        [Challenge("bearer", "https://x/oauth2/token", "x"), Challenge("basic", "Registry")],
    ),
    (['bearer realm=https://x/t , error="invalid_token"'], [Challenge("bearer", "https://x/t", error="invalid_token")]),
    (["Negotiate"], []),
    ([], []),
    (['Basic realm="a \\"quoted\\" one"'], [Challenge("basic", 'a "quoted" one')]),
]


@pytest.mark.parametrize(("headers", "expected"), HEADERS)
def test_challenges(headers: Any, expected: Any) -> None:
    assert list(parse_challenges(headers)) == expected


def test_question_for_a_token() -> None:
    challenge = Challenge("bearer", "https://r/token", "r")
    assert ask_for_token(challenge, None, "s").query == (("service", "r"), ("scope", "s"))
    asked = Challenge("bearer", "https://r/token", "r", "repository:a:pull,push")
    mount = ask_for_token(asked, None, "repository:a:pull,push repository:b:pull")
    assert mount.query[1:] == (("scope", "repository:a:pull,push"), ("scope", "repository:b:pull"))
    assert ask_for_token(challenge, None, "s").authorization is None
    basic = ask_for_token(challenge, Login("u", "p"), "s")
    assert (basic.form, basic.authorization) == (None, "Basic " + base64.b64encode(b"u:p").decode())
    oauth = ask_for_token(challenge, Login("u", "", "refresh"), "s")
    assert oauth.form is not None
    assert (oauth.form["grant_type"], oauth.form["refresh_token"], oauth.authorization) == (
        "refresh_token",
        "refresh",
        None,
    )
