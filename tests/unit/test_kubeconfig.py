"""Kubeconfigs as kubectl takes them: lists, proxies, a server's name; and the machine's proxies for whoever asks."""

import asyncio
import json
import os
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from aks_inference_runtime.api.errors import InvalidInput, RuntimeUnavailable
from aks_inference_runtime.cli.access_token import Wanted, by_client_credentials
from aks_inference_runtime.jobs.connect import connection_of
from aks_inference_runtime.kubernetes.client import connected
from aks_inference_runtime.kubernetes.connection import find, from_kubeconfig
from aks_inference_runtime.observability.changes import Hook, StateChange
from aks_inference_runtime.proxies import machine_proxy
from aks_inference_runtime.router.tokens.fetch import fetch
from testbed.authority import Authority


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def written(path: Path, *names: str, current: str = "", user: Any = None, **cluster: Any) -> Path:
    """A file with a context for each name."""
    path.parent.mkdir(exist_ok=True)
    config = {
        "clusters": [{"name": n, "cluster": {"server": f"https://{path.stem}.example", **cluster}} for n in names],
        "users": [{"name": n, "user": {"token": path.stem, **(user or {})}} for n in names],
        "contexts": [{"name": n, "context": {"cluster": n, "user": n}} for n in names],
        **({"current-context": current} if current else {}),
    }
    path.write_text(yaml.safe_dump(config))
    return path


def test_of_several_files_the_first_that_has_a_thing_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = written(tmp_path / "one.yaml", "a")
    (tmp_path / "empty.yaml").write_text("")
    two = written(tmp_path / "two.yaml", "a", "b", current="b", user={"tokenFile": "beside"})
    three = written(tmp_path / "three.yaml", "c", current="c")
    places = [tmp_path / "gone.yaml", one, tmp_path / "empty.yaml", two, three]
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(map(str, places)))
    for found in (connection_of(None, None), find()):
        assert (found.server, found.token_file) == ("https://two.example", tmp_path / "beside"), "the first current one"
    assert connection_of(None, "a").server == "https://one.example"
    assert connection_of(None, "a").token_file is None, "nothing of the other file's user of this name"
    assert connection_of(None, "c").token == "three"
    with pytest.raises(InvalidInput, match=r"has no context 'd' \(there are: a, b, c\)"):
        connection_of(None, "d")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "gone.yaml"))
    with pytest.raises(InvalidInput, match="no kubeconfig: "):
        connection_of(None, None)


@pytest.mark.parametrize(
    ("url", "exceptions", "expected"),
    [
        ("https://api.example:6443", "", "http://two:2"),
        ("http://api.example", "", "http://one:1"),
        ("https://api.example", "other.example,.example", None),
        ("https://10.1.2.3:6443", "10.2.0.0/16, 10.1.0.0/16", None),
        ("https://10.1.2.3:6443", "10.2.0.0/16,odd/x", "http://two:2"),
        ("https://10.1.2.3:6443", "10.1.2.3", None),
        # This machine, as kind has it.
        ("https://127.0.0.1:6443", "", None),
        ("https://localhost:6443", "", None),
        ("https://[::1]:6443", "", None),
    ],
)
def test_the_machines_proxies(
    url: str, exceptions: str, expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("HTTP_PROXY", "http://one:1"), ("https_proxy", "two:2"), ("NO_PROXY", exceptions)):
        monkeypatch.setenv(name, value)
    assert machine_proxy(url) == expected
    made = written(tmp_path / "one.yaml", "a", current="a", server=url)
    assert from_kubeconfig(made).proxy == expected
    own = written(tmp_path / "one.yaml", "a", current="a", server=url, **{"proxy-url": "http://own:3"})
    assert from_kubeconfig(own).proxy == "http://own:3"


def test_a_proxy_of_another_kind_is_refused(tmp_path: Path) -> None:
    made = written(tmp_path / "one.yaml", "a", current="a", **{"proxy-url": "socks5://name:secret@own:3"})
    with pytest.raises(InvalidInput, match=r"speaks socks5; http and https can be used \(`proxy-url`\)") as failed:
        from_kubeconfig(made)
    assert "secret" not in str(failed.value)


@pytest.fixture
async def proxy() -> AsyncIterator[tuple[str, list[str]]]:
    """Answers for every host; what it was asked for."""
    asked: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        asked.append(f"{request.method} {request.raw_path} {request.headers.get('Proxy-Authorization', '')}".strip())
        found = {"keys": [], "metadata": {"name": "x"}, "token_endpoint": "http://issuer.example/token"}
        return web.json_response(found)

    runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    inner: Any = site._server
    yield f"http://name:secret@127.0.0.1:{inner.sockets[0].getsockname()[1]}", asked
    await runner.cleanup()


async def test_what_goes_by_a_proxy(
    proxy: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the proxy's login, and without what ~/.netrc holds for the host."""
    address, asked = proxy
    netrc = tmp_path / "netrc"
    netrc.write_text("machine issuer.example login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))
    made = written(tmp_path / "one.yaml", "a", current="a", server="http://api.example", **{"proxy-url": address})
    async with connected(from_kubeconfig(made)) as api:
        assert (await api.get("/api/v1/x"))["metadata"] == {"name": "x"}
    monkeypatch.setenv("http_proxy", address)
    assert (await fetch("http://issuer.example/keys"))["keys"] == []
    with pytest.raises(Exception, match="gave no token"):
        await by_client_credentials(Wanted("http://issuer.example", ("a",)), "me", "pw")
    hook = tmp_path / "hook"
    hook.write_text("http://hooks.example/x")
    change = {"namespace": "n", "name": "e", "generation": 1, "before": None, "after": "Healthy", "message": ""}
    await Hook(hook).tell(StateChange(**change, scoring_uri="", at=datetime.now(UTC)))
    login = "Basic bmFtZTpzZWNyZXQ="
    assert asked == [
        f"GET http://api.example/api/v1/x {login}",
        f"GET http://issuer.example/keys {login}",
        f"GET http://issuer.example/.well-known/openid-configuration {login}",
        f"POST http://issuer.example/token {login}",
        f"POST http://hooks.example/x {login}",
    ]


async def test_a_proxy_that_is_away_shows_no_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = "http://name:secret@127.0.0.1:9"
    made = written(tmp_path / "one.yaml", "a", current="a", server="http://api.example", **{"proxy-url": address})
    monkeypatch.setenv("http_proxy", address)
    assert "secret" not in repr(from_kubeconfig(made))
    async with connected(from_kubeconfig(made)) as api:
        for asks in (lambda: api.get("/api/v1/x"), lambda: fetch("http://issuer.example/keys")):
            with pytest.raises(RuntimeUnavailable) as failed:
                await asks()
            assert "secret" not in str(failed.value)


async def test_the_name_that_a_servers_certificate_is_for(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("api", "api", hosts=["kubernetes.example"])
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"kind": "x"}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls) as server:
        where = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        more = {"server": where, "certificate-authority": authority.path.name}
        named = written(tmp_path / "one.yaml", "a", current="a", **more, **{"tls-server-name": "kubernetes.example"})
        async with connected(from_kubeconfig(named)) as api:
            assert await api.get("/api/v1/x") == {"kind": "x"}
        plain = written(tmp_path / "two.yaml", "a", current="a", **more)
        async with connected(from_kubeconfig(plain)) as api:
            with pytest.raises(RuntimeUnavailable, match=r"certificate verify failed|mismatch"):
                await api.get("/api/v1/x")


@pytest.mark.parametrize(
    ("cluster", "user", "said"),
    [
        (
            {"certificate-authority": "gone.crt"},
            {},
            r"certificate-authority: \S+gone.crt: No such file .*`certificate-au",
        ),
        ({"certificate-authority": "."}, {}, "certificate-authority: .*: Is a directory; a file in PEM is needed"),
        ({"certificate-authority-data": "x"}, {}, "certificate-authority-data: .*; PEM in base64 is needed"),
        ({"certificate-authority-data": "bm8gUEVN"}, {}, "certificate-authority: .*; PEM is needed"),
        ({}, {"client-certificate": "gone.crt", "client-key": "gone.key"}, r"client-certificate: \S+gone.crt: No such"),
        (
            {},
            {"client-certificate": "one.yaml", "client-key": "one.yaml"},
            "client-certificate and client-key: .*; PEM",
        ),
        ({}, {"client-certificate": "one.yaml"}, "has a client-certificate and no client-key"),
        ({}, {"client-key": "one.yaml"}, "has a client-key and no client-certificate"),
    ],
)
def test_certificates_that_cannot_be_used(cluster: Any, user: Any, said: str, tmp_path: Path) -> None:
    made = written(tmp_path / "one.yaml", "a", current="a", user=user, **cluster)
    with pytest.raises(InvalidInput, match=f"^{made}: .*{said}"):
        from_kubeconfig(made)
