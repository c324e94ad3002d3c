"""How the story is told: to a person as text, to a pipeline as one JSON object a step."""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console


class Step:
    """One step under way: what it says, and the figures that it ends with."""

    def __init__(self, console: Console, quiet: bool) -> None:
        self._console = console
        self._quiet = quiet
        self.figures: dict[str, Any] = {}

    def say(self, text: str) -> None:
        """A line for a person."""
        if not self._quiet:
            self._console.print(f"  {text}", markup=False, highlight=False, soft_wrap=True)

    def show(self, text: str) -> None:
        """Another program's output, set off from our own lines."""
        for line in text.rstrip().splitlines():
            if not self._quiet:
                self._console.print(f"  │ {line}", markup=False, highlight=False, soft_wrap=True)

    def result(self, **figures: Any) -> None:  # noqa: ANN401 - any JSON value
        """Figures of the step, for the JSON line."""
        self.figures.update(figures)


class Report:
    """Tells the steps in their order."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._console = Console(file=sys.stderr if as_json else sys.stdout)
        self._number = 0

    @contextmanager
    def step(self, name: str, title: str) -> Iterator[Step]:
        """Runs one step; a failure is told with the figures that it had, and goes on to the caller."""
        self._number += 1
        step = Step(self._console, self.as_json)
        if not self.as_json:
            style = None if "NO_COLOR" in os.environ else "bold"
            self._console.print(f"\n{self._number}. {title}", style=style, markup=False, highlight=False)
        begun = time.monotonic()
        ok = False
        try:
            yield step
            ok = True
        finally:
            seconds = round(time.monotonic() - begun, 1)
            if self.as_json:
                self.line({"step": self._number, "name": name, "ok": ok, "seconds": seconds, **step.figures})

    def line(self, content: Mapping[str, Any]) -> None:
        """One JSON line."""
        print(json.dumps(content), flush=True)

    def end(self, text: str) -> None:
        """The last word, for a person."""
        if not self.as_json:
            self._console.print(f"\n{text}", markup=False, highlight=False, soft_wrap=True)
