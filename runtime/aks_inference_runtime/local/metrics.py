"""Prometheus' side of a local cluster: one port for its router, its autoscaler and all its gates."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from aks_inference_runtime.api.errors import RuntimeUnavailable
from aks_inference_runtime.autoscaler.tally import Tally
from aks_inference_runtime.local.checks import HOST
from aks_inference_runtime.local.replica import Replica
from aks_inference_runtime.observability.gates import gate_metrics
from aks_inference_runtime.observability.prometheus import CONTENT_TYPE
from aks_inference_runtime.observability.versions import answer_samples, decision_metrics, load_metrics
from aks_inference_runtime.router.gate.client import GateClient
from aks_inference_runtime.router.gate.settings import GateFigures
from aks_inference_runtime.router.model import Router

GATE_S = 2.0
"""A gate that does not answer by then is missing in this answer."""


async def exposition(router: Router, tally: Tally, replicas: Sequence[Replica]) -> str:
    """All metrics now. Gates are asked when somebody asks for them, and never else."""
    heard = [replica for replica in replicas if replica.heard and not replica.dead]
    found = await asyncio.gather(*(_figures(replica) for replica in heard))
    gates = [
        ({"endpoint": replica.record.endpoint, "version": replica.record.version, "replica": replica.id}, figures)
        for replica, figures in zip(heard, found, strict=True)
        if figures is not None
    ]
    return "".join(
        [
            load_metrics(router.load()),
            gate_metrics(gates, answer_samples(router.answers)),
            decision_metrics(tally.decisions, tally.decided),
        ]
    )


async def _figures(replica: Replica) -> GateFigures | None:
    try:
        return await GateClient(replica.record.control).figures(GATE_S)
    except RuntimeUnavailable:
        return None


class MetricsSite:
    """`/metrics` on a port of this machine."""

    def __init__(self, text: Callable[[], Awaitable[str]]) -> None:
        self.port: int | None = None
        """Where it answers; None: nowhere."""
        self._text = text
        self._runner: web.AppRunner | None = None

    async def move(self, port: int | None) -> None:
        """Answers there and nowhere else. Raises OSError when the port cannot be had; then all is as before."""
        before = self._runner
        self._runner = None if port is None else await self._start(port)
        self.port = port
        if before is not None:
            await before.cleanup()

    async def _start(self, port: int) -> web.AppRunner:
        app = web.Application()
        app.add_routes([web.get("/metrics", self._answer)])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, port).start()
        except OSError:
            await runner.cleanup()
            raise
        return runner

    async def _answer(self, _: web.Request) -> web.Response:
        return web.Response(body=(await self._text()).encode(), headers={"content-type": CONTENT_TYPE})
