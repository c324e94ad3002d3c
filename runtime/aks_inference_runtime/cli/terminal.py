"""The terminal of a person."""

from rich.console import Console


def console() -> Console:
    """For tables and texts that others wrote: brackets in a name are no style, and `:x:` in one is no picture."""
    return Console(highlight=False, markup=False, emoji=False)
