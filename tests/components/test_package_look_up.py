"""Packages that no index has: refused with everything else of a program, before anything is registered."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stub_index import StubIndex

from aks_inference.findings import Finding, Severity
from aks_inference.package_index import ask_at_once
from aks_inference.packages import SWITCH, Wanted
from aks_inference.service.environment import read_environment
from aks_inference.service.inference import read_inference
from aks_inference_runtime.local.built import cache_root, hash_of

ANY = "py3-none-any.whl"


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StubIndex]:
    """The index that pip would use, and nothing of this machine's."""
    stub = StubIndex()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv(SWITCH)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", stub.url.replace("http://", "http://user:hush@"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield stub
    stub.close()


PROGRAM = """
    from aks_inference import ControlledRolloutEndpoint, LocalInferenceCluster, ModelWebService, TrainingJob
    cluster = LocalInferenceCluster("local")
    conda = {"dependencies": ["python", {"pip": ["tiny>=1", "tiny>=9"]}]}
    direct = ["there @ https://x.example/there.whl", "old ; python_version < '3'", "--pre"]
    def config(**environment):
        return {"entry_script": "score.py", "environment": environment}
    ModelWebService("one", target=cluster, inference_config=config(pip_packages=["tiny", "scikit-lern", *direct]))
    ModelWebService("two", target=cluster, num_replicas=0, inference_config_file="inferenceconfig.json")
    version = {"version_name": "first", "inference_config": config(python={"conda_dependencies": conda})}
    ControlledRolloutEndpoint("three", target=cluster, versions=[version])
    TrainingJob("four", target=cluster, source_directory=".", entry_script="score.py",
                environment={"pip_packages": ["missing"]})
"""


def test_all_that_no_index_has_is_said_with_the_rest(
    run_program: Callable[..., Any], index: StubIndex, tmp_path: Path
) -> None:
    index.add("tiny", f"tiny-1.0-{ANY}", f"tiny-2.0-{ANY}")
    file = {"entryScript": "score.py", "environment": {"pipPackages": ["tiny==0.5", "tiny<3"]}}
    (tmp_path / "inferenceconfig.json").write_text(json.dumps(file))
    outcome = run_program(PROGRAM)
    assert outcome.code == 1
    assert "Traceback" not in outcome.stderr
    where = index.host
    expected = [
        "5 errors; nothing was changed",
        f'environment.pip_packages[1] = "scikit-lern": no package of this name at {where}; did you mean scikit-learn?',
        f'inferenceconfig.json: environment.pipPackages[0] = "tiny==0.5": no release meets ==0.5 at {where}; '
        "the newest is 2.0: use tiny==2.0",
        "num_replicas = 0",
        f'versions[0].inference_config.environment.python.conda_dependencies.dependencies[1].pip[1] = "tiny>=9": '
        f"no release meets >=9 at {where}; the newest is 2.0: use tiny==2.0",
        f'environment.pip_packages[0] = "missing": no package of this name at {where}',
    ]
    for text in expected:
        assert text in outcome.error, outcome.error
    assert not outcome.engine.of("LocalEndpoint")
    assert "hush" not in outcome.error + outcome.stderr + outcome.engine.said("WARNING")
    assert sorted(index.asked) == ["/simple/missing/", "/simple/scikit-lern/", "/simple/tiny/"]


SOUND = """
    from aks_inference import LocalInferenceCluster, ModelWebService
    cluster = LocalInferenceCluster("local")
    for name in ("one", "two"):
        ModelWebService(name, target=cluster, inference_config={
            "entry_script": "score.py", "environment": {"pip_packages": ["tiny", "other>=2"]}})
"""


def test_what_is_known_is_not_asked_again(run_program: Callable[..., Any], index: StubIndex) -> None:
    index.add("tiny", f"tiny-1.0-{ANY}")
    index.add("other", f"other-2.0-{ANY}")
    for preview in (True, False):
        outcome = run_program(SOUND, preview=preview)
        assert outcome.code == 0, outcome.error
        assert not outcome.engine.said("WARNING")
    assert sorted(index.asked) == ["/simple/other/", "/simple/tiny/"]


def test_an_index_that_does_not_answer_is_one_warning(run_program: Callable[..., Any], index: StubIndex) -> None:
    index.close()
    outcome = run_program(SOUND)
    assert outcome.code == 0, outcome.error
    said = outcome.engine.said("WARNING")
    assert said.startswith("not checked whether these packages are to be had: tiny, other (http://127.0.0.1:")
    assert said.endswith(" cannot be reached (Connection refused))")
    assert said.count("not checked") == 1
    assert len(outcome.engine.of("LocalEndpoint")) == 2


def wanted(*packages: str) -> list[Finding]:
    _, findings = read_environment({"pip_packages": list(packages)}, Path())
    return findings


def test_without_a_program_the_answer_comes_at_once(index: StubIndex) -> None:
    other = StubIndex()
    try:
        index.add("tiny", f"tiny-1.0-{ANY}")
        other.add("other", f"other-2.0-{ANY}")
        asked = wanted(f"--extra-index-url {other.url}", "tiny", "other>=2", "third")
        (error,) = ask_at_once("ModelWebService", "one", asked)
        assert (error.path, error.value, error.severity) == (("pip_packages", 3), "third", Severity.ERROR)
        assert error.rule == f"no package of this name at {index.host} and {other.host}"
        index.status = 403
        (warning,) = ask_at_once("ModelWebService", "one", asked)
        assert warning.severity is Severity.WARNING
        assert warning.rule == (f"not checked whether these packages are to be had: third ({index.host} answered 403)")
    finally:
        other.close()


def test_who_asks_for_nothing(index: StubIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [finding.value for finding in wanted("tiny", "other>=2")] == [Wanted("tiny"), Wanted("other>=2")]
    folder = cache_root() / hash_of(["tiny", "other>=2"])
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to("/bin/sh")
    (folder / "environment.json").write_text('{"serverVersion": "1.5"}')
    assert wanted("other>=2", "tiny") == []
    (folder / "bin" / "python").unlink()
    assert len(wanted("other>=2", "tiny")) == 2
    monkeypatch.setenv(SWITCH, "off")
    assert wanted("other>=2", "tiny") == []
    assert index.asked == []


def test_conda_files_ask_too(index: StubIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "score.py").write_text("def init():\n    pass\n\n\ndef run(data):\n    return data\n")
    (tmp_path / "conda.yml").write_text("dependencies: [{pip: ['--pre', tiny]}]")
    config = {"entry_script": "score.py", "conda_file": "conda.yml"}
    inference, findings = read_inference(config, None)
    assert inference is not None
    path = ("inference_config", "conda_file", "dependencies", 0, "pip", 1)
    assert findings == [Finding(path, "", "", Wanted("tiny", ("--pre",)), Severity.ASKED)]
    assert read_inference(config, None, built=True)[1] == []
