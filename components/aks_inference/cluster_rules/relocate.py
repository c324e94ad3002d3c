"""From the paths of the rules to those that the user wrote.

The rules name the grouped form (`network.service_cidr`); Azure ML's flat arguments say the same in other places.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from aks_inference.cluster_rules.rulebook import RuleFinding
from aks_inference.findings import Path


def relocate(findings: Iterable[RuleFinding], places: Mapping[Path, Path]) -> Iterator[RuleFinding]:
    """Each finding under the longest of the given paths that begins its own."""
    for finding in findings:
        starts = [start for start in places if finding.path[: len(start)] == start]
        if starts:
            start = max(starts, key=len)
            yield replace(finding, path=places[start] + finding.path[len(start) :])
        else:
            yield finding
