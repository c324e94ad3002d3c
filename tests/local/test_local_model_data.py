"""Model data collection on this machine: the real scoring server, workers of its own, pandas and numpy."""

import asyncio
import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

SCRIPT = """
import json
import numpy as np
import pandas as pd
from azureml.monitoring import ModelDataCollector

def init():
    global inputs, predictions
    inputs = ModelDataCollector("best", designation="inputs", feature_names=["ignored"])
    predictions = ModelDataCollector("best", designation="predictions", feature_names=["doubled"])

def run(data):
    frame = pd.DataFrame(json.loads(data)["rows"])
    found = inputs.collect(frame)
    doubled = np.asarray(frame[["a"]]) * 2
    predictions.collect(predictions.add_correlations(doubled, found))
    return {"collected": found is not None, "doubled": doubled[:, 0].tolist()}
"""
PACKAGES = {"pip_packages": ["pandas>=2,<4"]}


def table(store: Path, designation: str) -> list[dict[str, str]]:
    (file,) = store.glob(f"sub/group/space/svc/best/default/{designation}/*/*/*/data.csv")
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


@pytest.mark.long
async def test_requests_and_their_answers_are_kept(local: Any, score: Callable[..., Any], tmp_path: Path) -> None:
    store = tmp_path / "collected"
    await local.launch()
    told = {"store": str(store), "workspace": "sub/group/space"}
    declared = {"script": SCRIPT, "environment": PACKAGES, "requests": {"replica_max_concurrent_requests": 2}}
    status = await local.deploy(local.declared("svc", model_data=told, **declared))
    key = await local.key("svc")
    async with aiohttp.ClientSession() as session:
        bodies = [{"rows": [{"a": n, "b": f"x,{n}"}, {"a": n + 0.5, "b": "y"}]} for n in range(20)]
        answers = []
        for pair in zip(bodies[::2], bodies[1::2], strict=True):
            answers += await asyncio.gather(*(score(session, status, key, body) for body in pair))
    assert {answer[0] for answer in answers} == {200}
    assert all(answer[2]["collected"] for answer in answers)
    inputs, predictions = table(store, "inputs"), table(store, "predictions")
    assert sorted(float(row["a"]) for row in inputs) == [n / 2 for n in range(40)]
    assert {row["b"] for row in inputs} == {*(f"x,{n}" for n in range(20)), "y"}
    assert {row["$aml_service_name"] for row in inputs} == {"svc"}
    correlated = {row["$aml_dc_correlation_id"]: row["$aml_request_id"] for row in inputs}
    assert len(correlated) == len(set(correlated.values())) == 20
    assert {row["$aml_dc_correlation_id"]: row["$aml_request_id"] for row in predictions} == correlated
    assert sorted(float(row["doubled"]) for row in predictions) == [float(n) for n in range(40)]
    # Switched off, with the same script: it scores, and nothing is added.
    status = await local.deploy(local.declared("svc", model_data={}, **declared))
    async with aiohttp.ClientSession() as session:
        code, _, answer = await score(session, status, key, bodies[0])
    assert (code, answer["collected"]) == (200, False)
    assert len(table(store, "inputs")) == len(inputs)
