"""Who is told what goes on in a local cluster: kept, changed while it runs, and carried out."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from aks_inference_runtime.api.errors import OperationFailed
from aks_inference_runtime.api.status import EndpointView
from aks_inference_runtime.api.supervisor import OBSERVING_FILE, Observing, ObservingRecord
from aks_inference_runtime.autoscaler.tally import Tally
from aks_inference_runtime.local.checks import require_free
from aks_inference_runtime.local.files import read_wire, write_text, write_wire
from aks_inference_runtime.local.metrics import MetricsSite, exposition
from aks_inference_runtime.local.records import TOLD_FILE, WEBHOOK_FILE
from aks_inference_runtime.local.replica import Replica
from aks_inference_runtime.local.telling import StateTeller
from aks_inference_runtime.router.gate.settings import Reported
from aks_inference_runtime.router.model import Router

LOOK_S = 0.5
"""Between two looks at the states, as in a cluster; nobody looks where there is no webhook."""
FIRST_LOOK_S = 2.0
"""By then replicas that a supervisor took over have been heard."""
_log = logging.getLogger(__name__)


class Observer:
    """Of one supervisor."""

    def __init__(
        self,
        root: Path,
        router: Router,
        views: Callable[[], list[EndpointView]],
        replicas: Callable[[], list[Replica]],
    ) -> None:
        """`root`: the state directory; `views`: of the endpoints that are not being deleted."""
        self.observing = Observing()
        self.tally = Tally()
        self._record, self._webhook = root / OBSERVING_FILE, root / WEBHOOK_FILE
        self._views = views
        self._site = MetricsSite(lambda: exposition(router, self.tally, replicas()))
        self._states = StateTeller(self._webhook, root / TOLD_FILE)
        self._changing = asyncio.Lock()
        self._problem = ""
        """Why there is no port for metrics."""

    def reported(self) -> Reported:
        """What gates tell of requests."""
        now = self.observing
        return Reported(access_log=now.access_log, otlp_endpoint=now.otlp_endpoint, trace_ratio=now.trace_ratio)

    def load(self) -> None:
        """As it was declared before. Raises InvalidInput for a damaged file."""
        if not self._record.exists():
            return
        found = read_wire(self._record, ObservingRecord).model_dump(exclude={"record_version"})
        if self._webhook.exists():
            found["state_webhook"] = self._webhook.read_text().strip() or None
        self.observing = Observing.model_validate(found)
        self._states.load()

    async def observe(self, wanted: Observing) -> None:
        """Declared anew. Raises Conflict for a port that somebody has, OperationFailed for a full disk."""
        async with self._changing:
            before = self.observing
            if wanted.metrics_port is not None and wanted.metrics_port != before.metrics_port:
                await asyncio.to_thread(require_free, wanted.metrics_port)
            if wanted != before:
                await asyncio.to_thread(self._write, wanted)
                self.observing = wanted
            if wanted.state_webhook is None:
                self._states.forget()
            elif before.state_webhook is None:
                await self._states.look(self._views())
            await self._serve()

    async def run(self) -> None:
        """Until cancelled."""
        async with self._changing:
            await self._serve()
        await asyncio.sleep(FIRST_LOOK_S)
        while True:
            try:
                async with self._changing:
                    await self._serve()
                    if self.observing.state_webhook is not None:
                        await self._states.look(self._views())
            except Exception:  # noqa: BLE001 - who is told must not end with one look
                _log.exception("a look at the states failed; the next one follows")
            await asyncio.sleep(LOOK_S)

    async def close(self) -> None:
        """Ends what is under way; the files stay."""
        await self._states.close()
        await self._site.move(None)

    async def _serve(self) -> None:
        wanted = self.observing.metrics_port
        if wanted == self._site.port:
            return
        try:
            await self._site.move(wanted)
        except OSError as error:
            problem = f"no metrics on port {wanted}: {error.strerror or error}; it is tried again"
            if problem != self._problem:
                _log.error("%s", problem)
            self._problem = problem
        else:
            self._problem = ""

    def _write(self, wanted: Observing) -> None:
        if wanted == Observing():
            for path in (self._record, self._webhook):
                path.unlink(missing_ok=True)
            return
        if wanted.state_webhook is None:
            self._webhook.unlink(missing_ok=True)
        else:
            write_text(self._webhook, f"{wanted.state_webhook}\n")
        try:
            write_wire(self._record, ObservingRecord(**wanted.model_dump(exclude={"state_webhook"})))
        except OperationFailed:
            if self.observing.state_webhook is None:
                self._webhook.unlink(missing_ok=True)
            else:
                write_text(self._webhook, f"{self.observing.state_webhook}\n")
            raise
