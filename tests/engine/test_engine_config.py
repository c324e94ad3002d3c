"""Pulumi.yaml and Pulumi.<stack>.yaml: what is read, what is refused, and what a change leaves alone."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from embedded_engine.config import Configuration, load_project, load_settings, resolve
from embedded_engine.config.edit import changed, remove_value, set_salt, set_value, spliced
from embedded_engine.config.paths import get_path, parse_path, remove_path, set_path
from embedded_engine.config.settings import full_key
from embedded_engine.config.yaml12 import load_text
from embedded_engine.errors import ConfigError, EngineError
from embedded_engine.secrets import Crypter

CRYPTER = Crypter(b"k" * 32)
PROJECT = "name: tested\nruntime: python\n"


def configuration(folder: Path, settings_text: str, project: str = PROJECT) -> Configuration:
    (folder / "Pulumi.yaml").write_text(project)
    path = folder / "Pulumi.dev.yaml"
    path.write_text(settings_text)
    return resolve(load_project(folder), "dev", load_settings(path, "tested"), lambda: CRYPTER)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("config:\n  tested:a: hello\n", {"tested:a": "hello"}),
        ("config:\n  a: hello\n", {"tested:a": "hello"}),
        ("config:\n  other:config:a: hello\n", {"other:a": "hello"}),
        ("config: {'tested:a': 5}", {"tested:a": "5"}),
        ("config: {'tested:a': 1.50}", {"tested:a": "1.50"}),
        ("config: {'tested:a': 0x1F}", {"tested:a": "0x1F"}),
        ("config: {'tested:a': true, 'tested:b': yes}", {"tested:a": "true", "tested:b": "yes"}),
        ("config: {'tested:a': 2026-01-01}", {"tested:a": "2026-01-01"}),
        ("config: {'tested:a': }", {"tested:a": ""}),
        ("config: {'tested:a': {b: [1, yes, 2.5, null]}}", {"tested:a": '{"b":[1,"yes",2.5,null]}'}),
        ("config: {}\n", {}),
        ("", {}),
    ],
)
def test_what_a_program_gets(tmp_path: Path, text: str, values: dict[str, str]) -> None:
    assert dict(configuration(tmp_path, text).values) == values


def test_secrets_are_decrypted_and_marked_also_deep_inside(tmp_path: Path) -> None:
    content = {
        "config": {
            "tested:a": {"secure": CRYPTER.encrypt("one")},
            "tested:b": {"x": [{"secure": CRYPTER.encrypt("two")}], "y": 1},
            "tested:c": "plain",
        }
    }
    found = configuration(tmp_path, json.dumps(content))
    assert dict(found.values) == {"tested:a": "one", "tested:b": '{"x":["two"],"y":1}', "tested:c": "plain"}
    assert found.secret_keys == {"tested:a", "tested:b"}


DECLARED = (
    PROJECT
    + """config:
  count: {type: integer, default: 3}
  must: {type: string}
  list: {type: array, items: {type: integer}}
  key: {type: string, secret: true, default: dflt}
  other:region: {value: west}
  short: plain
"""
)


def test_defaults_of_the_project(tmp_path: Path) -> None:
    found = configuration(tmp_path, "config: {must: a, list: [1]}", DECLARED)
    assert dict(found.values) == {
        "tested:must": "a",
        "tested:list": "[1]",
        "tested:count": "3",
        "tested:key": "dflt",
        "other:region": "west",
        "tested:short": "plain",
    }
    assert found.secret_keys == {"tested:key"}


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        configuration(tmp_path, "config: {count: many, list: [1, x], key: plain}", DECLARED)
    text = str(raised.value)
    for part in (
        "'tested:count' must be of type 'integer'",
        "'tested:list' [1] must be of type 'integer'",
        "'tested:key' must be encrypted",
        "missing configuration value 'tested:must'",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("project", "part"),
    [
        ("name: tested\nruntime: nodejs\n", "`runtime` is 'nodejs'"),
        ("runtime: python\n", "`name` is None"),
        ("name: a b\nruntime: python\n", "`name` is 'a b'"),
        ("[]", "must be a mapping"),
        ("name: [", "Pulumi.yaml"),
        (PROJECT + "main: [x]\n", "`main` must be a path"),
        (PROJECT + "plugins: 3\n", "`plugins` must be a mapping"),
        (PROJECT + "config: {a: {type: colour}}\n", "`config.a.type` is 'colour'"),
        (PROJECT + "config: {a: {default: 1, value: 2}}\n", "exclude each other"),
        (PROJECT + "config: 5\n", "`config` must be a mapping"),
        (PROJECT + "plugins: {analyzers: [{name: x}]}\n", "`plugins.analyzers` is not supported"),
        (PROJECT + "options: {nothing: 1}\n", "`options.nothing` is not supported"),
    ],
)
def test_a_project_that_is_wrong_is_refused_with_its_place(tmp_path: Path, project: str, part: str) -> None:
    (tmp_path / "Pulumi.yaml").write_text(project)
    with pytest.raises(ConfigError) as raised:
        load_project(tmp_path)
    assert part in str(raised.value)


def test_the_project_is_found_from_a_folder_below(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.yaml").write_text(PROJECT + "main: program\n")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    project = load_project(below)
    assert (project.name, project.root, project.main) == ("tested", tmp_path, tmp_path / "program")


def test_without_a_project_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no Pulumi\.yaml project file found"):
        load_project(tmp_path)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("config: [a]", "`config` must be a mapping"),
        ("confg: {}", "`confg` is not supported"),
        ("secretsprovider: awskms://x", "secrets provider `awskms://x`"),
        ("environment: [x]", "Pulumi ESC"),
        ("config: {a: 1, 'tested:a': 2}", "`tested:a` stands there twice"),
        ("config: {'a:b:c:d': 1}", "could not parse a:b:c:d"),
        ("config: {a: &x [*x", "Pulumi.dev.yaml"),
        ("\ttabs", "Pulumi.dev.yaml"),
    ],
)
def test_settings_that_are_wrong_are_refused(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(EngineError) as raised:
        configuration(tmp_path, text)
    assert part in str(raised.value)


COMMENTED = """# the head
encryptionsalt: v1:abc   # of the stack
config:
  # about a
  tested:a: 1 # one
  b: {x: 1}

  tested:list:
    - 1   # first
    - 2
# the end
"""


def test_a_change_leaves_comments_and_the_rest_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "Pulumi.dev.yaml"
    path.write_text(COMMENTED)
    set_value(path, "tested", "tested:a", "two words")
    set_value(path, "tested", "tested:new", {"secure": "v1:x:y"})
    set_value(path, "tested", "tested:b", 7)
    remove_value(path, "tested", "tested:list")
    assert path.read_text() == (
        """# the head
encryptionsalt: v1:abc   # of the stack
config:
  # about a
  tested:a: two words # one
  b: 7

  tested:new:
    secure: v1:x:y
# the end
"""
    )
    assert path.stat().st_mode & 0o077 == 0


def test_the_salt_is_put_into_a_file_that_is_not_there_yet(tmp_path: Path) -> None:
    path = tmp_path / "Pulumi.dev.yaml"
    set_salt(path, "v1:abc:v1:x:y==")
    assert path.read_text() == "encryptionsalt: v1:abc:v1:x:y==\n"


SCALARS = st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(max_size=10)
KEYS = st.sampled_from(["tested:a", "b", "other:c", "tested:ü"])
USUAL = st.text("ab01:,#-'\"{}[]&*!%@|>?~=ü ", max_size=8)
USUAL_TREES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | USUAL,
    lambda i: st.lists(i, max_size=2) | st.dictionaries(USUAL, i, max_size=2),
)
TREES = st.recursive(SCALARS, lambda i: st.lists(i, max_size=2) | st.dictionaries(st.text(max_size=3), i, max_size=2))
SOURCES = st.sampled_from(
    [
        "",
        COMMENTED,
        "config: {}\n",
        "config: {b: {secure: x}, 'tested:a': [1, 2]}",
        '{"encryptionsalt": "s", "config": {"tested:a": {"x": [1]}}}',
        "config:\n  tested:a: |\n    many\n    lines\n\n  b: >-\n    folded\n  text\n",
        "config:\n    other:c:\n        - x: 1\n          y: 2\nencryptionsalt: s",
        "config: &anchor\n  tested:a: 1\n",
        "config:\n",
    ]
)


@settings(max_examples=300, deadline=None)
@given(SOURCES, KEYS, USUAL_TREES)
@example(COMMENTED, "b", "- x")
def test_a_change_says_what_it_should_whatever_the_style(source: str, key: str, value: Any) -> None:
    try:
        content = load_text(source, "x") or {}
    except ConfigError:
        return
    wanted = changed(content, ("config", key), value)
    text = spliced(source, ("config", key), value)
    try:
        right = load_text(text, "x") == wanted
    except ConfigError:
        right = False
    # Where the splice is wrong the file is written anew; in the usual styles it must be right.
    assert (
        right or source.startswith(("config: {", "{", "config: &", "config:\n  tested:a: |")) or source == "config:\n"
    )


@settings(max_examples=100, deadline=None)
@given(source=SOURCES, key=KEYS, value=TREES)
def test_the_file_says_what_it_should(
    tmp_path_factory: pytest.TempPathFactory, source: str, key: str, value: Any
) -> None:
    path = tmp_path_factory.mktemp("settings") / "Pulumi.dev.yaml"
    path.write_text(source)
    try:
        before = load_settings(path, "tested").config
    except ConfigError:
        return
    full = full_key("tested", key)
    set_value(path, "tested", full, value)
    after = load_settings(path, "tested").config
    assert after[full].value == value
    assert {k: v.value for k, v in after.items() if k != full} == {k: v.value for k, v in before.items() if k != full}
    remove_value(path, "tested", full)
    assert full not in load_settings(path, "tested").config


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a", ("a",)),
        ("a.b", ("a", "b")),
        ("a[0].b", ("a", 0, "b")),
        ('a["x.y"][2]', ("a", "x.y", 2)),
        ('["a b"].c', ("a b", "c")),
        ("a-b.c_d", ("a-b", "c_d")),
        ("other:a.b", ("other:a", "b")),
    ],
)
def test_paths(text: str, path: tuple[str | int, ...]) -> None:
    assert parse_path(text) == path


@pytest.mark.parametrize("text", ["", "[0]", "a[", "a[x]", "a[*]", "a[-1]", "a.", 'a["x]'])
def test_a_path_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="invalid property path"):
        parse_path(text)


@given(TREES, st.lists(st.text(min_size=1, max_size=2) | st.just(0), min_size=1, max_size=3), SCALARS)
def test_a_path_gives_what_was_set(value: Any, path: list[str | int], new: Any) -> None:
    try:
        result = set_path(value, path, new)
    except ConfigError:
        return
    assert get_path(result, path) == new
    if isinstance(path[-1], str):
        with pytest.raises((KeyError, IndexError, TypeError)):
            get_path(remove_path(result, path), path)
