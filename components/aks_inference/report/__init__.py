"""A preview in the order in which a reviewer wants it: `aks-inference report --preview preview.json`."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from aks_inference.report.digest import Change, NotAPreview, changes_of
from aks_inference.report.effects import Report, report_of
from aks_inference.report.markdown import markdown
from aks_inference.report.quota import NotAUsage, Usage, usages_of

__all__ = ["Change", "NotAPreview", "NotAUsage", "Report", "Usage", "markdown", "report", "usages_of"]


def report(preview: Mapping[str, Any], today: date, usages: Sequence[Usage] = ()) -> Report:
    """The report of `pulumi preview --json`, against Azure's usage of the region. Raises NotAPreview."""
    return report_of(changes_of(preview), preview, today, usages)
