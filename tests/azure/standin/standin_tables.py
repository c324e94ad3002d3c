"""Rows of Azure's tables, each file read once."""

import csv
from collections.abc import Mapping
from pathlib import Path

_TABLES: dict[Path, list[dict[str, str]]] = {}


def table(path: Path) -> list[dict[str, str]]:
    if path not in _TABLES:
        with path.open(newline="") as handle:
            _TABLES[path] = list(csv.DictReader(handle))
    return _TABLES[path]


def named(row: Mapping[str, str], part: str) -> str:
    return next(name for name in row if part in name.lower())
