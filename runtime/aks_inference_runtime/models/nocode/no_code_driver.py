"""The entry script of services without one: scikit-learn, ONNX, TensorFlow's SavedModel, or several of these.

A request is `{"data": …}` (or the data itself): rows as lists or as objects; for ONNX and TensorFlow also an object of
named inputs. scikit-learn answers with predict_proba where the model has it, unless the request says
`"method": "predict"`. Of several models the request names one: `"model": "<file or folder>"`.
"""

# ruff: noqa: ANN401 - rows and answers are JSON of any shape

import json
import os
from pathlib import Path
from typing import Any, Callable  # noqa: UP035 - an environment may have an older Python

MODELS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {}
PICKLES = {".pkl", ".pickle", ".joblib", ".dill", ".sav"}


def init() -> None:
    """Loads all models of the service."""
    root = Path(os.environ["AZUREML_MODEL_DIR"])
    found = {}
    for path in sorted(root.rglob("*")):
        if path.name == "saved_model.pb":
            found[path.parent] = _tensorflow
        elif path.suffix == ".onnx":
            found[path] = _onnx
        elif path.suffix in PICKLES:
            found[path] = _sklearn
    if not found:
        listed = ", ".join(sorted(str(path.relative_to(root)) for path in root.rglob("*"))[:20])
        raise RuntimeError(
            f"no model in {root}: expected *.onnx, a SavedModel, or one of {', '.join(sorted(PICKLES))}; found {listed}"
        )
    names = [path.name for path in found]
    for path, load in found.items():
        name = path.name if names.count(path.name) == 1 else path.relative_to(root).as_posix()
        MODELS[name] = load(path)


def run(data: str) -> Any:
    """One request."""
    body = json.loads(data)
    options = body if isinstance(body, dict) and "data" in body else {}
    values = options["data"] if options else body
    if "model" not in options and len(MODELS) > 1:
        raise ValueError(f"the service has several models; name one in `model`: {', '.join(sorted(MODELS))}")
    name = options.get("model", next(iter(MODELS)))
    if name not in MODELS:
        raise ValueError(f"no model {name!r}; there are {', '.join(sorted(MODELS))}")
    return MODELS[name](values, options)


def _plain(value: Any) -> Any:
    """numpy's types as JSON has them."""
    return value.tolist() if hasattr(value, "tolist") else value


def _sklearn(path: Path) -> Callable[[Any, dict[str, Any]], Any]:
    import joblib

    if path.suffix == ".dill":
        import dill

        with path.open("rb") as file:
            model = dill.load(file)  # noqa: S301 - a registered model is code that its owner trusts
    else:
        model = joblib.load(path)

    def score(values: Any, options: dict[str, Any]) -> Any:
        method = options.get("method")
        if method not in (None, "predict", "predict_proba"):
            raise ValueError(f"method {method!r}: use predict or predict_proba")
        chosen = method or ("predict_proba" if hasattr(model, "predict_proba") else "predict")
        frame = values and (isinstance(values, dict) or isinstance(values[0], dict))
        return _plain(getattr(model, chosen)(_frame(values) if frame else values))

    return score


def _frame(values: Any) -> Any:
    import pandas

    return pandas.DataFrame(values)


def _onnx(path: Path) -> Callable[[Any, dict[str, Any]], Any]:
    import numpy
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    kinds = {
        "tensor(float)": "float32",
        "tensor(double)": "float64",
        "tensor(float16)": "float16",
        "tensor(string)": "str",
        "tensor(bool)": "bool",
    }
    kinds |= {f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
    inputs = session.get_inputs()
    outputs = [output.name for output in session.get_outputs()]

    def score(values: Any, _options: dict[str, Any]) -> Any:
        if not isinstance(values, dict):
            if len(inputs) != 1:
                raise ValueError(f"the model has several inputs; name them: {', '.join(i.name for i in inputs)}")
            values = {inputs[0].name: values}
        fed = {one.name: numpy.asarray(values[one.name], dtype=kinds.get(one.type)) for one in inputs}
        return {name: _plain(got) for name, got in zip(outputs, session.run(outputs, fed), strict=True)}

    return score


def _tensorflow(path: Path) -> Callable[[Any, dict[str, Any]], Any]:
    import tensorflow

    loaded = tensorflow.saved_model.load(str(path))
    function = loaded.signatures["serving_default"]
    inputs = function.structured_input_signature[1]

    def score(values: Any, _options: dict[str, Any]) -> Any:
        if not isinstance(values, dict):
            if len(inputs) != 1:
                raise ValueError(f"the model has several inputs; name them: {', '.join(sorted(inputs))}")
            values = {next(iter(inputs)): values}
        fed = {name: tensorflow.constant(values[name], dtype=kind.dtype) for name, kind in inputs.items()}
        return {name: _plain(got.numpy()) for name, got in function(**fed).items()}

    score.keeps = loaded  # type: ignore[attr-defined]  # the function alone does not keep its variables
    return score
