"""What a person sees of a run: progress while it goes on, then the tree, the changes, the messages and the sums."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Set

from embedded_engine.display.details import full_step, output_lines, short_changes
from embedded_engine.display.live import LiveArea
from embedded_engine.display.statuses import Later, Statuses, after
from embedded_engine.display.tree import Row, in_order, seconds, tree_lines, visible
from embedded_engine.display.words import COUNTED, HALVES, label, paint, safe, short_type, words_of
from embedded_engine.events import (
    STACK_TYPE,
    Diagnostic,
    Event,
    ResourceFailed,
    ResourceOutputs,
    ResourcePre,
    StepMetadata,
    Summary,
)
from embedded_engine.model import Json, urn_name
from embedded_engine.values import unwrap

_TITLES = {
    ("up", True): "Previewing update",
    ("refresh", True): "Previewing refresh",
    ("destroy", True): "Previewing destroy",
    ("up", False): "Updating",
    ("refresh", False): "Refreshing",
    ("destroy", False): "Destroying",
}
_SHOWN_SEVERITIES = ("info", "info#err", "warning", "error")
_NOTE_WIDTH = 60


class Display:
    """Takes the events of one run (it is a `Sink`, from any thread) and writes text for people.

    `write` takes text and shows it at once.
    `kind`: up, refresh or destroy. `diff`: every step with its properties, in place of the tree. `live`: draw the tree
    again and again, which only a terminal understands. `show_secrets`: of the stack, its outputs only. `shown`: the
    `notes` of the preview before this run; of resources that stay as they are they are not told again.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        kind: str,
        stack: str,
        preview: bool,
        *,
        diff: bool = False,
        color: bool = False,
        live: bool = False,
        show_secrets: bool = False,
        shown: Set[Diagnostic] = frozenset(),
        clock: Callable[[], float] = time.monotonic,
        later: Later = after,
    ) -> None:
        self._put = write
        self._kind, self._preview, self._diff, self._color = kind, preview, diff, color
        self._show_secrets, self._shown = show_secrets, shown
        self._clock, self._later = clock, later
        self._statuses = Statuses()
        self._rows: dict[str, Row] = {}
        self._starts: dict[tuple[str, str], float] = {}
        self._messages: dict[str, list[Diagnostic]] = {}
        self._outputs: tuple[Json, Json] | None = None
        self._lock = threading.Lock()
        self._write(paint(f"{_TITLES[kind, preview]} ({stack}):", "bold", color))
        self._live = LiveArea(write, self._frame) if live else None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Summary):
            # Before the lock is taken: the drawing takes it too.
            self.close()
        with self._lock:
            match event:
                case ResourcePre(metadata=metadata):
                    self._began(metadata)
                case ResourceOutputs(metadata=metadata):
                    self._ended(metadata, "done")
                case ResourceFailed(metadata=metadata):
                    self._ended(metadata, "failed")
                case Diagnostic():
                    self._said(event)
                case Summary():
                    self._finish(event)
                case _:
                    pass

    def close(self) -> None:
        """Gives the terminal back; for the ways out on which no summary comes."""
        if self._live is not None:
            self._live.close()

    def change_lines(self) -> list[str]:
        """Every step of the run with its properties, as `--diff` shows them."""
        lines: list[str] = []
        for _, row in in_order(visible(self._rows.values())):
            if row.metadata is not None:
                lines += full_step(row.metadata, self._depth(row), self._color)
        return lines

    def notes(self) -> Set[Diagnostic]:
        """What was told for information about one resource or another."""
        return {m for urn, said in self._messages.items() if urn for m in said if m.severity == "info"}

    # events

    def _began(self, metadata: StepMetadata) -> None:
        row, now = self._row(metadata), self._clock()
        self._starts[metadata.urn, metadata.op] = now
        if not _half_of(row, metadata.op):
            row.state, row.began = "running", now if row.began is None else row.began
        self._progress(metadata, words_of(metadata.op).doing)

    def _ended(self, metadata: StepMetadata, state: str) -> None:
        begun = self._rows.get(metadata.urn)
        # The event of a failure has what is there now, which is the old: the row tells what was wanted.
        kept = begun if begun is not None and state == "failed" and begun.op == metadata.op else None
        row, now = kept or self._row(metadata), self._clock()
        self._statuses.ended(metadata.urn)
        row.ended = now
        if state == "failed" or not _half_of(row, metadata.op):
            row.state = state
        if metadata.type == STACK_TYPE and metadata.new is not None:
            old = metadata.old.outputs if metadata.old is not None else {}
            self._outputs = (old, metadata.new.outputs)
        words = words_of(metadata.op)
        if state == "failed":
            self._progress(metadata, words.failed)
        elif words.done:
            took = now - self._starts.get((metadata.urn, metadata.op), now)
            self._progress(metadata, f"{words.done} ({seconds(took)})")

    def _said(self, message: Diagnostic) -> None:
        if message.at_once:
            (self._live.above if self._live is not None else self._put)("\n".join(self._message(message)) + "\n")
            return
        if message.aftermath and any(m.severity == "error" for said in self._messages.values() for m in said):
            return
        row = self._rows.get(message.urn)
        if row is not None:
            first = next((line for line in safe(message.message).splitlines() if line.strip()), "")
            if message.severity == "info" or message.ephemeral:
                row.note = first[:_NOTE_WIDTH]
            if message.ephemeral and first and row.metadata is not None and row.state == "running":
                self._status(row.metadata, first)
            row.errors += message.severity == "error"
            row.warnings += message.severity == "warning"
        if not message.ephemeral and message.severity in _SHOWN_SEVERITIES and message.message.strip():
            self._messages.setdefault(message.urn, []).append(message)

    def _row(self, metadata: StepMetadata) -> Row:
        row = self._rows.get(metadata.urn)
        state = metadata.new or metadata.old
        if row is None:
            parent = state.parent if state is not None else ""
            row = self._rows[metadata.urn] = Row(metadata.urn, metadata.type, parent, metadata.op, metadata)
        elif not _half_of(row, metadata.op):
            # A refresh is told by what it found; of the rest the last one counts.
            if row.op == "refresh" and metadata.op not in ("same", "update", "delete"):
                row.began = None
            row.op, row.metadata = metadata.op, metadata
        return row

    # text

    def _progress(self, metadata: StepMetadata, text: str) -> None:
        """One line at once, where the tree is not drawn while the run goes on."""
        if self._live is not None or self._preview or metadata.op in ("same", "refresh") or not text:
            return
        words = words_of(metadata.op)
        line = f" {words.sign.ljust(2)}  {short_type(metadata.urn)} {urn_name(metadata.urn)} {text}"
        self._write(paint(line, words.color, self._color))

    def _status(self, metadata: StepMetadata, text: str) -> None:
        if self._live is not None or self._preview:
            return
        wait = self._statuses.said(metadata.urn, text, self._clock())
        if wait == 0:
            self._progress(metadata, f"{words_of(metadata.op).doing}: {text}")
        elif wait is not None:
            self._later(wait, lambda: self._held_status(metadata))

    def _held_status(self, metadata: StepMetadata) -> None:
        with self._lock:
            text = self._statuses.due(metadata.urn, self._clock())
            if text is not None:
                self._progress(metadata, f"{words_of(metadata.op).doing}: {text}")

    def _frame(self, room: int) -> list[str]:
        with self._lock:
            rows = visible(self._rows.values())
            lines = tree_lines(rows, self._preview, self._clock(), self._color)
            if len(lines) > room:
                running = [row for row in rows if row.state != "done"]
                lines = tree_lines(running, self._preview, self._clock(), self._color)
            return lines

    def _finish(self, summary: Summary) -> None:
        for row in self._rows.values():
            self._statuses.ended(row.urn)
            if row.state == "running":
                row.state = "unfinished"
            # It stands among the messages.
            row.note = ""
        rows = visible(self._rows.values())
        parts = [self.change_lines() if self._diff else tree_lines(rows, self._preview, self._clock(), self._color)]
        parts.append([] if self._diff else self._changes(rows))
        parts.append(self._diagnostics())
        parts.append(self._output_part(summary))
        parts.append(self._sums(summary))
        if not self._preview:
            parts.append([f"Duration: {seconds(summary.duration_s)}"])
        for part in parts:
            if part:
                self._write("\n".join(part) + "\n")

    def _sums(self, summary: Summary) -> list[str]:
        failed = [row for row in self._rows.values() if row.state == "failed"]
        above = {urn for row in failed for urn in self._above(row) if self._rows[urn].op == "same"}
        changes = dict(summary.changes)
        # A component has not changed itself, but it is not what it should be, either. A resource of a provider is.
        above = {urn for urn in above if not _custom(self._rows[urn])}
        changes["same"] = max(changes.get("same", 0) - len(above), 0)
        return summary_lines(changes, self._preview, self._color, len(failed))

    def _above(self, row: Row) -> Iterator[str]:
        while (parent := self._rows.get(row.parent)) is not None and row.type != STACK_TYPE:
            yield parent.urn
            row = parent

    def _changes(self, rows: list[Row]) -> list[str]:
        lines: list[str] = []
        for row in rows:
            if row.metadata is not None and row.op in ("update", "replace", "refresh"):
                lines += short_changes(row.metadata, self._color)
        return [paint("Changes:", "bold", self._color), *lines] if lines else []

    def _diagnostics(self) -> list[str]:
        stack = next((row.urn for row in self._rows.values() if row.type == STACK_TYPE), "")
        groups: dict[str, list[Diagnostic]] = {}
        # What belongs to no resource is the stack's; it sums up what went before.
        for urn in [*filter(None, self._messages), ""]:
            row = self._rows.get(urn)
            told = self._shown if row is not None and row.op == "same" else ()
            groups.setdefault(urn or stack, []).extend(m for m in self._messages.get(urn, []) if m not in told)
        lines: list[str] = []
        for urn, messages in groups.items():
            if messages:
                lines.append("  " + paint(f"{label(urn) if urn else 'engine'}:", "bold", self._color))
            for message in messages:
                lines += self._message(message)
        return [paint("Diagnostics:", "bold", self._color), *lines] if lines else []

    def _message(self, message: Diagnostic) -> list[str]:
        hue = {"error": "red", "warning": "yellow"}.get(message.severity, "plain")
        first, *rest = safe(message.prefix + message.message).rstrip("\n").split("\n")
        return ["    " + paint(first, hue, self._color), *(f"    {line}".rstrip() for line in rest)]

    def _output_part(self, summary: Summary) -> list[str]:
        if self._outputs is None or not summary.succeeded or self._kind == "refresh":
            return []
        old, new = map(unwrap, self._outputs) if self._show_secrets else self._outputs
        lines = output_lines(old, new, self._color)
        return [paint("Outputs:", "bold", self._color), *lines] if lines else []

    def _depth(self, row: Row) -> int:
        return sum(1 for _ in self._above(row))

    def _write(self, text: str) -> None:
        self._put(text + "\n")


def _custom(row: Row) -> bool:
    """Whether a provider has it: a component, as the stack is one, is no more than what is in it."""
    state = (row.metadata.new or row.metadata.old) if row.metadata is not None else None
    return state is not None and state.custom


def _half_of(row: Row, op: str) -> bool:
    """Whether the operation is a part of the replacement that the row tells."""
    return row.op == "replace" and op in HALVES


def summary_lines(changes: Mapping[str, int], preview: bool, color: bool, failed: int = 0) -> list[str]:
    """The numbers of resources by operation: `+ 3 to create`, or `+ 3 created`; `failed` are in none of them."""
    lines = [paint("Resources:", "bold", color)]
    total = 0
    for op in COUNTED:
        if count := changes.get(op, 0):
            words = words_of(op)
            total += count
            lines.append(
                "    " + paint(f"{words.sign} {count} {words.counted[0 if preview else 1]}", words.color, color)
            )
    operations = len(lines) - 1
    if failed:
        lines.append("    " + paint(f"! {failed} failed", "red", color))
    same = changes.get("same", 0)
    if total and (same or operations > 1):
        lines.append(f"    {total} change{'s' if total > 1 else ''}" + (f". {same} unchanged" if same else ""))
    elif same:
        lines.append(f"    {same} unchanged")
    return lines if len(lines) > 1 else []
