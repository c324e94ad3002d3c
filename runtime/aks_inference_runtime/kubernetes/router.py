"""`python -m aks_inference_runtime.kubernetes.router`: a router pod, until SIGTERM."""

import asyncio
import contextlib
import logging
import os
import resource
import signal
import sys
from functools import partial
from pathlib import Path

import aiohttp
from aiohttp import web

from aks_inference_runtime.api.kubernetes import RuntimeSettings, router_lanes
from aks_inference_runtime.kubernetes import connection, entry, pod, reports
from aks_inference_runtime.kubernetes.agent import LEAVE_S, NOTICE_S, Agent
from aks_inference_runtime.kubernetes.client import Api, connected
from aks_inference_runtime.kubernetes.heartbeats import PATH as ROUTERS_PATH
from aks_inference_runtime.kubernetes.lane import lane_name, owner_port
from aks_inference_runtime.kubernetes.measures import router_metrics
from aks_inference_runtime.kubernetes.serving import answering
from aks_inference_runtime.kubernetes.vitals import Vitals
from aks_inference_runtime.router import HaproxyRouter
from aks_inference_runtime.router.fleet import end_left
from aks_inference_runtime.router.peers import Cluster
from aks_inference_runtime.router.shared import SharedSockets
from aks_inference_runtime.router.tls import Tls
from aks_inference_runtime.router.tokens.fetch import fetch

DIRECTORY_VARIABLE = "AKS_INFERENCE_DIRECTORY"
DIRECTORY = "/run/aks-inference"
LOOK_S = 0.02
_log = logging.getLogger(__name__)


async def run(settings: RuntimeSettings, me: pod.Pod, where: connection.Connection, token: str | None = None) -> None:
    """Serves until SIGTERM or SIGINT; then hands over, passes on what still comes, lets requests finish and ends. A
    second signal ends at once.

    `token`: what other routers must show; None: the network alone keeps strangers away.
    """
    if token is None:
        _log.warning("routers have no token: what is no router is kept away by the network's rules alone")
    asked, again = asyncio.Event(), asyncio.Event()

    def stop() -> None:
        (again if asked.is_set() else asked).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    async with connected(where) as api, aiohttp.ClientSession(read_bufsize=4 * 1024 * 1024) as session:
        several = router_lanes(round(settings.router_max_cores * 1000)) > 1
        ports: list[int] = []
        if several:
            for directory in sorted(_directory(0).parent.glob(f"{_directory(0).name}*")):
                await end_left(directory)
            ports = [settings.http_port, *([settings.https_port] if settings.https_port is not None else [])]
        with contextlib.closing(SharedSockets(me.address, ports)) as sockets:
            make = partial(_router, settings, me, token, sockets)
            first = make(0)
            await first.start()
            agent = Agent(me.name, settings, first, address=me.address, make=make if several else None)
            try:
                await _serve(agent, sockets, api, session, settings, me, asked, again)
            finally:
                await agent.close()


def _directory(number: int) -> Path:
    """Of a lane."""
    return Path(os.environ.get(DIRECTORY_VARIABLE, DIRECTORY)) / (f"router-{number}" if number else "router")


def _router(
    settings: RuntimeSettings, me: pod.Pod, token: str | None, sockets: SharedSockets, number: int
) -> HaproxyRouter:
    """The processes of a lane."""
    cluster = Cluster(
        owner_host=me.address,
        owner_port=owner_port(settings, lane_name(me.name, number)),
        token=token,
        retry_lost_requests=settings.retry_lost_requests,
        sockets=sockets.files,
    )
    tls = None
    if settings.https_port is not None:
        tls = Tls(
            settings.https_port,
            settings.minimum_tls_version,
            settings.allow_insecure_connections,
            until_certificate=bool(settings.plain_until_certificate),
        )
    return HaproxyRouter(
        _directory(number), host=me.address, port=settings.http_port, cluster=cluster, fetch=fetch, tls=tls
    )


async def _serve(
    agent: Agent,
    sockets: SharedSockets,
    api: Api,
    session: aiohttp.ClientSession,
    settings: RuntimeSettings,
    me: pod.Pod,
    asked: asyncio.Event,
    again: asyncio.Event,
) -> None:
    vitals = Vitals(lambda: [_directory(number) for number in agent.lanes])

    async def load(request: web.Request) -> web.StreamResponse:
        def told() -> reports.Told:
            return reports.Told(agent.load(), agent.generations, agent.unserved, agent.known.waits)

        return await reports.stream(request, told, lambda: vitals.report)

    routes = (web.get(ROUTERS_PATH, agent.heartbeats.stream), web.get(reports.PATH, load))
    working = asyncio.create_task(agent.run(api, session))
    measuring = asyncio.create_task(vitals.run())
    async with answering(
        me.address,
        settings.agent_port,
        alive=lambda: not working.done(),
        ready=lambda: agent.ready,
        metrics=lambda: router_metrics(agent, vitals.figures),
        routes=routes,
    ):
        waiting = asyncio.create_task(asked.wait())
        await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not working.done():
            await _leave(agent, sockets, again)
        working.cancel()
        measuring.cancel()
        await asyncio.gather(working, measuring, return_exceptions=True)
        if not asked.is_set():
            working.result()


async def _leave(agent: Agent, sockets: SharedSockets, again: asyncio.Event) -> None:
    known = agent.ready
    agent.leave()
    _log.info("leaves: its endpoints go to the other routers")
    # To one that was never ready nobody was sent.
    if known:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(again.wait(), NOTICE_S)
    deadline = asyncio.get_running_loop().time() + LEAVE_S
    while not agent.left and not again.is_set() and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(LOOK_S)
    # Nobody would take what came to a socket that only the agent has.
    sockets.close()
    ends = [asyncio.ensure_future(agent.finish()), asyncio.ensure_future(again.wait())]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for end in ends:
        end.cancel()
    await asyncio.gather(*ends, return_exceptions=True)


def main() -> int:
    """See `entry.serve`."""
    # A connection to each gate: containerd 2 gives a container 1,024 files unless it asks for more.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return entry.serve(
        "router", lambda: run(pod.settings(), pod.pod(), connection.find(), pod.router_token()), entry.fast_loop
    )


if __name__ == "__main__":
    sys.exit(main())
