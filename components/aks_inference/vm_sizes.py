"""Azure's VM sizes, compiled into the package (tools/make_vm_sizes.py). A size that is missing is not an error.

What else is known of a size (its retirement) is in `aks_inference.facts.sizes`.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from aks_inference.findings import did_you_mean


@dataclass(frozen=True)
class VmSize:
    """What one node has."""

    name: str
    vcpus: int
    """As the kubelet gets them (constrained sizes: fewer than are billed)."""
    memory_gib: float
    gpus: int


@cache
def _table() -> tuple[str, dict[str, VmSize]]:
    raw = json.loads((files("aks_inference") / "vm_sizes.json").read_text("utf-8"))
    sizes = {name.lower(): VmSize(name, *row) for name, row in raw["sizes"].items()}
    return raw["date"], sizes


def table_date() -> str:
    """When the table was made."""
    return _table()[0]


def find_size(name: str) -> VmSize | None:
    """A size by its name; Azure does not tell letter case apart."""
    return _table()[1].get(name.lower())


def closest(name: str) -> str | None:
    """`did you mean …?` for a size that is not in the table; None where nothing is like it."""
    whole = find_size(f"Standard_{name}")
    if whole is not None:
        return f"did you mean `{whole.name}`?"
    text = did_you_mean(name, (size.name for size in _table()[1].values()))
    return text.replace("@", "") if text.startswith("did") else None
