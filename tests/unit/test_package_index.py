"""Pages of package indexes, what is decided from them, and how they are asked: beside each other, bounded, once."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.version import Version
from stub_index import StubIndex

from aks_inference_runtime.packages import lookup
from aks_inference_runtime.packages.fetch import NotAnswered, fetch
from aks_inference_runtime.packages.kept import AGE_S, Kept
from aks_inference_runtime.packages.lookup import Lookups, Question, Unasked
from aks_inference_runtime.packages.page import File, NoPage, Releases, read_page, releases, version_and_tags
from aks_inference_runtime.packages.settings import PipSettings
from aks_inference_runtime.packages.verdict import Refusal, judge, meets, newest

ANY = "py3-none-any.whl"


@pytest.fixture(autouse=True)
def nobody_is_silent() -> Iterator[None]:
    lookup._silent.clear()
    yield
    lookup._silent.clear()


@pytest.fixture
def index() -> Iterator[StubIndex]:
    stub = StubIndex()
    yield stub
    stub.close()


@pytest.mark.parametrize(
    ("name", "file", "version"),
    [
        ("scikit-learn", "scikit_learn-1.9.0-cp311-cp311-manylinux_2_17_x86_64.whl", "1.9.0"),
        ("Scikit.Learn", "scikit-learn-1.9.0.tar.gz", "1.9.0"),
        ("a-b", "a_b-1.0-2-py3-none-any.whl", "1.0"),
        ("a", "a-b-1.0.tar.gz", "b-1.0"),
        ("a-b", "a_b-1.0.zip", "1.0"),
        ("a", "b-1.0.tar.gz", None),
        ("a", "a-1.0.exe", None),
        ("a", "a-1.0.whl", None),
        ("a", "", None),
    ],
)
def test_names_of_files(name: str, file: str, version: str | None) -> None:
    found = version_and_tags(name, file)
    assert (found and found[0]) == version


def test_pages_of_html() -> None:
    page = b"""<!DOCTYPE html><a href="../../f/a-1.0-py3-none-any.whl#sha256=00">a</a>
        <a href='https://x.example/a-2.0%2Blocal.tar.gz' data-requires-python="&gt;=3.8" data-yanked="bad">x</a>
        <a>nothing</a><a href="/other/">other</a>"""
    assert read_page("text/html", page) == (
        File("a-1.0-py3-none-any.whl"),
        File("a-2.0+local.tar.gz", ">=3.8", True),
    )


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/html", b"<html>Please log in</html>"),
        ("", b""),
        ("application/json", b"[]"),
        ("application/json", b"{}"),
        ("application/json", b'{"files": [{}]}'),
        ("application/json", b'{"files": "x"}'),
        ("application/json", b"[" * 100_000),
        ("application/vnd.pypi.simple.v1+json; charset=utf-8", b"\xff"),
    ],
)
def test_what_is_no_page(kind: str, body: bytes) -> None:
    with pytest.raises(NoPage):
        read_page(kind, body)


@given(st.binary(max_size=200), st.sampled_from(["text/html", "application/json"]))
def test_any_bytes_are_a_page_or_not(body: bytes, kind: str) -> None:
    with contextlib.suppress(NoPage):
        releases("a", read_page(kind, body), here=True)


def test_what_this_machine_can_use() -> None:
    files = [
        File(f"a-1.0-{ANY}"),
        File("a-2.0-cp311-cp311-win_amd64.whl"),
        File(f"a-3.0-{ANY}", requires_python="<3"),
        File(f"a-4.0-{ANY}", requires_python="not a specifier"),
        File(f"a-5.0-{ANY}", yanked=True),
        File("a-6.0.tar.gz", requires_python=">=3.8"),
        File(f"a-one-{ANY}"),
    ]
    assert releases("a", files, here=True) == Releases(("1.0", "4.0", "6.0"), ("5.0",), ("2.0", "3.0"))
    assert releases("a", files, here=False) == Releases(("1.0", "2.0", "3.0", "4.0", "6.0"), ("5.0",))


HAS = Releases(("1.0", "1.5", "2.0rc1"), ("1.6",), ("3.0",))


@pytest.mark.parametrize(
    ("requirement", "pre", "rule"),
    [
        ("a", False, None),
        ("a==1.5", False, None),
        ("a>=1.2,<2", False, None),
        ("a[x]~=1.0 ; python_version > '3'", False, None),
        ("a==2.0rc1", False, None),
        ("a>=2.0", True, "3.0, the newest that meets >=2.0, has files for other machines only"),
        ("a>=1.7,<3", True, None),
        ("a==1.6", False, None),
        ("a===1.6", False, None),
        ("a==1.6.*", False, "1.6, the newest that meets ==1.6.*, was taken back by its authors"),
        ("a>1.5,<2", False, "1.6, the newest that meets <2,>1.5, was taken back by its authors"),
        ("a==9", False, "no release meets ==9 at https://x; the newest is 1.5"),
        ("a==3.0", False, "3.0, the newest that meets ==3.0, has files for other machines only"),
    ],
)
def test_what_is_to_be_had(requirement: str, pre: bool, rule: str | None) -> None:
    found = judge(Requirement(requirement), [HAS], "https://x", pre=pre)
    assert (found is None) == (rule is None), found
    if found and rule:
        assert found.rule.startswith(rule)
        assert found.mend == "use a==1.5"


def test_names_that_no_place_has() -> None:
    near = judge(Requirement("scikit-lern"), [], "https://x", pre=False)
    assert near == Refusal("no package of this name at https://x", "did you mean scikit-learn?")
    far = judge(Requirement("qqqq"), [], "https://x", pre=False)
    assert far is not None
    assert far.mend == "check the spelling, or add the index with --extra-index-url"
    empty = judge(Requirement("a"), [Releases()], "https://x", pre=False)
    assert empty is not None
    assert "https://x has no release of it for Python" in empty.rule


VERSIONS = st.lists(
    st.builds(
        lambda a, b, c: f"{a}.{b}{c}", st.integers(0, 5), st.integers(0, 5), st.sampled_from(["", "rc1", ".dev2"])
    ),
    max_size=6,
)


@given(VERSIONS, VERSIONS, st.sampled_from(["", ">=2", "==1.*", "<3,>1", "~=2.1", "!=0.1"]), st.booleans())
def test_whatever_meets_it_at_one_place_is_no_refusal(
    one: list[str], other: list[str], specifier: str, pre: bool
) -> None:
    requirement = Requirement(f"a{specifier}")
    found = [Releases(tuple(one)), Releases(tuple(other))]
    refused = judge(requirement, found, "x", pre=pre)
    assert (refused is None) == bool(meets(requirement.specifier, one + other, pre=pre))
    if one and refused:
        assert newest(one) is not None
        assert all(Version(version) for version in one)


def settings(*indexes: str, **more: Any) -> PipSettings:
    return PipSettings(indexes=indexes, **more)


def test_an_index_is_asked_once_for_each_name_and_what_it_said_is_kept(index: StubIndex, tmp_path: Path) -> None:
    index.add("a", f"a-1.0-{ANY}", f"a-1.5-{ANY}")
    index.add_html("b", '<a href="/f/b-2.0.tar.gz">b</a>')
    asked = [Question(text, settings(index.url)) for text in ("a", "A>=1.2", "a==9", "B_<3", "missing")]
    first = Lookups(Kept(tmp_path / "kept"))
    for question in [*asked, *asked]:
        first.ask(question)
    answers = [first.answer(question) for question in asked]
    assert answers[:2] == [None, None]
    assert answers[2] == Refusal(f"no release meets ==9 at {index.host}; the newest is 1.5", "use a==1.5")
    assert isinstance(answers[3], Refusal)  # `b-` is another name
    assert isinstance(answers[4], Refusal)
    assert sorted(index.asked) == ["/simple/a/", "/simple/b-/", "/simple/missing/"]
    # Known: nobody is asked. Refused: once more, as a release may be new.
    index.asked.clear()
    index.add("a", f"a-9-{ANY}")
    again = Lookups(Kept(tmp_path / "kept"))
    for question in asked[:3]:
        again.ask(question)
    assert [again.answer(question) for question in asked[:3]] == [None, None, None]
    assert index.asked == ["/simple/a/"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "kept").iterdir())


def test_what_was_kept_is_of_its_place_its_machine_and_its_day(tmp_path: Path) -> None:
    now = [1_000.0]
    kept = Kept(tmp_path / "kept", lambda: now[0])
    kept.put("https://hush@x/simple", "a", HAS, here=True)
    assert kept.get("https://hush@x/simple", "a", here=True) == HAS
    assert kept.get("https://x/simple", "a", here=True) is None
    assert kept.get("https://hush@x/simple", "a", here=False) is None
    (file,) = (tmp_path / "kept").iterdir()
    assert "hush" not in file.name + file.read_text()
    now[0] += AGE_S + 1
    assert kept.get("https://hush@x/simple", "a", here=True) is None
    now[0] = 0  # a clock that was set back
    assert kept.get("https://hush@x/simple", "a", here=True) is None
    now[0] = 1_000
    for text in ("", "[]", '{"at": 1000}', '{"at": "x", "usable": [], "yanked": [], "others": []}', "\0"):
        file.write_text(text)
        assert kept.get("https://hush@x/simple", "a", here=True) is None


def test_a_folder_that_cannot_be_written_is_no_hindrance(index: StubIndex, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    index.add("a", f"a-1.0-{ANY}")
    lookups = Lookups(Kept(tmp_path / "file" / "below"))
    lookups.ask(question := Question("a", settings(index.url)))
    assert lookups.answer(question) is None


def test_the_second_index_and_links_have_it_too(index: StubIndex, tmp_path: Path) -> None:
    index.add("mine", "mine-1.0.tar.gz")
    other = StubIndex()
    try:
        (tmp_path / "linked-1.0.tar.gz").touch()
        places = settings(other.url, index.url, links=(str(tmp_path), "/no/such/folder"))
        lookups = Lookups(Kept(tmp_path / "kept"))
        asked = [Question(text, places) for text in ("mine", "linked", "neither")]
        for question in asked:
            lookups.ask(question)
        assert [lookups.answer(question) for question in asked[:2]] == [None, None]
        refused = lookups.answer(asked[2])
        assert isinstance(refused, Refusal)
        assert refused.rule == f"no package of this name at {other.host} and {index.host}"
        # Of a page of links nothing is known here.
        page = Question("neither", settings(index.url, links=("https://hush@x.example/links",)))
        lookups.ask(page)
        assert lookups.answer(page) == Unasked("neither", "https://x.example", "is not read here")
    finally:
        other.close()


def test_who_does_not_answer_is_not_waited_for_beyond_the_deadline(index: StubIndex, tmp_path: Path) -> None:
    index.open.clear()
    lookups = Lookups(Kept(tmp_path / "kept"), deadline_s=0.3)
    asked = [Question(f"p{number}", settings(index.url)) for number in range(20)]
    for question in asked:
        lookups.ask(question)
    answers = {lookups.answer(question) for question in asked}
    assert answers == {Unasked(f"p{number}", index.host, "did not answer within 0.3 s") for number in range(20)}


def test_many_at_once(index: StubIndex, tmp_path: Path) -> None:
    arrived = threading.Semaphore(0)
    together = threading.Event()

    def get(where: str, name: str, seconds: float, **_: Any) -> tuple[File, ...]:
        arrived.release()
        assert together.wait(30)
        return (File(f"{name}-1.0-{ANY}"),)

    lookups = Lookups(Kept(tmp_path / "kept"), deadline_s=30, get=get)
    asked = [Question(f"p{number}", settings("https://x.example/simple")) for number in range(20)]
    for question in asked:
        lookups.ask(question)
    assert all(arrived.acquire(timeout=30) for _ in range(lookup.WORKERS))
    together.set()
    assert [lookups.answer(question) for question in asked] == [None] * 20


def test_a_place_that_was_silent_is_left_alone_for_a_while(tmp_path: Path) -> None:
    calls = []

    def get(where: str, name: str, seconds: float, **_: Any) -> None:
        calls.append(name)
        raise NotAnswered("cannot be reached", of_place=True)

    now = [0.0]
    question = Question("a", settings("https://x.example/simple"))
    for at in (0.0, 30.0, 61.0):
        now[0] = at
        lookups = Lookups(Kept(tmp_path), get=get, clock=lambda: now[0])
        lookups.ask(question)
        assert lookups.answer(question) == Unasked("a", "https://x.example", "cannot be reached")
    assert len(calls) == 2


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_refusals_of_an_index_say_nothing_of_the_package(index: StubIndex, status: int) -> None:
    index.status = status
    with pytest.raises(NotAnswered, match=f"answered {status}"):
        fetch(index.url, "a", 30)


def test_credentials_go_to_the_index_and_into_no_text(index: StubIndex) -> None:
    address = index.url.replace("http://", "http://me:h%40sh@")
    assert fetch(address, "a", 30) is None
    assert index.logins == ["Basic bWU6aEBzaA=="]
    index.close()
    with pytest.raises(NotAnswered) as caught:
        fetch(address, "a", 30)
    assert "sh@" not in str(caught.value)
    assert "h%40" not in str(caught.value)


def test_pages_are_read_up_to_a_limit(index: StubIndex) -> None:
    index.add("a", *(f"a-{number}.0-{ANY}" for number in range(5_000)))
    index.add_html("b", *(f'<a href="b-{number}.tar.gz">b</a>' for number in range(5_000)))
    assert len(fetch(index.url, "a", 30) or ()) == 5_000
    for name in ("a", "b"):
        with pytest.raises(NotAnswered, match="more than 0 MB"):
            fetch(index.url, name, 30, most_bytes=10_000)


@pytest.mark.parametrize("address", ["ftp://x.example/simple", "file:///etc", "x", "http://", "http://x.example:a/"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(NotAnswered):
        fetch(address, "a", 5)


def test_certificates_that_are_not_there(index: StubIndex, tmp_path: Path) -> None:
    with pytest.raises(NotAnswered, match=os.strerror(2)):
        fetch(index.url, "a", 5, cert=str(tmp_path / "none"))
