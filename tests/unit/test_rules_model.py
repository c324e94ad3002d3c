"""RegisteredModel: names, files, frameworks."""

from pathlib import Path
from typing import Any

import pytest

from aks_inference.findings import Casing, Severity
from aks_inference.names import MODEL
from aks_inference.registered_model.component import size_text
from aks_inference.registered_model.spec import ModelPlan, plan_model

TARGET = 'aks-inference+local:{"name": "local", "port": 8890, "stateDirectory": "/tmp/state"}'


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "work"
    (folder / "model" / "deep" / "none").mkdir(parents=True)
    (folder / "model" / "a.bin").write_bytes(b"aa")
    (folder / "model" / "deep" / "b.bin").write_bytes(b"bbb")
    (folder / "empty").mkdir()
    (folder / "one.bin").write_bytes(b"1")
    (tmp_path / "outside.bin").write_bytes(b"outside")
    monkeypatch.chdir(folder)
    return folder


def plan(name: str = "ridge", **declared: Any) -> tuple[ModelPlan | None, list[str]]:
    made, findings = plan_model(name, {"target": TARGET, "model_path": "model", **declared})
    return made, [f.text(Casing.SNAKE) for f in findings if f.severity is Severity.ERROR]


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ({"model_path": None}, "model_path: is required"),
        ({"model_path": "gone"}, 'model_path = "gone": does not exist ('),
        ({"model_path": "empty"}, 'model_path = "empty": '),
        ({"model_path": 3}, "model_path = 3: must be a text"),
        ({"model_path": ""}, 'model_path = "": is empty; give a file or folder'),
        ({"model_path": " \t"}, 'model_path = " \\t": is empty; give a file or folder'),
        ({"model_path": "", "run_id": "r"}, 'model_path = "": is empty; give a file or folder'),
        ({"model_path": " ", "job_outputs": "/out"}, 'model_path = " ": is empty; give a file or folder'),
        ({"child_paths": ["deep", ""]}, 'child_paths[1] = "": is empty; name a file or folder inside model_path'),
        ({"child_paths": ["  "]}, 'child_paths[0] = "  ": is empty; name a file or folder inside model_path'),
        ({"model_path": "/dev/zero"}, 'model_path = "/dev/zero": /dev/zero is not a regular file or folder; give'),
        ({"model_name": "-a"}, 'model_name = "-a": a name has 1 to 255 characters'),
        ({"model_name": ""}, 'model_name = "": a name has 1 to 255 characters'),
        ({"model_name": "a" * 256}, "model_name = "),
        ({"model_name": "ä"}, "model_name = "),
        ({"child_paths": ["deep/none"]}, 'child_paths[0] = "deep/none": holds no file; name files'),
        ({"child_paths": ["gone"]}, 'child_paths[0] = "gone": does not exist in'),
        ({"child_paths": ["../one.bin"]}, 'child_paths[0] = "../one.bin": lies outside of model_path'),
        ({"child_paths": ["/etc/passwd"]}, 'child_paths[0] = "/etc/passwd": lies outside of model_path'),
        ({"child_paths": ["a"], "model_path": "one.bin"}, 'child_paths[0] = "a": chooses among the files of a folder'),
        (
            {"model_framework": "sklearn"},
            'model_framework = "sklearn": is not a framework; did you mean `ScikitLearn`?',
        ),
        ({"model_framework_version": "1"}, 'model_framework_version = "1": is given without model_framework'),
        ({"datasets": ["x"]}, "datasets[0]: must be an object"),
        ({"datasets": [{"relationship": "training"}]}, "datasets[0].dataset: is required"),
        ({"resource_configuration": {"cpu": 0}}, "resource_configuration.cpu = 0: must be above 0"),
        ({"resource_configuration": {"cpus": 1}}, "resource_configuration.cpus: is not known here; did you mean `cpu`"),
        ({"parent_model": "net"}, 'parent_model = "net": is not a model id `name:version`'),
        ({"target": None}, "target: is required; add `target`, or `store`"),
        ({"store": "/srv/models"}, 'store = "/srv/models": is given beside target'),
        ({"target": None, "store": "s3://x"}, "store = \"s3://x\": 's3://x' is not a store; give an absolute path"),
        ({"model_path": "http://example.org/m"}, "model_path: 'http://example.org/m' is not protected"),
        ({"model_path": "https://example.org/m?sig=abc"}, "model_path: holds a secret in its query"),
        ({"model_path": "az://a/b/c"}, "model_path: 'a' is not a storage account"),
        (
            {"model_path": "ftp://host/m"},
            "model_path: begins with ftp://, from where nothing is fetched; give a path",
        ),
        ({"model_path": "S3://key:word@b/k"}, "model_path: begins with S3://, from where nothing is fetched; give"),
        (
            {"model_path": "wasbs://c@a/m"},
            "model_path: begins with wasbs://, from where nothing is fetched; write az",
        ),
        ({"model_path": "m" * 5000}, f'model_path = "{"m" * 78}…: does not exist; give an existing file or folder'),
        ({"model_path": "az://account/c1/m"}, "model_path: 'c1' is not a container (3 to 63 lower-case letters"),
        ({"model_path": None, "run_id": "../x"}, 'run_id = "../x": is not the id of a run; give letters'),
        (
            {"model_path": "models:/a/1", "tracking_uri": "nonsense"},
            'tracking_uri = "nonsense": is not the address of a server; give http://… or https://…',
        ),
        (
            {"model_path": "models:/a/1", "tracking_uri": "https://u:word@host"},
            "tracking_uri: holds a password, which would stand in state and logs; set MLFLOW_TRACKING_USERNAME",
        ),
        ({"target": None, "store": "/proc/x"}, 'store = "/proc/x": cannot be'),
        ({"target": None, "store": "one.bin"}, "store = \"one.bin\": 'one.bin' is not a store"),
        ({"unpack": True}, "unpack = true: is for remote archives"),
        ({"tracking_uri": "http://x"}, 'tracking_uri = "http://x": is of an MLflow server'),
        ({"experiment_name": "x"}, 'experiment_name = "x": is of an MLflow server'),
        ({"tags": {"a": 3}}, "tags.a = 3: must be a text"),
        ({"tags": ["a"]}, 'tags = ["a"]: must be an object'),
        ({"model_pth": "x"}, "model_pth: is not known here; did you mean `model_path`?"),
        ({"target": "x"}, "target: not a target"),
    ],
)
def test_a_broken_rule(declared: dict[str, Any], expected: str) -> None:
    made, errors = plan(**declared)
    assert made is None
    assert len(errors) == 1, errors
    assert errors[0].startswith(expected)


@pytest.mark.parametrize(
    ("declared", "files", "size"),
    [
        ({}, 2, 5),
        ({"model_path": "one.bin"}, 1, 1),
        ({"child_paths": ["deep"]}, 1, 3),
        ({"child_paths": ["a.bin", "deep/b.bin"]}, 2, 5),
        ({"model_path": "../outside.bin"}, 1, 7),
        ({"model_framework": "Onnx", "model_framework_version": "1.2"}, 2, 5),
        ({"model_name": "a.b_c-D"}, 2, 5),
    ],
)
def test_what_is_accepted(declared: dict[str, Any], files: int, size: int) -> None:
    made, errors = plan(**declared)
    assert errors == []
    assert made is not None
    assert (made.files, made.size_bytes) == (files, size)
    assert Path(made.inputs["path"]).is_absolute()


def test_all_that_is_wrong_with_children() -> None:
    _, errors = plan(child_paths=["gone", "", "../one.bin", "a.bin"])
    assert [error.partition(" = ")[0] for error in errors] == ["child_paths[1]", "child_paths[0]", "child_paths[2]"]
    # Nobody chose this one: what is chosen is not known.
    Path("model/link.bin").symlink_to("../../outside.bin")
    for wrong in ("a.bin", ["a.bin", 3]):
        assert all(error.startswith("child_paths") for error in plan(child_paths=wrong)[1])


def test_a_store_that_is_a_file(here: Path) -> None:
    _, errors = plan(target=None, store=str(here / "one.bin"))
    # A long path is told by its beginning.
    assert [error.rpartition(": ")[2] for error in errors] == ["is not a folder; give a folder"]


def test_a_link_that_leads_outside_of_the_model() -> None:
    Path("model/link.bin").symlink_to("../../outside.bin")
    _, errors = plan()
    assert "is a link that leads outside of the model" in errors[0]
    Path("model/link.bin").unlink()
    Path("model/link.bin").symlink_to("a.bin")
    made, errors = plan()
    assert (made is not None, errors) == (True, [])


def test_a_deprecated_framework_is_a_warning() -> None:
    made, findings = plan_model("ridge", {"target": TARGET, "model_path": "model", "model_framework": "TfKeras"})
    assert made is not None
    assert [(f.severity, f.text(Casing.SNAKE)) for f in findings] == [
        (Severity.WARNING, 'model_framework = "TfKeras": is deprecated; use TensorFlow')
    ]


@pytest.mark.parametrize(
    ("name", "right"),
    [("a", True), ("9", True), ("a" * 255, True), ("A.b-c_d", True), ("", False), ("a" * 256, False), (".a", False),
     ("_a", False), ("a b", False), ("a:1", False), ("a\n", False)],
)  # fmt: skip
def test_names(name: str, right: bool) -> None:
    assert (not list(MODEL.check(("model_name",), name))) is right


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"), (1, "1 byte"), (99, "99 bytes"), (100, "0.1 kB"), (1_234, "1.2 kB"), (99_999, "100.0 kB"),
        (100_000, "0.1 MB"), (5_250_000_000, "5,250.0 MB"),
    ],
)  # fmt: skip
def test_no_file_is_shown_as_nothing(size: int, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("declared", "path"),
    [
        ({"model_path": "https://example.org/m.pkl"}, "https://example.org/m.pkl"),
        ({"model_path": None, "run_id": "abc"}, "runs:/abc/ridge"),
        ({"model_path": "out/model", "run_id": "abc", "experiment_name": "e"}, "runs:/abc/out/model"),
        ({"model_path": "models:/churn@live", "tracking_uri": "http://x"}, "models:/churn@live"),
        ({"model_path": "az://account/container/net", "unpack": True}, "az://account/container/net"),
    ],
)
def test_remote_sources(declared: dict[str, Any], path: str) -> None:
    made, errors = plan(**declared)
    assert errors == []
    assert made is not None
    assert (made.inputs["path"], made.files) == (path, None)


def test_what_is_known_of_a_model() -> None:
    made, errors = plan(
        run_id=None,
        datasets=[{"relationship": "training", "dataset": "d:1"}],
        parent_model="base:2",
        sample_input_dataset="in",
        resource_configuration={"cpu": 1, "memory_in_gb": 2.0, "gpu": 0},
    )
    assert errors == []
    assert made is not None
    assert made.inputs["facts"] == {
        "datasets": [{"relationship": "training", "dataset": "d:1"}],
        "parentModelId": "base:2",
        "sampleInputDataset": "in",
        "resourceConfiguration": {"cpu": 1.0, "memoryInGb": 2.0, "gpu": 0},
    }


def test_a_store_of_its_own() -> None:
    made, errors = plan(target=None, store="az://account/container/prefix")
    assert errors == []
    assert made is not None
    assert (made.target, made.inputs["store"]) == (None, "az://account/container/prefix")
