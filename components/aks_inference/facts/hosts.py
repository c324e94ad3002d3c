"""Hosts that Microsoft's pages say a cluster must reach."""

from dataclasses import dataclass
from functools import cache

from aks_inference.facts.table import read


@dataclass(frozen=True)
class HostRow:
    """One host of the tables; `<region>`, `<acr>` and the like stand for the stack's own names."""

    cloud: str
    scope: str
    """What needs it: `aks-core`, `gpu`, `azure-policy`, `defender` …"""
    host: str
    protocol: str
    port: int
    use: str
    source: str


@cache
def host_rows() -> tuple[HostRow, ...]:
    """All rows."""
    return tuple(HostRow(*record) for record in read("hosts.json").records)
