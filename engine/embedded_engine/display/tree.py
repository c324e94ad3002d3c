"""The resources of a run as a tree, one line each."""

import dataclasses
from collections.abc import Iterable, Sequence

from embedded_engine.display.diff import changes_of
from embedded_engine.display.words import paint, short_type, words_of
from embedded_engine.events import STACK_TYPE, StepMetadata
from embedded_engine.model import urn_name

_MOST_DIFFS = 6
_CHANGE_SIGNS = {"add": "+", "delete": "-", "update": "~"}


@dataclasses.dataclass
class Row:
    """A resource in the course of a run. `state`: planned, running, done, failed or unfinished; times in seconds."""

    urn: str
    type: str
    parent: str
    op: str
    metadata: StepMetadata | None = None
    state: str = "planned"
    began: float | None = None
    ended: float = 0.0
    errors: int = 0
    warnings: int = 0
    note: str = ""

    @property
    def changes_something(self) -> bool:
        return self.op not in ("same", "refresh") or self.state == "failed"

    def status(self, preview: bool, now: float) -> str:
        words = words_of(self.op)
        if self.op == "same":
            return ""
        if self.state == "failed":
            return f"**{words.failed}**"
        if preview:
            return words.plan
        began = now if self.began is None else self.began
        if self.state == "done":
            return f"{words.done} ({seconds(max(self.ended - began, 0.0))})"
        if self.state == "unfinished":
            return f"{words.doing}, not finished"
        return f"{words.doing} ({now - began:.0f}s)" if self.state == "running" else words.plan

    def info(self) -> str:
        parts = []
        if self.metadata is not None and self.op in ("update", "replace", "refresh"):
            tops: dict[str, str] = {}
            for change in changes_of(self.metadata):
                top = str(change.path[0])
                sign = _CHANGE_SIGNS.get(change.kind, "~") if len(change.path) == 1 else "~"
                tops[top] = sign if tops.get(top, sign) == sign else "~"
            shown = [f"{sign}{top}" for top, sign in tops.items()]
            if len(shown) > _MOST_DIFFS:
                shown = [*shown[:_MOST_DIFFS], f"{len(shown) - _MOST_DIFFS} more"]
            if shown:
                parts.append(f"[diff: {','.join(shown)}]")
        if self.errors:
            parts.append(f"{self.errors} error{'s' if self.errors > 1 else ''}")
        if self.warnings:
            parts.append(f"{self.warnings} warning{'s' if self.warnings > 1 else ''}")
        if self.note:
            parts.append(self.note)
        return "; ".join(parts)


def visible(rows: Iterable[Row]) -> list[Row]:
    """The rows that change something or have something to say, and what they hang on."""
    rows = list(rows)
    by_urn = {row.urn: row for row in rows}
    wanted: set[str] = set()
    for row in rows:
        if not (row.changes_something or row.errors or row.warnings or row.type == STACK_TYPE):
            continue
        current: Row | None = row
        while current is not None and current.urn not in wanted:
            wanted.add(current.urn)
            current = by_urn.get(current.parent)
    return [row for row in rows if row.urn in wanted]


def tree_lines(rows: Sequence[Row], preview: bool, now: float, color: bool) -> list[str]:
    """The table: sign, tree of types, name, plan or status, what else there is to say. `now` in seconds."""
    ordered = list(in_order(rows))
    if not ordered:
        return []
    header = ("", "Type", "Name", "Plan" if preview else "Status", "Info")
    cells = [
        (words_of(row.op).sign, f"{stem}{short_type(row.urn)}", urn_name(row.urn), row.status(preview, now), row.info())
        for stem, row in ordered
    ]
    widths = [max(len(line[i]) for line in (header, *cells)) for i in range(4)]
    widths[0] = 2
    lines = [paint(_line(header, widths), "bold", color)]
    for (_, row), line in zip(ordered, cells, strict=True):
        hue = "red" if row.state == "failed" else words_of(row.op).color
        lines.append(_line((paint(line[0].ljust(2), hue, color), *line[1:3], line[3], line[4]), widths, hue, color))
    return lines


def _line(cells: Sequence[str], widths: Sequence[int], hue: str = "plain", color: bool = False) -> str:
    sign, kind, name, status, info = cells
    sign = sign if color and sign.startswith("\x1b") else sign.ljust(widths[0])
    status = paint(status.ljust(widths[3]) if info else status, hue, color)
    return f" {sign}  {kind.ljust(widths[1])}  {name.ljust(widths[2])}  {status}  {info}".rstrip()


def in_order(rows: Sequence[Row]) -> Iterable[tuple[str, Row]]:
    """Each row with the stem that stands before it, children after their parents."""
    known = {row.urn for row in rows}
    children: dict[str, list[Row]] = {}
    for row in rows:
        children.setdefault(row.parent if row.parent in known and row.parent != row.urn else "", []).append(row)

    def below(urn: str, stem: str) -> Iterable[tuple[str, Row]]:
        siblings = children.get(urn, [])
        for index, row in enumerate(siblings):
            last = index == len(siblings) - 1
            yield stem + ("└─ " if last else "├─ "), row
            yield from below(row.urn, stem + ("   " if last else "│  "))

    for root in children.get("", []):
        yield "", root
        yield from below(root.urn, "")


def seconds(duration: float) -> str:
    if duration < 10:
        return f"{duration:.2f}s"
    minutes, rest = divmod(int(duration + 0.5), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
