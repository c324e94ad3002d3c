"""The report as Markdown, for a comment on a pull request."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from aks_inference.cluster_rules.cost import NOT_COUNTED
from aks_inference.report.digest import Change
from aks_inference.report.effects import Report

LONGEST = 60_000
"""Characters: a comment on GitHub holds 65,536."""
_WORDS = {"create": "to create", "update": "to update", "replace": "to replace", "delete": "to delete"}


def markdown(report: Report) -> str:
    """Summary first; what does not fit is cut out of the differences at the end, never out of the summary."""
    summary = "\n".join(_summary(report))
    details = _details(report, LONGEST - len(summary))
    return f"{summary}\n{details}" if details else summary


def _summary(report: Report) -> Iterator[str]:
    counts = [f"{report.counts[op]} {word}" for op, word in _WORDS.items() if report.counts.get(op)]
    same = report.counts.get("same", 0)
    yield f"### {', '.join(counts) or 'No change'}{f' ({same} unchanged)' if same else ''}"
    yield ""
    for op, changes in (("Replaced", report.replaced()), ("Deleted", report.deleted())):
        if changes:
            yield f"**{op}:** {', '.join(change.title for change in changes)}"
            yield ""
    for change in report.replaced():
        if change.reasons:
            yield f"- {change.title} is replaced because of {', '.join(f'`{reason}`' for reason in change.reasons)}"
    if report.replaced():
        yield ""
    yield from _serving(report)
    yield from _capacity(report)
    yield from _costs(report)
    if report.diagnostics:
        yield "#### Checks"
        yield ""
        yield from (f"- **{severity}** {_cell(text)}" for severity, text in report.diagnostics)
        yield ""
    if report.unknown:
        yield f"#### Known only when applied ({len(report.unknown)})"
        yield ""
        yield from (f"- {line}" for line in report.unknown[:20])
        if len(report.unknown) > 20:
            yield f"- and {len(report.unknown) - 20} more"
        yield ""


def _serving(report: Report) -> Iterator[str]:
    rows = [
        (endpoint.name, one.name, _shown(one.traffic, " %"), _shown(one.replicas))
        for endpoint in report.endpoints
        for one in endpoint.versions
    ]
    if rows:
        yield from _table("What is served", ("endpoint", "version", "traffic", "replicas"), rows)


def _capacity(report: Report) -> Iterator[str]:
    rows = [(one.cluster, one.name, _shown(one.nodes), _shown(one.vcpus), _shown(one.gpus)) for one in report.pools]
    if rows:
        yield from _table("Capacity", ("cluster", "pool", "nodes", "vCPU at most", "GPU at most"), rows)
    quotas = [
        (one.label, str(one.in_use), f"+{one.further}", str(one.limit), _verdict(one.missing)) for one in report.quotas
    ]
    if quotas:
        yield from _table("Quota of vCPU", ("quota", "in use", "this change at most", "limit", ""), quotas)
    yield from (f"- {line}" for line in report.fit)
    if report.fit:
        yield ""


def _verdict(missing: int) -> str:
    return f"**{missing} missing**: ask Azure for more first, or the pool does not grow" if missing else "fits"


def _costs(report: Report) -> Iterator[str]:
    rows = [(one.cluster, one.before or "–", one.after or "–", one.change or "–") for one in report.costs]
    if rows:
        yield from _table("Cost a month", ("cluster", "before", "after", "difference"), rows)
        yield f"Nodes and tier only, by the price list of {report.price_date}; {NOT_COUNTED}."
        yield ""


def _table(title: str, head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    yield f"#### {title}"
    yield ""
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    yield from (f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows)
    yield ""


def _shown(both: tuple[Any, Any], unit: str = "") -> str:
    before, after = (
        "–" if one is None else f"{one:g}{unit}" if isinstance(one, float) else f"{one}{unit}" for one in both
    )
    return after if before == after else f"{before} → {after}"


def _details(report: Report, room: int) -> str:
    if not report.changes:
        return ""
    head, foot = "<details><summary>All differences</summary>\n\n```diff\n", "\n```\n\n</details>\n"
    lines = [line for change in report.changes for line in _difference(change)]
    text: list[str] = []
    left = room - len(head) - len(foot) - 80
    for line in lines:
        left -= len(line) + 1
        if left < 0:
            text.append(f"… {len(lines) - len(text)} lines more: see the preview itself")
            break
        text.append(line)
    return head + "\n".join(text) + foot


def _difference(change: Change) -> Iterator[str]:
    sign = {"create": "+", "delete": "-"}.get(change.op, "!")
    yield f"{sign} {change.op} {change.type} {change.name}"
    if change.op == "create":
        return
    for key in dict.fromkeys([*change.old, *change.new]):
        before, after = change.old.get(key), change.new.get(key)
        if before != after:
            if before is not None:
                yield f"-   {key}: {_value(before)}"
            if after is not None:
                yield f"+   {key}: {_value(after)}"


def _value(value: object) -> str:
    if isinstance(value, dict) and any(len(key) == 32 for key in value):
        return "(secret)"
    text = json.dumps(value, ensure_ascii=False, sort_keys=True).replace("```", "'''")
    return text if len(text) <= 400 else f"{text[:399]}…"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
