"""`python -m aks_inference_runtime.kubernetes.autoscaler`: one of the autoscaler's pods, until SIGTERM; one leads."""

import os
import sys
import time
from pathlib import Path

import aiohttp

from aks_inference_runtime.api.kubernetes import AUTOSCALER_NAME, WEBHOOK_VARIABLE, RuntimeSettings
from aks_inference_runtime.autoscaler.controller import Autoscaler
from aks_inference_runtime.autoscaler.tally import Tally
from aks_inference_runtime.kubernetes import connection, entry, pod
from aks_inference_runtime.kubernetes.client import connected
from aks_inference_runtime.kubernetes.lease import Election
from aks_inference_runtime.kubernetes.measures import autoscaler_metrics, routers_metrics
from aks_inference_runtime.kubernetes.router_scaling import RouterScaler
from aks_inference_runtime.kubernetes.scaling import ClusterScaler
from aks_inference_runtime.kubernetes.telling import Teller


async def run(settings: RuntimeSettings, me: pod.Pod, where: connection.Connection) -> None:
    """Until SIGTERM or SIGINT; then the lease is given back."""
    election = Election(settings.namespace, AUTOSCALER_NAME, me.name, time.monotonic)
    webhook = os.environ.get(WEBHOOK_VARIABLE)
    teller = Teller(me.name, Path(webhook) if webhook else None)
    scaler = ClusterScaler(settings, lambda: election.leads, time.monotonic, teller)
    autoscaler = Autoscaler(scaler.reports, scaler, news=scaler.reports.news)
    routers = RouterScaler(
        settings,
        scaler,
        scaler.reports.figures,
        # Without nodes and pods nobody knows what fits.
        lambda: election.leads and scaler.listed,
        time.monotonic,
        me.name,
    )

    def metrics() -> str:
        # At once, not with the next look: two would be added up, or the older one's number go on being waited for.
        tally, decision = (scaler.tally, routers.decision) if election.leads else (Tally(), None)
        own = routers_metrics(decision, routers.changes)
        return autoscaler_metrics(election.leads, tally.decisions, scaler.written, tally.decided) + own

    async with connected(where) as api, aiohttp.ClientSession(read_bufsize=4 * 1024 * 1024) as session:
        works = (election.run(api), scaler.run(api, session), autoscaler.run(), routers.run(api))
        try:
            await entry.until_told(works, me.address, settings.agent_port, lambda: scaler.listed, metrics)
        finally:
            await scaler.reports.close()


def main() -> int:
    """See `entry.serve`."""
    return entry.serve("autoscaler", lambda: run(pod.settings(), pod.pod(), connection.find()), entry.fast_loop)


if __name__ == "__main__":
    sys.exit(main())
