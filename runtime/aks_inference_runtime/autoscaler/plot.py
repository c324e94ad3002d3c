"""The outcome of a simulation as a picture: SVG for a file, characters for a terminal. Pure."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from aks_inference_runtime.autoscaler.simulate import Outcome, Second

WIDTH, HEIGHT, MARGIN = 900, 150, 50
_BARS = " ▁▂▃▄▅▆▇█"

Series = tuple[str, str, Callable[[Second], float]]
SERIES: tuple[Series, ...] = (
    ("requests/s", "#4c78a8", lambda second: second.requests),
    ("replicas wanted", "#f58518", lambda second: second.wanted),
    ("replicas ready", "#54a24b", lambda second: second.ready),
    ("utilization %", "#72b7b2", lambda second: second.utilization),
    ("rejected/s", "#e45756", lambda second: second.rejected),
)
COST: Series = ("cost", "#b279a2", lambda second: second.cost)
"""Where a price was given."""
_CHARTS = (("requests/s", "rejected/s"), ("replicas wanted", "replicas ready"), ("utilization %",), ("cost",))


def text(outcome: Outcome, width: int = 72) -> str:
    """A line of bars for each figure, the highest of each column."""
    names = max(len(name) for name, _, _ in SERIES)
    lines = []
    for name, _, value in _series(outcome):
        values = _columns([value(second) for second in outcome.seconds], width)
        top = max(values, default=0.0)
        bars = "".join(_BARS[round(v / top * (len(_BARS) - 1))] if top else _BARS[0] for v in values)
        lines.append(f"{name:>{names}} │{bars}│ at most {top:g}")
    return "\n".join(lines)


def svg(outcome: Outcome, title: str) -> str:
    """Charts one below the other, over the same time."""
    series = _series(outcome)
    charts = [drawn for names in _CHARTS if (drawn := [one for one in series if one[0] in names])]
    height = (HEIGHT + MARGIN) * len(charts) + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + 2 * MARGIN} {height}"'
        ' font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{MARGIN}" y="24" font-size="15">{_escaped(title)}</text>',
    ]
    for number, drawn in enumerate(charts):
        parts += _chart(outcome.seconds, drawn, MARGIN + number * (HEIGHT + MARGIN))
    return "\n".join([*parts, "</svg>", ""])


def _series(outcome: Outcome) -> tuple[Series, ...]:
    return (*SERIES, COST) if outcome.cost else SERIES


def _chart(seconds: Sequence[Second], series: Sequence[Series], top: int) -> list[str]:
    highest = max((value(second) for _, _, value in series for second in seconds), default=0.0) or 1.0
    last = seconds[-1].at if seconds else 1
    bottom = top + HEIGHT
    parts = [
        f'<path d="M{MARGIN} {top}V{bottom}H{MARGIN + WIDTH}" fill="none" stroke="#888"/>',
        f'<text x="{MARGIN - 6}" y="{top + 10}" text-anchor="end">{highest:g}</text>',
        f'<text x="{MARGIN - 6}" y="{bottom}" text-anchor="end">0</text>',
        f'<text x="{MARGIN + WIDTH}" y="{bottom + 16}" text-anchor="end">{last} s</text>',
    ]
    for place, (name, colour, value) in enumerate(series):
        steps = []
        for second in seconds:
            x = MARGIN + WIDTH * second.at / last
            y = bottom - HEIGHT * value(second) / highest
            steps.append(f"{x:.1f},{y:.1f}")
        parts.append(f'<polyline points="{" ".join(steps)}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(f'<text x="{MARGIN + 10 + place * 160}" y="{bottom + 16}" fill="{colour}">{name}</text>')
    return parts


def _columns(values: Sequence[float], width: int) -> list[float]:
    if len(values) <= width:
        return list(values)
    edges = [round(index * len(values) / width) for index in range(width + 1)]
    return [max(values[begin:end]) for begin, end in pairwise(edges)]


def _escaped(value: str) -> str:
    return value.replace("&", "&amp;").replace("<", "&lt;")
