"""The entry script: what the scoring server would refuse is said at preview."""

import ast
from pathlib import Path

import pytest

from aks_inference.findings import Casing, Severity
from aks_inference.service import folders
from aks_inference.service.code import contract_findings, read_code, read_content
from aks_inference_runtime.api.content import directory_digest
from aks_inference_runtime.api.limits import ContextLimits


def findings(source: str) -> list[str]:
    return [f.text(Casing.SNAKE) for f in contract_findings(ast.parse(source), "score.py")]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def run(data): ...", ["has no function init()"]),
        ("def init(): ...", ["has no function run()"]),
        ("x = 1", ["has no function init()", "has no function run()"]),
        ("", ["has no function init()", "has no function run()"]),
        ("def init(a): ...\ndef run(data): ...", ["init() takes arguments"]),
        ("def init(*, a): ...\ndef run(data): ...", ["init() takes arguments"]),
        ("async def init(): ...\ndef run(data): ...", ["init() is async"]),
        ("def init(): ...\nasync def run(data): ...", ["run() is async"]),
        ("def init(): ...\ndef run(): ...", ["run() takes no data"]),
        ("def init(): ...\ndef run(request_headers): ...", ["run() takes no data"]),
        ("def init(): ...\ndef run(*rows): ...", ["run() has *rows"]),
        ("def init(): ...\ndef run(data, **more): ...", ["run() has **more"]),
        ("def init(): ...\ndef run(data, /): ...", ["run() has positional-only data"]),
        (
            "def init(): ...\n@rawhttp\n@input_schema('data', t)\ndef run(data): ...",
            ["run() has both `rawhttp` and `input_schema` (line 3)"],
        ),
        (
            "def init(): ...\n@s.output_schema(t)\n@api.rawhttp\ndef run(data): ...",
            ["run() has both `rawhttp` and `output_schema` (line 3)"],
        ),
        ("class A:\n  def init(s): ...\n  def run(s, d): ...", ["has no function init()", "has no function run()"]),
        ("def init():\n  def run(data): ...", ["has no function run()"]),
        ("def init(): ...\nrun: Callable", ["has no function run()"]),
        ("def init(): ...\ndef run(data): ...\ndel run", ["has no function run()"]),
        ("def init(): ...\nx.run = f\nx['run'] = f\ny[run] = f", ["has no function run()"]),
        ("def init(): ...\nf = lambda: (run := 1)", ["has no function run()"]),
        ("def init(): ...\nclass A:\n  (run := 1)", ["has no function run()"]),
        ("def init(): ...\nz = [run for run in fs]", ["has no function run()"]),
        ("def init(): ...\ntry: f()\nexcept E as run: ...", ["has no function run()"]),
        ("def init(): ...\nvars(args)\nmodel.eval()", ["has no function run()"]),
        ("def init(): ...\nif a:\n  def run(): ...\nelse:\n  def run(): ...", ["run() takes no data"]),
        ("def init(): ...\nasync def run(data): ...\nexec(code)", ["run() is async"]),
    ],
)  # fmt: skip
def test_what_the_server_would_refuse(source: str, expected: list[str]) -> None:
    found = findings(source)
    assert len(found) == len(expected)
    for text, start in zip(found, expected, strict=True):
        assert text.startswith(f'entry_script = "score.py": {start}')


@pytest.mark.parametrize(
    "source",
    [
        "def init(): ...\ndef run(data): ...",
        "def init(a=1): ...\ndef run(data, request_headers): ...",
        "def init(): ...\ndef run(*, data): ...",
        "from lib import init, run",
        "from lib import *",
        "from lib import start as init\nrun = make()",
        "import lib\ninit, run = lib.init, lib.run",
        "if True:\n  def init(): ...\nelse:\n  def init(): ...\ntry:\n  def run(data): ...\nexcept E:\n  raise",
        "@input_schema('data', t)\n@output_schema(o)\ndef run(data): ...\ndef init(): ...",
        "@rawhttp\ndef run(*request): ...\ndef init(): ...",
        "init: object = f\nclass run:\n  pass",
        "def init(): ...\n(run := make())",
        "def init(): ...\nif (run := make()) is None: raise E",
        "def init(): ...\n[run := f for f in fs]",
        "def init(): ...\n@keep(run := make())\ndef other(): ...",
        "def init(): ...\nfor run in makers(): pass",
        "def init(): ...\nfor name, (run, *_) in makers(): pass",
        "def init(): ...\nwith made() as run: pass",
        "def init(): ...\nwith made() as (a, run):\n  b = a",
        "import lib as run, other as init",
        "import init.lib\nrun = f",
        "(init, run), rest = lib.both, 1",
        "init = run = f",
        "def init(): ...\nrun = f if a else g",
        "def init(): ...\nmatch f():\n  case {'run': run}: ...\n  case [*init]: ...",
        "def init(): ...\nwhile a:\n  run = f",
        "def init(): ...\ntry: f()\nexcept E:\n  from lib import run",
        "def init(): ...\ndef run(): ...\nrun = wrap(run)",
        "def init(): ...\ndef run(data): ...\nif debug:\n  def run(): ...",
        "def init(): ...\ndef make():\n  global run\n  run = f\nmake()",
        "exec(open('code').read())",
        "def init(): ...\nglobals()['run'] = f",
        "def init(): ...\nvars()['run'] = f",
        "def init(): ...\nsetattr(sys.modules[__name__], 'run', f)",
        "def __getattr__(name): ...",
    ],
)
def test_what_it_takes(source: str) -> None:
    assert findings(source) == []


def script(folder: Path, name: str = "score.py", text: str = "def init(): ...\ndef run(data): ...\n") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def wrong(entry: str, source: str | None = None) -> str:
    code, found = read_code(entry, source)
    assert code is None
    return "\n".join(f.text(Casing.SNAKE) for f in found)


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    script(tmp_path / "src")
    script(tmp_path, "outside.py")
    assert "does not exist" in wrong("gone.py")
    assert "does not exist" in wrong("gone.py", "src")
    assert 'source_directory = "nowhere": does not exist' in wrong("score.py", "nowhere")
    assert 'source_directory = "outside.py": is not a directory' in wrong("score.py", "outside.py")
    assert "lies outside of source_directory src" in wrong("../outside.py", "src")
    assert "lies outside" in wrong(str(tmp_path / "outside.py"), "src")
    script(tmp_path, "score.txt")
    assert "does not end in .py" in wrong("score.txt")
    script(tmp_path, "my-score.py")
    assert "is not a Python name" in wrong("my-score.py")
    script(tmp_path, "class.py")
    assert "is not a Python name" in wrong("class.py")
    script(tmp_path, "broken.py", "def init(:\n")
    assert "does not parse: line 1" in wrong("broken.py")
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe\x00")
    assert "is no text: it holds null bytes" in wrong("binary.py")
    (tmp_path / "coded.py").write_bytes(b"# -*- coding: nonsense -*-\n")
    assert "does not parse: unknown encoding" in wrong("coded.py")
    (tmp_path / "folder.py").mkdir()
    assert "does not exist" in wrong("folder.py")


def test_the_digest_follows_the_content_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def digest() -> str:
        code, found = read_code("score.py", "src")
        assert code is not None, found
        assert code.source_directory == str(tmp_path / "src")
        assert code.entry_script == "score.py"
        return code.digest

    script(tmp_path / "src")
    before = digest()
    assert digest() == before
    script(tmp_path / "src" / "__pycache__", "score.cpython-311.pyc", "byte code")
    assert digest() == before
    script(tmp_path / "src", "lib.py", "x = 1")
    changed = digest()
    assert changed != before
    (tmp_path / "src" / "lib.py").rename(tmp_path / "src" / "lib2.py")
    assert digest() not in (before, changed)


def test_a_folder_that_holds_too_much_is_a_warning(tmp_path: Path) -> None:
    script(tmp_path / "src")
    for number in range(3):
        script(tmp_path / "src" / "data", f"{number}.py")
    read, found = read_content("score.py", str(tmp_path / "src"), ContextLimits(max_files=3))
    assert read is not None
    assert [(f.severity, "holds 4 files, 0 MB" in f.rule) for f in found] == [(Severity.WARNING, True)]
    assert "raise max_files and max_mb" in found[0].text(Casing.SNAKE)
    assert read_content("score.py", str(tmp_path / "src"), ContextLimits(max_files=4))[1] == []


def test_ignored_files_are_no_code(tmp_path: Path) -> None:
    """They neither change the digest nor are read; one file says which, the root's."""
    source = tmp_path / "src"
    script(source)
    (source / ".gitignore").write_text("*.csv\n")
    (source / ".amlignore").write_text("/data/*\n!/data/keep.csv\n.amlignore\nloop\n")
    script(source / "data", "keep.csv", "1")

    def digest() -> str:
        code, found = read_code("score.py", str(source))
        assert code is not None, found
        assert code.digest == directory_digest(source)
        return code.digest

    before = digest()
    script(source / "data", "large.bin", "x")
    script(source / ".git", "index", "x")
    (source / "loop").symlink_to(source)
    assert digest() == before
    script(source, "more.csv", "x")
    assert digest() != before, ".amlignore wins"
    (source / ".amlignore").write_text("score.py\nloop\n")
    code, found = read_code("score.py", str(source))
    assert code is None
    assert [f.rule for f in found] == ["is ignored by .amlignore or .gitignore"]
    (source / ".amlignore").write_bytes(b"\xff")
    assert "is not a list of patterns" in read_code("score.py", str(source))[1][0].rule


def test_a_project_with_packages_and_data_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "src")
    packages = tmp_path / "src" / ".venv"
    packages.mkdir()
    for number in range(20_001):
        (packages / str(number)).touch()
    with (tmp_path / "src" / "data").open("wb") as data:
        data.truncate(4_000_000_000)
    monkeypatch.setattr(folders, "file_digest", lambda _path: "sha256:1")
    code, found = read_code("score.py", str(tmp_path / "src"))
    assert code is not None
    assert [(one.severity, one.rule.partition(" MB")[0]) for one in found] == [
        (Severity.WARNING, "holds 20,003 files, 3,815")
    ]


@pytest.mark.parametrize("limit", ["MOST_FILES", "MOST_BYTES"])
def test_a_folder_that_is_no_scripts_is_refused_and_read_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """As / and a home folder are: every preview would read all of it."""
    script(tmp_path / "src")
    script(tmp_path / "src" / "data", "more.py", "x = 1\n" * 100)
    monkeypatch.setattr(f"aks_inference.service.folders.{limit}", 1)
    monkeypatch.setattr("aks_inference.service.folders.file_digest", None)
    code, found = read_code("score.py", str(tmp_path / "src"))
    assert code is None
    assert [(one.path, one.value, one.severity) for one in found] == [
        (("source_directory",), str(tmp_path / "src"), Severity.ERROR)
    ]
    assert "holds more than" in found[0].rule
    assert "a folder of its own" in found[0].mend


def test_a_script_in_a_subfolder(tmp_path: Path) -> None:
    script(tmp_path / "src" / "serving")
    code, found = read_code("serving/score.py", str(tmp_path / "src"))
    assert found == []
    assert code is not None
    assert code.entry_script == "serving/score.py"


def test_a_folder_of_many_services_is_read_once_and_again_when_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = folders.file_digest

    def counted(path: Path) -> str:
        read.append(path.name)
        return real(path)

    monkeypatch.setattr(folders, "file_digest", counted)
    (tmp_path / "inner").mkdir()
    (tmp_path / "score.py").write_text("def init(): ...\ndef run(data): ...")
    (tmp_path / "inner" / "words.txt").write_text("one")
    (tmp_path / "__pycache__").mkdir()

    def digest() -> str:
        code, found = read_code("score.py", str(tmp_path))
        assert code is not None, found
        return code.digest

    seen = [digest() for _ in range(50)]
    assert len(set(seen)) == 1
    assert sorted(read) == ["score.py", "words.txt"]
    (tmp_path / "__pycache__" / "score.pyc").write_text("byte code")
    assert digest() == seen[0]
    assert len(read) == 2
    # As long as before, in another file of the same name, or one more: each is another content.
    (tmp_path / "other").write_text("two")
    (tmp_path / "other").replace(tmp_path / "inner" / "words.txt")
    changed = digest()
    (tmp_path / "more.txt").touch()
    assert len({seen[0], changed, digest()}) == 3
    (tmp_path / "score.py").write_text("def init(): ...")
    assert [f.rule for f in read_code("score.py", str(tmp_path))[1]] == ["has no function run()"]
    (tmp_path / "score.py").write_text("def init(): ...\ndef run(data): ...")
    (tmp_path / "away").symlink_to(tmp_path / "inner")
    for _ in range(2):
        assert "is a link to a folder" in read_code("score.py", str(tmp_path))[1][0].rule
