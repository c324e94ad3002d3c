"""Whom a gate tells of its requests: lines of the access log, spans, figures. Can be changed while it serves."""

import asyncio
import json
import random
from datetime import UTC, datetime

from aks_inference_runtime.router.gate.lines import Lines
from aks_inference_runtime.router.gate.settings import GateFigures, GateSettings, Reported
from aks_inference_runtime.router.gate.telemetry import Telemetry
from aks_inference_runtime.router.gate.tracing import Tracer

STANDARD_OUTPUT = 1


class Reporting:
    """Of one gate. Until `report` nobody is told anything."""

    def __init__(self, settings: GateSettings) -> None:
        self._labels = {
            "endpoint": settings.endpoint,
            "version": settings.version,
            "replica": settings.replica_id,
        }
        self.telemetry = Telemetry(self._labels)
        self._reported = Reported()
        self._lines: Lines | None = None
        self._sending: set[asyncio.Task[None]] = set()

    def report(self, wanted: Reported) -> None:
        """From now on this is told, and nothing else."""
        before, self._reported = self._reported, wanted
        if wanted.access_log and self._lines is None:
            self._lines = Lines(STANDARD_OUTPUT, self._lost)
        log = self._lines.put if wanted.access_log and self._lines is not None else None
        tracer = self.telemetry.tracer
        if (wanted.otlp_endpoint, wanted.trace_ratio) != (before.otlp_endpoint, before.trace_ratio):
            # The one before sends what it has, and ends.
            for task in self._sending:
                task.cancel()
            tracer = self._tracer(wanted)
        self.telemetry.tell(log, tracer)

    def figures(self) -> GateFigures:
        """Totals since it began."""
        return self.telemetry.figures(0 if self._lines is None else self._lines.dropped)

    async def close(self) -> None:
        """What is kept is sent and written, as far as anybody takes it in time."""
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        if self._lines is not None:
            await asyncio.to_thread(self._lines.close)

    def _tracer(self, wanted: Reported) -> Tracer | None:
        if wanted.otlp_endpoint is None:
            return None
        labels = {f"aks_inference.{name}": value for name, value in self._labels.items()}
        tracer = Tracer(wanted.otlp_endpoint, labels, wanted.trace_ratio, random.Random())  # noqa: S311 - no secret
        task = asyncio.create_task(tracer.send(), name="traces")
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        return tracer

    def _lost(self, count: int) -> str:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        return json.dumps({**self._labels, "time": at, "lines_lost": count})
