"""Which models are meant. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.api.status import ModelRecord


@dataclass(frozen=True)
class Filter:
    """All that is given must hold."""

    name: str | None = None
    tags: tuple[str, ...] = ()
    """`TagName=TagValue` without spaces around it, or `TagName` for any value."""
    properties: tuple[str, ...] = ()
    framework: str | None = None
    run_id: str | None = None
    dataset: str | None = None
    latest: bool = False
    """Only the newest version of each name; the other conditions are asked of it."""


def matching(records: Iterable[ModelRecord], wanted: Filter) -> list[ModelRecord]:
    """Those that are meant, by name and version. Raises InvalidInput for a filter that means nothing."""
    for text in (*wanted.tags, *wanted.properties):
        if not text.partition("=")[0] or text != text.strip():
            raise InvalidInput(f"{text!r} is not a filter; write TagName=TagValue or TagName")
    found = sorted(records, key=lambda record: (record.name, record.version))
    if wanted.latest:
        newest = {record.name: record for record in found}
        found = [record for record in found if newest[record.name] is record]
    return [record for record in found if _matches(record, wanted)]


def _matches(record: ModelRecord, wanted: Filter) -> bool:
    return (
        wanted.name in (None, record.name)
        and wanted.framework in (None, record.framework)
        and wanted.run_id in (None, record.run_id)
        and (wanted.dataset is None or any(one.dataset == wanted.dataset for one in record.datasets))
        and all(_has(record.tags, text) for text in wanted.tags)
        and all(_has(record.properties, text) for text in wanted.properties)
    )


def _has(labels: dict[str, str], text: str) -> bool:
    key, given, value = text.partition("=")
    return key in labels and (not given or labels[key] == value)
