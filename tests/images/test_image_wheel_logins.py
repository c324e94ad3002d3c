"""Logins, certificates and addresses of indexes that wheels come from."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from wheel_index import WheelIndex, digest, fetched

from aks_inference_runtime.images.build.resolve import resolve
from aks_inference_runtime.images.build.target import Target
from aks_inference_runtime.images.errors import BuildFailed
from aks_inference_runtime.packages.settings import PipSettings, machine_settings
from aks_inference_runtime.packages.uv import uv_logins

TARGET = Target("3.11", "/usr/bin/python3.11", glibc=(2, 36))
FEEDS = (("a", "a:1"), ("files", "b:2"))


async def test_a_private_index(
    index: WheelIndex, tmp_path: Path, make_wheel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The login in its address serves for its files, and is in no text."""
    make_wheel(index.folder, "beta")
    index.login, lines = "me:hush hush", list[str]()
    address = f"{index.url}/simple".replace("http://", "http://me:hush%20hush@")
    (wheel,) = await resolve(["beta"], (f"--index-url {address}",), TARGET, tmp_path / "cache", lines.append)
    assert wheel.name == "beta"
    with pytest.raises(BuildFailed) as refused:
        await resolve(["beta"], (), TARGET, tmp_path / "other", lines.append)
    assert "hush" not in "\n".join([*lines, str(refused.value)])


@pytest.mark.parametrize(
    ("login", "text"),
    [
        ("me:p@ss", "me:p%40ss"),
        ("me:a:b/c", "me:a:b%2Fc"),
        ("me:50%", "me:50%25"),
        ("me:h\u00e4\u20ac", "me:h%C3%A4%E2%82%AC"),
        ("m:e:hush", "m%3Ae:hush"),
        ("token:", "token"),
        (":hush", ":hush"),
    ],
)
@pytest.mark.parametrize("variable", ["PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX"])
async def test_logins_of_all_kinds(
    index: WheelIndex,
    tmp_path: Path,
    make_wheel: Any,
    monkeypatch: pytest.MonkeyPatch,
    login: str,
    text: str,
    variable: str,
) -> None:
    """Also beside one in .netrc, which is for those that have none."""
    name = make_wheel(index.folder, "beta").name
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    index.login = login
    address = f"{index.url}/simple".replace("http://", f"http://{text}@")
    settings = machine_settings({"PIP_CONFIG_FILE": os.devnull, variable: address})
    settings = replace(settings, logins=uv_logins({variable: address}))
    assert await fetched(index, tmp_path, index.wanted(name), settings=settings)


async def test_a_login_of_netrc(
    index: WheelIndex, tmp_path: Path, make_wheel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(index.folder, "beta")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password hush\n")
    index.login = "me:hush"
    with pytest.raises(
        BuildFailed, match=r"no index has it, or one wants a login: correct the name, or give the login"
    ):
        await resolve(["beta"], (), TARGET, tmp_path / "cache", lambda _line: None)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert await resolve(["beta"], (), TARGET, tmp_path / "cache", lambda _line: None, refresh=True)


async def test_the_login_of_the_nearest_index(index: WheelIndex, tmp_path: Path, make_wheel: Any) -> None:
    """Feeds of one host have logins of their own."""
    name = make_wheel(index.folder, "beta").name
    index.login = "b:2"
    feeds = [f"{index.url}/{path}/simple".replace("http://", f"http://{login}@") for path, login in FEEDS]
    for order in (feeds, feeds[::-1]):
        settings = PipSettings(indexes=tuple(order))
        found = await fetched(index, tmp_path / order[0][7:8], index.wanted(name), settings=settings)
        assert found == [digest(index.folder / name)]


@pytest.mark.parametrize("address", ["http://me:hush@127.0.0.1:99999/simple", "http://me:hu/sh@127.0.0.1/hush"])
async def test_an_address_that_is_none_is_not_told(
    index: WheelIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", address)
    lines: list[str] = []
    with pytest.raises(BuildFailed, match=r"invalid port number") as refused:
        await resolve(["beta"], (), TARGET, tmp_path / "cache", lines.append)
    assert not any(secret in "\n".join([*lines, str(refused.value)]) for secret in ("hush", "hu/sh"))


@pytest.mark.parametrize("variable", ["PIP_CERT", "PIP_CLIENT_CERT"])
async def test_certificates_that_are_not_there(
    index: WheelIndex, tmp_path: Path, make_wheel: Any, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    make_wheel(index.folder, "beta")
    monkeypatch.setenv(variable, str(tmp_path / "none.pem"))
    with pytest.raises(
        BuildFailed, match=r"none\.pem: no certificates can be read there \(No such file.*correct `cert`"
    ):
        await resolve(["beta"], (), TARGET, tmp_path / "cache", lambda _line: None)


async def test_a_password_of_the_keyring(
    index: WheelIndex, tmp_path: Path, make_wheel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(index.folder, "beta")
    index.login = "me:kept"
    program = tmp_path / "bin" / "keyring"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\n[ "$1" = get ] && [ "$3" = me ] && echo kept\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PIP_KEYRING_PROVIDER", "subprocess")
    monkeypatch.setenv("PIP_INDEX_URL", f"{index.url}/simple".replace("http://", "http://me@"))
    (wheel,) = await resolve(["beta"], (), TARGET, tmp_path / "cache", lambda _line: None)
    assert wheel.name == "beta"


async def test_a_login_goes_to_no_other_place(
    index: WheelIndex, make_index: Callable[[], Any], tmp_path: Path, make_wheel: Any
) -> None:
    make_wheel(index.folder, "beta")
    elsewhere: WheelIndex = await make_index()
    make_wheel(elsewhere.folder, "beta")
    index.login, index.redirect = "me:hush", elsewhere.url
    settings = PipSettings(indexes=(f"{index.url}/simple".replace("http://", "http://me:hush@"),))
    await fetched(index, tmp_path, index.wanted("beta-1.0-py3-none-any.whl"), settings=settings)
    assert elsewhere.authorizations == [None]


@pytest.mark.parametrize(
    ("proxy", "variables"),
    [
        ("http://PROXY", {}),
        ("PROXY", {}),
        ("http://PROXY", {"HTTP_PROXY": "http://127.0.0.1:9"}),
        (None, {"http_proxy": "http://PROXY"}),
        (None, {"HTTP_PROXY": "PROXY"}),
        (None, {"ALL_PROXY": "http://PROXY"}),
    ],
)
async def test_through_a_proxy(
    index: WheelIndex,
    tmp_path: Path,
    make_wheel: Any,
    monkeypatch: pytest.MonkeyPatch,
    proxy: str | None,
    variables: dict[str, str],
) -> None:
    """As uv goes: the files may be had where the pages are."""
    path, here = make_wheel(index.folder, "beta"), index.url.removeprefix("http://")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.replace("PROXY", here))
    settings = PipSettings(proxy=proxy and proxy.replace("PROXY", here))
    assert await fetched(
        index, tmp_path, index.wanted(path.name, url=f"http://index.example/files/{path.name}"), settings=settings
    )


async def test_no_proxy(index: WheelIndex, tmp_path: Path, make_wheel: Any) -> None:
    """What NO_PROXY names is asked without one, as uv does it."""
    name = make_wheel(index.folder, "beta").name
    assert await fetched(index, tmp_path, index.wanted(name), settings=PipSettings(proxy="http://127.0.0.1:9"))
