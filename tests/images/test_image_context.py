"""Which files go into an image: ignore files, limits, links, strange names; and how wheels become layers."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aks_inference_provider.resources.image_inputs import wanted_of
from aks_inference_runtime.api.errors import InvalidInput, OperationFailed
from aks_inference_runtime.images.build.application import Application, application_layer, collect
from aks_inference_runtime.images.build.assemble import group_wheels
from aks_inference_runtime.images.build.tarball import Entry, kept, pack
from aks_inference_runtime.images.build.target import Target, choose_interpreter, glibc_of, has_musl
from aks_inference_runtime.images.build.wheel import Scheme, Wheel, unpack
from aks_inference_runtime.images.context import ContextLimits, content_digest, context_files
from aks_inference_runtime.images.environment.model import BuildContext, Platform
from aks_inference_runtime.images.environment.read import read_environment, read_file
from aks_inference_runtime.images.errors import BuildFailed


def tree(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def test_amlignore_wins_over_gitignore_and_only_the_root_counts(tmp_path: Path) -> None:
    tree(
        tmp_path,
        "score.py",
        "data/big.csv",
        "data/keep.csv",
        "logs/a.log",
        "sub/x.tmp",
        ".git/config",
        "__pycache__/a.pyc",
    )
    (tmp_path / ".gitignore").write_text("score.py\n")
    (tmp_path / ".amlignore").write_text("# large\ndata/*\n!data/keep.csv\n*.log\n/sub/\n.amlignore\n")
    (tmp_path / "data" / ".gitignore").write_text("keep.csv\n")
    assert list(context_files(tmp_path)) == [".gitignore", "data/keep.csv", "score.py"]
    (tmp_path / ".amlignore").unlink()
    assert "score.py" not in context_files(tmp_path)
    assert "data/keep.csv" in context_files(tmp_path)


def test_a_further_work_tree_of_git_has_the_same_content(tmp_path: Path) -> None:
    tree(tmp_path, "score.py")
    (tmp_path / ".git").write_text("gitdir: /elsewhere/.git/worktrees/further\n")
    assert list(context_files(tmp_path)) == ["score.py"]


@pytest.mark.parametrize(
    "name", ["with space", "ünïcode-名前", "new\nline", "quote'\"", "-dash", "tab\t", "back\\slash"]
)
def test_strange_names_survive(tmp_path: Path, name: str) -> None:
    tree(tmp_path, name)
    files = context_files(tmp_path)
    layer = pack([Entry(one, path) for one, path in files.items()], tmp_path / "layer.tar.gz")
    with tarfile.open(layer.path) as tar:
        assert [(one.name, one.size) for one in tar] == [(name, len(name.encode()))]


def test_links(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    tree(outside, "secret", "folder/a")
    tree(inside, "real", "folder/b")
    (inside / "link").symlink_to("real")
    assert list(context_files(inside)) == ["folder/b", "link", "real"]
    (inside / "leaves").symlink_to("../outside/secret")
    (inside / "broken").symlink_to("nowhere")
    (inside / "tree").symlink_to("folder")
    (inside / "circle").symlink_to("round")
    (inside / "round").symlink_to("circle")
    os.mkfifo(inside / "pipe")
    with pytest.raises(InvalidInput) as caught:
        context_files(inside)
    lines = str(caught.value).splitlines()
    assert len(lines) == 6
    assert any("leaves the folder (to ../outside/secret)" in line for line in lines)
    (inside / ".amlignore").write_text("leaves\nbroken\ntree\npipe\ncircle\nround\n")
    assert "real" in context_files(inside)


WITHOUT_RIGHTS = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-dac_override")
LOOKS = """
import sys
from pathlib import Path
from aks_inference_runtime.api.content import model_files
from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.images.context import context_files
for look in (context_files, model_files):
    try:
        print(look.__name__, list(look(Path(sys.argv[1]))))
    except InvalidInput as error:
        print(error)
"""


def test_what_may_not_be_read_is_not_left_out(tmp_path: Path) -> None:
    """An image or a model without it would be another one."""
    tree(tmp_path, "score.py", "closed/data", "secret")
    (tmp_path / "closed").chmod(0)
    (tmp_path / "secret").chmod(0)
    # To root nothing is closed, unless it gives that right up.
    without = WITHOUT_RIGHTS if os.geteuid() == 0 else ()
    if without and shutil.which(without[0]) is None:
        pytest.skip("to root nothing is closed, and there is no setpriv")
    command = [*without, sys.executable, "-c", LOOKS, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (tmp_path / "closed").chmod(0o700)
    assert said.splitlines() == [
        f"{tmp_path}/secret: cannot be read; give yourself the right to or ignore it",
        f"{tmp_path}/closed: cannot be read (Permission denied); give yourself the right to or ignore it",
        f"{tmp_path}/closed cannot be read: Permission denied; give yourself the right to",
    ]


def test_a_file_that_changes_before_it_is_packed_is_refused(tmp_path: Path) -> None:
    """Its layer would be kept under the name of the content that it had."""
    tree(tmp_path, "score.py")
    script = tmp_path / "score.py"
    packed = collect(Application("score.py", tmp_path))
    for other in ("longer than before", "x", "score.pz"):
        script.write_text(other)
        with pytest.raises(OperationFailed, match=r"score\.py: has changed since it was looked at"):
            application_layer(packed, tmp_path / "cache")
    script.write_text("score.py")
    layer = application_layer(packed, tmp_path / "cache")
    with tarfile.open(layer.path) as tar:
        file = tar.extractfile(f"var/azureml-app/{tmp_path.name}/score.py")
        assert file is not None
        assert file.read() == b"score.py"


def test_two_scripts_of_one_folder_are_two_images_of_one_layer(tmp_path: Path) -> None:
    tree(tmp_path, "a.py", "b.py")
    one, other = (collect(Application(script, tmp_path)) for script in ("a.py", "b.py"))
    assert one.tag != other.tag
    assert one.digest != other.digest
    assert application_layer(one, tmp_path / "cache") == application_layer(other, tmp_path / "cache")


def test_limits_name_the_largest(tmp_path: Path) -> None:
    tree(tmp_path, *(f"many/{number}" for number in range(30)), *(f"few/{number}" for number in range(3)), "root")
    (tmp_path / "big one").write_bytes(bytes(3_000_000))
    with pytest.raises(InvalidInput) as caught:
        context_files(tmp_path, ContextLimits(max_mb=1, max_files=20))
    text = str(caught.value)
    assert "2.9 MB, more than 1.0 MB: largest are big one (2.9 MB)" in text
    assert "35 files, more than 20: most are in many (30 files), few (3 files)" in text
    assert ".amlignore" in text


def test_a_folder_without_end_is_not_walked_to_it(tmp_path: Path) -> None:
    """Ten times the limit is enough to name what fills it; of what cannot be taken some are said."""
    tree(tmp_path, *(f"many/{number:03}" for number in range(30)))
    with pytest.raises(InvalidInput, match="holds at least 21 files, more than 2: most are in many"):
        context_files(tmp_path, ContextLimits(max_files=2))
    for number in range(40):
        (tmp_path / f"link-{number:02}").symlink_to("/etc/passwd")
    with pytest.raises(InvalidInput) as caught:
        context_files(tmp_path, ContextLimits(max_files=100))
    lines = str(caught.value).splitlines()
    assert [line.count("is a link that leaves the folder") for line in lines] == [1] * 20 + [0]
    assert lines[-1].startswith("20 more files and folders cannot be taken")


def test_a_raised_limit_holds_for_the_digest_of_a_build_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aks_inference_runtime.images.context.AZURE_ML", ContextLimits(max_files=1))
    tree(tmp_path, "context/Dockerfile", *(f"context/{number}" for number in range(11)))
    raw = {"docker": {"buildContext": {"locationType": "local", "location": "context"}}}
    with pytest.raises(InvalidInput, match="the folder holds 12 files, more than 10"):
        read_environment(raw, tmp_path, limits=ContextLimits(max_files=2))
    file = tmp_path / "environment.json"
    file.write_text(json.dumps(raw))
    raised = ContextLimits(max_files=12)
    values = {"environment": raw, "registry": "registry.example", "baseDirectory": str(tmp_path), "maxFiles": 12}
    for read in (
        read_environment(raw, tmp_path, limits=raised),
        read_file(file, raised),
        wanted_of(values).definition,
    ):
        assert isinstance(read.base, BuildContext)
        assert read.base.digest == content_digest(tmp_path / "context", raised)


def test_digest_sees_names_and_contents(tmp_path: Path) -> None:
    tree(tmp_path, "a/x", "b/y")
    first = content_digest(tmp_path)
    (tmp_path / "a" / "x").rename(tmp_path / "b" / "x")
    assert content_digest(tmp_path) != first


def test_entry_script_must_go_in(tmp_path: Path) -> None:
    tree(tmp_path, "score.py", "other.py")
    (tmp_path / ".amlignore").write_text("score.py\n")
    with pytest.raises(InvalidInput, match="is ignored by"):
        collect(Application("score.py", tmp_path))
    for absent in ("none.py", "../other.py", str(tmp_path / "other.py")):
        with pytest.raises(InvalidInput, match="is not in"):
            collect(Application(absent, tmp_path))
    with pytest.raises(InvalidInput, match="is not a file"):
        collect(Application(str(tmp_path / "none.py")))
    packed = collect(Application("other.py", tmp_path))
    assert packed.variables["AZUREML_ENTRY_SCRIPT"] == f"{tmp_path.name}/other.py"
    alone = collect(Application(str(tmp_path / "other.py")))
    assert alone.variables == {"AZUREML_ENTRY_SCRIPT": "other.py"}


ENTRIES = st.dictionaries(
    st.text(st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=120).filter(
        lambda name: name not in {".", ".."}
    ),
    st.tuples(st.binary(max_size=200), st.booleans()),
    max_size=8,
)


# How long drawing takes is the machine's affair: the first draws on a busy one take seconds.
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(ENTRIES, st.randoms(use_true_random=False))
def test_layer_is_the_same_whatever_the_order(
    tmp_path_factory: pytest.TempPathFactory, files: dict, draw: object
) -> None:
    folder = tmp_path_factory.mktemp("layers")
    entries = [Entry(f"in/{name}", content, executable) for name, (content, executable) in files.items()]
    first = pack(entries, folder / "a.tar.gz")
    draw.shuffle(entries)  # type: ignore[attr-defined]
    second = pack(entries, folder / "b.tar.gz")
    assert (first.digest, first.diff_id, first.size) == (second.digest, second.diff_id, second.size)
    with tarfile.open(first.path) as tar:
        got = {one.name: (tar.extractfile(one).read(), bool(one.mode & 1)) for one in tar if one.isfile()}  # type: ignore[union-attr]
        assert got == {f"in/{name}": value for name, value in files.items()}
        assert {(one.uid, one.gid, one.mtime) for one in tar.getmembers()} <= {(0, 0, 315_532_800)}


def test_kept_layer_is_packed_anew_when_it_is_damaged(tmp_path: Path) -> None:
    asked: list[int] = []

    def make(_stack: contextlib.ExitStack) -> list[Entry]:
        asked.append(1)
        return [Entry("a", b"content")]

    first = kept(tmp_path, "key", make)
    assert kept(tmp_path, "key", make) == first
    assert len(asked) == 1
    first.path.write_bytes(b"cut off")
    assert kept(tmp_path, "key", make) == first
    assert len(asked) == 2
    record = next(tmp_path.glob("*.json"))
    record.write_text('{"dig')
    assert kept(tmp_path, "key", make) == first
    assert kept(tmp_path, "other", make).path != first.path


SCHEME = Scheme("/opt/e", "3.11")
SITE = "opt/e/lib/python3.11/site-packages"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def unpacked(path: Path, name: str = "demo") -> dict[str, Entry]:
    with contextlib.ExitStack() as stack:
        found = unpack(Wheel(path, name, "1.0", _sha256(path)), SCHEME, stack)
        return {
            one.name: Entry(one.name, one.content() if callable(one.content) else one.content, one.executable)
            for one in found
        }


def test_wheel_is_laid_out_as_by_an_installer(tmp_path: Path, make_wheel: Callable[..., Path]) -> None:
    files = {
        "demo-1.0.data/scripts/run": b"#!python\nprint(1)\n",
        "demo-1.0.data/data/share/x": b"x",
        "demo-1.0.data/purelib/demo/extra.py": b"",
        "demo-1.0.data/headers/demo.h": b"h",
        "demo.pth": b"import site\n",
    }
    got = unpacked(make_wheel(tmp_path, "demo", files=files, scripts={"demo": "demo.cli:main.run", "bad": "nothing"}))
    assert got["opt/e/bin/run"].content == b"#!/opt/e/bin/python\nprint(1)\n"
    assert got["opt/e/bin/run"].executable
    script = got["opt/e/bin/demo"].content
    assert isinstance(script, bytes)
    assert b"from demo.cli import main" in script
    assert b"sys.exit(main.run())" in script
    assert "opt/e/bin/bad" not in got
    assert {
        "opt/e/share/x",
        f"{SITE}/demo/extra.py",
        f"{SITE}/demo.pth",
        "opt/e/include/site/python3.11/demo/demo.h",
    } <= set(got)
    record = got[f"{SITE}/demo-1.0.dist-info/RECORD"].content
    assert isinstance(record, bytes)
    listed = {line.partition(",")[0] for line in record.decode().splitlines()}
    assert {os.path.normpath(f"{SITE}/{name}") for name in listed} == set(got)


def test_installed_by_pip_the_same_files_are_there(tmp_path: Path, make_wheel: Callable[..., Path]) -> None:
    """pip is the reference for what installing means."""
    import subprocess
    import sys

    path = make_wheel(
        tmp_path, "demo", files={"demo-1.0.data/scripts/run": b"#!python\n"}, scripts={"demo": "demo:main"}
    )
    prefix = tmp_path / "installed"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--no-compile",
        "--ignore-installed",
    ]
    subprocess.run([*command, "--prefix", str(prefix), str(path)], check=True, capture_output=True)
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    with contextlib.ExitStack() as stack:
        scheme = Scheme("/opt/e", minor)
        ours = {
            one.name.removeprefix("opt/e/") for one in unpack(Wheel(path, "demo", "1.0", _sha256(path)), scheme, stack)
        }
    theirs = {one.relative_to(prefix).as_posix() for one in prefix.rglob("*") if one.is_file()}
    assert {name for name in theirs if not name.endswith(("direct_url.json", "REQUESTED"))} == ours


@pytest.mark.parametrize("bad", ["../evil", "/etc/passwd", "a/../../b", "demo-1.0.data/unknown/x", "back\\slash"])
def test_malicious_wheel_is_refused(tmp_path: Path, make_wheel: Callable[..., Path], bad: str) -> None:
    with pytest.raises(BuildFailed, match=r"leaves the environment|no installer knows"):
        unpacked(make_wheel(tmp_path, "demo", files={bad: b"x"}))


def test_bomb_is_refused(tmp_path: Path, make_wheel: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aks_inference_runtime.images.build.wheel.MAX_UNPACKED", 1_000_000)
    with pytest.raises(BuildFailed, match="unpacks to more than"):
        unpacked(make_wheel(tmp_path, "demo", files={"zeros": bytes(2_000_000)}))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", None])
def test_file_that_is_no_wheel(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "demo-1.0-py3-none-any.whl"
    if content is None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("a", "b")
        content = buffer.getvalue()
    path.write_bytes(content)
    with pytest.raises(BuildFailed, match="is not a wheel"):
        unpacked(path)


def test_large_wheels_have_layers_of_their_own() -> None:
    wheels = [Wheel(Path(name), name, "1", name) for name in "abcdef"]
    sizes = {"a": 10, "b": 5_000_000, "c": 9_000_000, "d": 2_000_000, "e": 1, "f": 8_000_000}

    def grouped(room: int) -> list[str]:
        return ["".join(wheel.name for wheel in group) for group in group_wheels(wheels, sizes, room)]

    assert grouped(100) == ["b", "c", "d", "f", "ae"]
    assert grouped(3) == ["c", "f", "abde"]
    assert grouped(1) == ["abcdef"]
    assert group_wheels([], {}, 5) == []


PATHS = [
    "usr/bin/python3.9",
    "usr/local/bin/python3.11",
    "usr/bin/python3.11",
    "opt/conda/bin/python3.10",
    "bin/python3-config",
]


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (None, ("/usr/local/bin/python3.11", "3.11")),
        ("3.11.4", ("/usr/local/bin/python3.11", "3.11")),
        ("3.10", ("/opt/conda/bin/python3.10", "3.10")),
        ("3.9", ("/usr/bin/python3.9", "3.9")),
        ("3.12", None),
    ],
)
def test_interpreter(wanted: str | None, chosen: tuple[str, str] | None) -> None:
    assert choose_interpreter(PATHS, wanted) == chosen


def test_platform_tags() -> None:
    tags = Target("3.11", "/p", Platform(), (2, 28)).pip_platforms
    assert tags[0] == "manylinux_2_28_x86_64"
    assert {"manylinux_2_5_x86_64", "manylinux1_x86_64", "manylinux2014_x86_64", "linux_x86_64"} <= set(tags)
    arm = Target("3.11", "/p", Platform("linux", "arm64"), (2, 17)).pip_platforms
    assert arm == ("manylinux_2_17_aarch64", "manylinux2014_aarch64", "linux_aarch64")


def test_c_library() -> None:
    assert glibc_of(["lib/x86_64-linux-gnu/libc-2.31.so"], None) == (2, 31)
    assert glibc_of([], 'ID=ubuntu\nVERSION_ID="22.04"\n') == (2, 35)
    assert glibc_of([], "ID=other\n") == (2, 28)
    assert has_musl(["lib/ld-musl-x86_64.so.1"])
    assert not has_musl(["usr/share/doc/ld-musl-x86_64.so.1", "lib/x86_64-linux-gnu/libc-2.31.so"])
