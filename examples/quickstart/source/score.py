"""Entry script: one model, rows in, predictions out."""

import json
import os
from pathlib import Path

import joblib

model = None


def init() -> None:
    """Loads the one model that the version has."""
    global model
    (path,) = Path(os.environ["AZUREML_MODEL_DIR"]).rglob("*.joblib")
    model = joblib.load(path)


def run(raw_data: str) -> list[float]:
    """`{"data": [[ten numbers], …]}` → one prediction a row."""
    return [float(value) for value in model.predict(json.loads(raw_data)["data"])]
