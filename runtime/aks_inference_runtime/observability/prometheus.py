"""Prometheus' text format. Pure."""

from collections.abc import Iterable, Mapping, Sequence

Labels = Mapping[str, str]
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "aks_inference"
"""Of all names."""


def family(name: str, kind: str, text: str, samples: Iterable[tuple[Labels, float]]) -> str:
    """One metric with all its samples; nothing without samples."""
    lines = [f"{name}{_labels(labels)} {_number(value)}" for labels, value in samples]
    return "\n".join([f"# HELP {name} {text}", f"# TYPE {name} {kind}", *lines, ""]) if lines else ""


def histogram(
    name: str, text: str, bounds: Sequence[float], samples: Iterable[tuple[Labels, Sequence[int], float]]
) -> str:
    """One histogram with all its samples; nothing without samples.

    `samples`: labels, counts by bucket (one more than there are bounds, not yet summed up) and the sum of what was
    observed.
    """
    lines = []
    for labels, counts, total in samples:
        below = 0
        for bound, count in zip([*map(str, bounds), "+Inf"], counts, strict=True):
            below += count
            lines.append(f"{name}_bucket{_labels({**labels, 'le': bound})} {below}")
        lines += [f"{name}_sum{_labels(labels)} {_number(total)}", f"{name}_count{_labels(labels)} {below}"]
    return "\n".join([f"# HELP {name} {text}", f"# TYPE {name} histogram", *lines, ""]) if lines else ""


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
