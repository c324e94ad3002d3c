"""`python -m aks_inference_runtime.kubernetes.autoscaler`: one of the autoscaler's pods, until SIGTERM; one leads."""

import asyncio
import logging
import os
import signal
import sys
import time
from pathlib import Path

import aiohttp

from aks_inference_runtime.api.errors import AksInferenceError
from aks_inference_runtime.api.kubernetes import AUTOSCALER_NAME, WEBHOOK_VARIABLE, RuntimeSettings
from aks_inference_runtime.autoscaler.controller import Autoscaler
from aks_inference_runtime.kubernetes import connection, pod
from aks_inference_runtime.kubernetes.client import connected
from aks_inference_runtime.kubernetes.lease import Election
from aks_inference_runtime.kubernetes.measures import autoscaler_metrics
from aks_inference_runtime.kubernetes.scaling import ClusterScaler
from aks_inference_runtime.kubernetes.serving import answering
from aks_inference_runtime.kubernetes.telling import Teller


async def run(settings: RuntimeSettings, me: pod.Pod, where: connection.Connection) -> None:
    """Until SIGTERM or SIGINT; then the lease is given back."""
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    election = Election(settings.namespace, AUTOSCALER_NAME, me.name, time.monotonic)
    webhook = os.environ.get(WEBHOOK_VARIABLE)
    teller = Teller(me.name, Path(webhook) if webhook else None)
    scaler = ClusterScaler(settings, lambda: election.leads, time.monotonic, teller)
    autoscaler = Autoscaler(scaler.reports, scaler)
    async with connected(where) as api, aiohttp.ClientSession(read_bufsize=4 * 1024 * 1024) as session:
        works = [asyncio.create_task(work) for work in (election.run(api), scaler.run(api, session), autoscaler.run())]
        try:
            async with answering(
                me.address,
                settings.agent_port,
                alive=lambda: not any(work.done() for work in works),
                ready=lambda: scaler.listed,
                metrics=lambda: autoscaler_metrics(election.leads, scaler.decisions, scaler.written, scaler.decided),
            ):
                waiting = asyncio.create_task(asked.wait())
                done, _ = await asyncio.wait([waiting, *works], return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
        finally:
            for work in works:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)
            await scaler.reports.close()
        for ended in works:
            if ended in done:
                ended.result()


def main() -> int:
    """Exit status: 0 after a signal, 2 for settings that cannot be used, 1 for what went wrong."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings, me, where = pod.settings(), pod.pod(), connection.find()
    except AksInferenceError as error:
        print(f"autoscaler: {error}", file=sys.stderr)
        return 2
    try:
        asyncio.run(run(settings, me, where))
    except (AksInferenceError, OSError) as error:
        print(f"autoscaler: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
