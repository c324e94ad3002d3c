"""Columns of text."""

from collections.abc import Sequence

import click


def print_table(rows: Sequence[Sequence[str]], indent: str = "") -> None:
    """Prints rows of equally many cells, each column as wide as its widest cell."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        click.echo((indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip())
