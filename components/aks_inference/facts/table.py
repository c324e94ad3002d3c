"""Reading one compiled table."""

import json
from dataclasses import dataclass
from datetime import date
from importlib import resources
from typing import Any


@dataclass(frozen=True)
class Table:
    """A compiled file."""

    source: str
    date: date
    """The day that the facts are of."""
    columns: tuple[str, ...]
    records: tuple[tuple[Any, ...], ...]


def read(name: str) -> Table:
    """The table in `data/<name>`."""
    text = (resources.files(__package__) / "data" / name).read_text(encoding="utf-8")
    document = json.loads(text)
    return Table(
        source=document["source"],
        date=date.fromisoformat(document["date"]),
        columns=tuple(document["columns"]),
        records=tuple(tuple(record) for record in document["records"]),
    )
