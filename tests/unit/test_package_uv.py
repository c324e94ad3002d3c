"""pip's settings in uv's words."""

from pathlib import Path

import pytest

from aks_inference_runtime.packages.settings import DEFAULT_INDEX, PipSettings
from aks_inference_runtime.packages.uv import uv_logins, uv_switches, uv_variables

A, B = "https://user:hush@a.example/simple", "https://b.example/simple"
ALWAYS = {
    "UV_CACHE_DIR": "/cache/uv",
    "UV_INDEX_STRATEGY": "unsafe-best-match",
    "UV_NO_PROGRESS": "1",
    "UV_SYSTEM_CERTS": "1",
    "NO_COLOR": "1",
}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (PipSettings(), {}),
        (PipSettings(indexes=(A, B)), {"UV_DEFAULT_INDEX": A, "UV_INDEX": B}),
        (PipSettings(indexes=(DEFAULT_INDEX, A, B)), {"UV_INDEX": f"{A} {B}"}),
        (
            PipSettings(indexes=(), links=("/usr", "file:///usr/lib", "https://x/links", "/is/not/there")),
            {"UV_FIND_LINKS": "file:///usr,file:///usr/lib,https://x/links"},
        ),
        (PipSettings(cert="/usr"), {"SSL_CERT_DIR": "/usr"}),
        (PipSettings(pre=True), {"UV_PRERELEASE": "allow"}),
        (
            PipSettings(cert="/ca.pem", client_cert="/me.pem"),
            {"SSL_CERT_FILE": "/ca.pem", "SSL_CLIENT_CERT": "/me.pem"},
        ),
        (PipSettings(proxy="http://p:1"), {"HTTP_PROXY": "http://p:1", "HTTPS_PROXY": "http://p:1"}),
        (PipSettings(trusted=("a", "b:1")), {"UV_INSECURE_HOST": "a b:1"}),
        (PipSettings(constraints=("/c.txt", "https://x/c")), {"UV_CONSTRAINT": "/c.txt https://x/c"}),
        (PipSettings(keyring=True), {"UV_KEYRING_PROVIDER": "subprocess"}),
        (PipSettings(timeout="60"), {"UV_HTTP_TIMEOUT": "60"}),
        (PipSettings(timeout="1.5"), {}),
    ],
)
def test_what_pip_is_told_is_told_uv(settings: PipSettings, expected: dict[str, str]) -> None:
    assert uv_variables(settings, Path("/cache"), {}) == ALWAYS | expected


def test_what_is_relative_is_of_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """uv runs in another one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one, two").mkdir()
    settings = PipSettings(constraints=("c.txt",), links=("one, two",), cert="ca.pem", client_cert="me.pem")
    told = uv_variables(settings, Path("/cache"), {"UV_CACHE_DIR": "uv"})
    named = {"UV_CONSTRAINT": "c.txt", "UV_CACHE_DIR": "uv"}
    named |= {"SSL_CERT_FILE": "ca.pem", "SSL_CLIENT_CERT": "me.pem"}
    assert {name: told[name] for name in named} == {name: str(tmp_path / value) for name, value in named.items()}
    # With a comma, which is uv's own between two.
    assert told["UV_FIND_LINKS"] == f"{tmp_path.as_uri()}/one%2C%20two"


def test_the_home_folder_and_addresses_stay_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "wheels").mkdir()
    told = uv_variables(PipSettings(links=("~/wheels", "https://x/all")), Path("/cache"), {})
    assert told["UV_FIND_LINKS"] == f"{tmp_path.as_uri()}/wheels,https://x/all"


def test_what_uv_is_told_itself_stays() -> None:
    own = {"UV_CACHE_DIR": "/mine", "UV_INDEX_STRATEGY": "first-index", "UV_HTTP_TIMEOUT": "9"}
    told = uv_variables(PipSettings(timeout="60"), Path("/cache"), own)
    assert own | told == told | own


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ()),
        ({"UV_DEFAULT_INDEX": A, "UV_INDEX": f"{B} {A}"}, (A, B, A)),
        ({"UV_INDEX": f"corp={B}?a=b"}, (f"{B}?a=b",)),
        (
            {"UV_INDEX": f"my-corp={B}", "UV_INDEX_MY_CORP_USERNAME": "me", "UV_INDEX_MY_CORP_PASSWORD": "a@b"},
            ("https://me:a%40b@b.example/simple",),
        ),
    ],
)
def test_logins_that_uv_is_told_itself(variables: dict[str, str], expected: tuple[str, ...]) -> None:
    assert uv_logins(variables) == expected


def test_no_index_has_a_switch_only() -> None:
    assert uv_switches(PipSettings(indexes=())) == ["--no-index"]
    assert uv_switches(PipSettings()) == []
