"""Where pip would look for packages, and what a message may show of it."""

import os
from pathlib import Path
from typing import Any

import pytest

from aks_inference_runtime.packages.settings import (
    DEFAULT_INDEX,
    PipSettings,
    machine_settings,
    other_options,
    shown,
    with_options,
    without_secrets,
)

A, B, C = "https://a.example/simple", "https://b.example/simple", "https://c.example/simple"
PRIVATE = "https://me:hush@a.example/t0ken/simple"


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment with a home folder, where nothing of this machine counts."""
    return {"HOME": str(tmp_path), "XDG_CONFIG_DIRS": str(tmp_path / "none"), "PIP_CONFIG_FILE": str(tmp_path / "own")}


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_nothing_is_configured(home: dict[str, str]) -> None:
    assert machine_settings({**home, "PIP_CONFIG_FILE": os.devnull}) == PipSettings(indexes=(DEFAULT_INDEX,))


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"PIP_INDEX_URL": A}, {"indexes": (A,)}),
        ({"PIP_EXTRA_INDEX_URL": f"{A}\n {B}"}, {"indexes": (DEFAULT_INDEX, A, B)}),
        ({"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels /more"}, {"indexes": (), "links": ("/wheels", "/more")}),
        ({"PIP_NO_INDEX": "0", "PIP_PRE": "yes"}, {"pre": True}),
        ({"PIP_INDEX_URL": ""}, {}),
        ({"PIP_CERT": "/ca.pem", "PIP_PROXY": "http://proxy:1"}, {"cert": "/ca.pem", "proxy": "http://proxy:1"}),
        (
            {"PIP_CLIENT_CERT": "/me.pem", "PIP_TRUSTED_HOST": "a b:1"},
            {"client_cert": "/me.pem", "trusted": ("a", "b:1")},
        ),
        ({"PIP_CONSTRAINT": "/c.txt d.txt"}, {"constraints": ("/c.txt", "d.txt")}),
        ({"PIP_KEYRING_PROVIDER": "subprocess"}, {"keyring": True}),
        ({"UV_KEYRING_PROVIDER": "subprocess"}, {"keyring": True}),
        ({"PIP_DEFAULT_TIMEOUT": "60"}, {"timeout": "60"}),
        ({"PIP_TIMEOUT": "60"}, {"timeout": "60"}),
        (
            {"PIP_NO_BINARY": "a", "PIP_ONLY_BINARY": "b,c"},
            {"builds": ("--no-binary a", "--only-binary b", "--only-binary c")},
        ),
        ({"REQUESTS_CA_BUNDLE": __file__}, {"cert": __file__}),
        ({"REQUESTS_CA_BUNDLE": "/nowhere/at/all"}, {}),
        ({"CURL_CA_BUNDLE": __file__, "PIP_CERT": "/ca.pem"}, {"cert": "/ca.pem"}),
    ],
)
def test_variables(home: dict[str, str], variables: dict[str, str], expected: dict[str, Any]) -> None:
    found = machine_settings({**home, "PIP_CONFIG_FILE": os.devnull, **variables})
    assert found == PipSettings(**{"indexes": (DEFAULT_INDEX,), **expected})


def test_files_in_their_order(home: dict[str, str], tmp_path: Path) -> None:
    user, site = tmp_path / ".config" / "pip" / "pip.conf", tmp_path / "site"
    write(user, f"[global]\nindex-url = {A}\nextra_index_url =\n  {B}\n  {C}\n")
    assert machine_settings(home).indexes == (A, B, C)
    write(site / "pip.conf", f"[install]\nindex-url = {B}\n")
    assert machine_settings(home).indexes == (A, B, C)
    assert machine_settings(home, site).indexes == (B, C)
    # [install] of any file is before [global] of any file; a variable before both.
    write(tmp_path / "own", f"[global]\nindex-url = {C}\n[other]\nindex-url = {A}\n")
    assert machine_settings(home, site).indexes == (B,)
    assert machine_settings({**home, "PIP_INDEX_URL": A}, site).indexes == (A,)


@pytest.mark.parametrize("text", ["index-url = https://a", "[global\n", "\0", "[global]\nindex-url = %(x)s\n"])
def test_files_that_are_none(home: dict[str, str], tmp_path: Path, text: str) -> None:
    write(tmp_path / ".config" / "pip" / "pip.conf", text)
    assert machine_settings(home).indexes in ((DEFAULT_INDEX,), ("%(x)s",))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--index-url https://c.example/simple"], {"indexes": (C,)}),
        ([f"--extra-index-url={C}", "--pre"], {"indexes": (A, B, C), "pre": True}),
        ([f"-i {C}", f"--extra-index-url {B}"], {"indexes": (C, B)}),
        (["--no-index", "-f /wheels", f"--extra-index-url {C}"], {"indexes": (), "links": ("/wheels",)}),
        (["--prefer-binary", "--index-url"], {"indexes": (A, B)}),
        (["--trusted-host a", "--trusted-host=b:1"], {"trusted": ("a", "b:1")}),
        (["--index-url https://${TOKEN}@c.example/${other}"], {"indexes": ("https://hush@c.example/${other}",)}),
    ],
)
def test_options_of_requirements(options: list[str], expected: dict[str, Any]) -> None:
    settings = PipSettings(indexes=(A, B))
    assert with_options(settings, options, {"TOKEN": "hush", "other": "x"}) == PipSettings(
        **{"indexes": (A, B), **expected}
    )


def test_what_remains_of_the_options() -> None:
    options = ["-i https://c.example", "--pre", "--no-binary=a,b", "--only-binary", "--require-hashes", "-c c.txt"]
    assert list(other_options(options)) == ["--no-binary a", "--no-binary b", "--require-hashes", "-c c.txt"]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://user:hush@a.example:8443/hush/simple?token=hush#hush", "https://a.example:8443"),
        ("https://hush@[::1]/simple", "https://[::1]"),
        ("http://a.example:none/", "http://a.example"),
        ("hush", "://"),
    ],
)
def test_what_is_shown_of_an_address(address: str, expected: str) -> None:
    assert shown(address) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no address", "no address"),
        (f"for '{PRIVATE}': bad", "for 'https://a.example': bad"),
        ("(https://a.example/t0ken/simple/beta/)", "(https://a.example/beta/)"),
        ("https://me:a@b/c@x.example/files/b.whl", "https://x.example/files/b.whl"),
        ("fetch: `https://x.example/b.whl?sig=hush` failed", "fetch: `https://x.example/b.whl` failed"),
        ("https://pypi.org/simple/beta/", "https://pypi.org/simple/beta/"),
        ("really? yes", "really? yes"),
    ],
)
def test_what_others_say_without_secrets(text: str, expected: str) -> None:
    assert without_secrets(text, PipSettings(indexes=(DEFAULT_INDEX, PRIVATE))) == expected
