"""Services without an entry script: the script that they get, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from example_models import TRIPLE, doubling_model

from aks_inference_runtime.models.nocode import DRIVER, no_code

CALL = """
import json, os, runpy, sys
script = runpy.run_path(sys.argv[1])
script["init"]()
for line in sys.stdin:
    try:
        print(json.dumps({"answer": script["run"](line)}))
    except ValueError as error:
        print(json.dumps({"error": str(error)}))
"""


def score(folder: Path, *bodies: Any, python: str = sys.executable) -> list[Any]:
    done = subprocess.run(
        [python, "-c", CALL, str(DRIVER)],
        input="\n".join(json.dumps(body) for body in bodies),
        capture_output=True,
        text=True,
        check=False,
        env={"AZUREML_MODEL_DIR": str(folder)},
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    return [answer.get("answer", answer.get("error")) for answer in answers]


def test_scikit_learn(tmp_path: Path) -> None:
    joblib = pytest.importorskip("joblib")
    linear_model = pytest.importorskip("sklearn.linear_model")
    rows = [[0.0], [1.0], [2.0], [3.0]]
    classifier = linear_model.LogisticRegression().fit(rows, [0, 0, 1, 1])
    regression = linear_model.LinearRegression().fit(rows, [1.0, 3.0, 5.0, 7.0])
    (tmp_path / "one").mkdir()
    joblib.dump(classifier, tmp_path / "one" / "model.pkl")
    wanted = [classifier.predict_proba(rows).tolist(), classifier.predict(rows).tolist()]
    bodies: list[Any] = [{"data": rows}, {"data": rows, "method": "predict"}, rows, {"data": rows, "method": "fit"}]
    got = score(tmp_path / "one", *bodies)
    assert got == [*wanted, wanted[0], "method 'fit': use predict or predict_proba"]
    joblib.dump(regression, tmp_path / "one" / "line.joblib")
    got = score(
        tmp_path / "one", {"data": rows}, {"data": [[4.0]], "model": "line.joblib"}, {"data": rows, "model": "x"}
    )
    assert got[0] == "the service has several models; name one in `model`: line.joblib, model.pkl"
    assert got[1] == pytest.approx([9.0])
    assert got[2].startswith("no model 'x'")


def test_nothing_to_serve(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("x")
    with pytest.raises(AssertionError, match=r"expected \*.onnx.*found readme.txt"):
        score(tmp_path, [])


def test_onnx(tmp_path: Path, tool_python: Any) -> None:
    python = tool_python("onnxruntime==1.31.1", "numpy<3")
    (tmp_path / "net.onnx").write_bytes(doubling_model())
    got = score(tmp_path, {"data": [[1, 2], [3, 4]]}, {"data": {"x": [[0.5, 1]]}}, python=str(python))
    assert got == [{"y": [[2.0, 4.0], [6.0, 8.0]]}, {"y": [[1.0, 2.0]]}]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_tensorflow(tmp_path: Path, tool_python: Any) -> None:
    python = str(tool_python("tensorflow-cpu==2.21.0"))
    subprocess.run([python, "-c", TRIPLE, str(tmp_path / "net")], check=True, capture_output=True)
    assert score(tmp_path, {"data": [1, 2]}, python=python) == [{"y": [3.0, 6.0]}]


@pytest.mark.parametrize(
    ("framework", "version", "first"),
    [
        ("ScikitLearn", "1.9.0", "scikit-learn==1.9.0"),
        ("ScikitLearn", None, "scikit-learn"),
        ("Onnx", "1.3", "onnxruntime"),
        ("TensorFlow", "2.21.0", "tensorflow-cpu==2.21.0"),
        ("Multi", "1", "scikit-learn"),
    ],
)
def test_what_is_installed(framework: str, version: str | None, first: str) -> None:
    found = no_code(framework, version)
    assert found is not None
    assert found.packages[0] == first
    assert found.pinned == ("==" in first)


@pytest.mark.parametrize("framework", ["PyTorch", "TfKeras", "Custom", "sklearn"])
def test_frameworks_that_need_a_script(framework: str) -> None:
    assert no_code(framework) is None
