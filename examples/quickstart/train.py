"""Trains the two models of the quickstart on the diabetes data that scikit-learn ships, and writes their files.

    python examples/quickstart/train.py [DIRECTORY]     (default: `models` beside this file)

`ridge` is sklearn.linear_model.Ridge; `boosted` is sklearn.ensemble.HistGradientBoostingRegressor.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import joblib
from sklearn.datasets import load_diabetes
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.model_selection import train_test_split

SEED = 20


@dataclass(frozen=True)
class Trained:
    """A trained model, its file, and what it says of the rows that it has not seen."""

    name: str
    estimator: str
    path: Path
    r2: float
    predictions: Sequence[float]


@dataclass(frozen=True)
class Training:
    """The models, and the rows kept apart for scoring (shape: rows × 10 features)."""

    models: tuple[Trained, ...]
    rows: list[list[float]]


def train(directory: Path) -> Training:
    """Fits both models and writes `<directory>/<name>/model.joblib`."""
    features, target = load_diabetes(return_X_y=True)
    seen, unseen, wanted, held = train_test_split(features, target, test_size=0.25, random_state=SEED)
    estimators = {
        "ridge": Ridge(alpha=0.1),
        "boosted": HistGradientBoostingRegressor(max_iter=60, learning_rate=0.08, random_state=SEED),
    }
    models = []
    for name, estimator in estimators.items():
        estimator.fit(seen, wanted)
        path = directory / name / "model.joblib"
        path.parent.mkdir(parents=True, exist_ok=True)
        joblib.dump(estimator, path)
        models.append(
            Trained(
                name,
                f"sklearn.{type(estimator).__module__.split('.')[1]}.{type(estimator).__name__}",
                path,
                float(estimator.score(unseen, held)),
                [float(value) for value in estimator.predict(unseen)],
            )
        )
    return Training(tuple(models), [[float(value) for value in row] for row in unseen])


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent / "models"
    for model in train(where).models:
        print(f"{model.name}: {model.estimator}, R² {model.r2:.3f} on rows not seen → {model.path}")
