"""What a run looks like to a person."""

from embedded_engine.display.report import Display, summary_lines

__all__ = ["Display", "summary_lines"]
