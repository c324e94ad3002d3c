"""A preview in the order in which a reviewer wants it: `aks-inference report --preview preview.json`."""

from collections.abc import Mapping
from datetime import date
from typing import Any

from aks_inference.report.digest import Change, NotAPreview, changes_of
from aks_inference.report.effects import Report, report_of
from aks_inference.report.markdown import markdown

__all__ = ["Change", "NotAPreview", "Report", "markdown", "report"]


def report(preview: Mapping[str, Any], today: date) -> Report:
    """The report of `pulumi preview --json`. Raises NotAPreview."""
    return report_of(changes_of(preview), preview, today)
