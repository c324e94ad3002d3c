"""`aks-inference doctor FILE…`: whether the hosts that declared clusters need can be reached from this machine."""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from aks_inference.aks_cluster.attach import AttachPlan
from aks_inference.aks_cluster.hosts import attached_hosts, hosts_of, service_names
from aks_inference.aks_cluster.spec import ClusterPlan
from aks_inference.cluster_rules.hosts import From, Phase, RequiredHost, StackNames
from aks_inference.documents import check_documents, read_files
from aks_inference.service.endpoint import EndpointPlan
from aks_inference_runtime.api.kubernetes import RUNTIME_NAMESPACE
from aks_inference_runtime.doctor import TIMEOUT_S, Target, check_all, seconds, shown
from aks_inference_runtime.doctor_job import Place, jobs


def run(arguments: Sequence[str]) -> int:
    """The command. 0: all reached; 1: a required host is not; 2: wrong usage or no cluster."""
    parser = argparse.ArgumentParser(
        prog="aks-inference doctor",
        description="Resolve, connect, shake hands and ask: each host that the declared AksInferenceClusters need.",
        epilog="Exit codes: 0 all required hosts reached, 1 one is not, 2 wrong usage.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="declarations, as `aks-inference check` takes them")
    parser.add_argument("--all", action="store_true", help="also what only nodes and pods need, from this machine")
    parser.add_argument("--phase", choices=[str(phase) for phase in Phase], help="only what this phase needs")
    parser.add_argument("--api-server", metavar="HOST", help="the API server's name, of a cluster that is there")
    parser.add_argument("--location", metavar="REGION", help="of attached clusters, which no declaration says")
    parser.add_argument("--list", action="store_true", help="print the list (also patterns) and ask nobody")
    parser.add_argument("--job", action="store_true", help="print Jobs that check from the cluster, for kubectl apply")
    parser.add_argument("--image", metavar="IMAGE", help="with --job: the runtime's image")
    parser.add_argument(
        "--namespace", default=RUNTIME_NAMESPACE, help="with --job: the runtime's; default: %(default)s"
    )
    parser.add_argument(
        "--node-namespace",
        default="default",
        help="with --job: one whose pods may have the nodes' network (Pod Security: privileged); default: %(default)s",
    )
    parser.add_argument(
        "--timeout", type=seconds, default=TIMEOUT_S, help="seconds of each stage; default: %(default)g"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    given = parser.parse_args(arguments)
    documents, problems = read_files(given.files)
    outcomes = check_documents(documents, datetime.now(UTC).date())
    clusters = {one.document.name: one.plan for one in outcomes if isinstance(one.plan, ClusterPlan | AttachPlan)}
    if not clusters:
        wrong = problems[0].finding.rule if problems else "no AksInferenceCluster without errors"
        print(f"error: {', '.join(given.files)}: {wrong}; see `aks-inference check`", file=sys.stderr)
        return 2
    if given.location is None and any(isinstance(plan, AttachPlan) for plan in clusters.values()):
        print("error: an attached cluster's region is in no declaration; give --location REGION", file=sys.stderr)
        return 2
    plans = (one.plan for one in outcomes)
    services = [plan for plan in plans if isinstance(plan, EndpointPlan) and plan.target.name in clusters]
    found = {
        (host.host, host.port): host
        for name, plan in clusters.items()
        for host in _hosts(
            plan, given.location, given.api_server, service_names(one for one in services if one.target.name == name)
        )
        if given.phase is None or given.phase in host.phases
    }
    if given.list:
        _print_list(list(found.values()), given.json)
        return 0
    if given.job:
        if given.image is None:
            parser.error("--job needs --image, the runtime's")
        places = _places(list(found.values()), services, given.namespace, given.node_namespace)
        print(json.dumps(jobs(places, given.image), indent=2))
        return 0
    mine = [host for host in found.values() if given.all or From.OPERATOR in host.source_of_traffic]
    return shown(asyncio.run(check_all(_targets(mine), given.timeout)), given.json)


def _hosts(
    plan: ClusterPlan | AttachPlan, location: str, api_server: str | None, names: StackNames
) -> tuple[RequiredHost, ...]:
    if isinstance(plan, AttachPlan):
        return attached_hosts(plan, location, api_server, names)
    return hosts_of(plan, plan.spec.registry_ids, api_server, names)


def _places(
    hosts: Sequence[RequiredHost], services: Iterable[EndpointPlan], runtime: str, nodes: str
) -> Iterator[Place]:
    """Each host from where it is needed. What services need is asked in their namespaces, as far as they are declared:
    policies of a network differ between them."""

    def of(*sources: From) -> tuple[Target, ...]:
        return tuple(_targets(host for host in hosts if {*sources} & {*host.source_of_traffic}))

    yield Place("nodes", nodes, of(From.NODES), host_network=True)
    theirs = sorted({one.endpoint.metadata.namespace for one in services})
    yield Place("pods", runtime, of(From.CLUSTER, From.RUNTIME, *(() if theirs else (From.SERVICES,))))
    yield from (Place("services", namespace, of(From.SERVICES)) for namespace in theirs)


def _targets(hosts: Iterable[RequiredHost]) -> list[Target]:
    return [
        Target(host.host, host.port, host.protocol, tuple(map(str, host.phases)), host.without_it, host.required)
        for host in hosts
    ]


def _print_list(hosts: Sequence[RequiredHost], as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(host) for host in hosts], indent=2))
        return
    for host in hosts:
        print(f"{host.host}:{host.port} {host.protocol}  {', '.join(host.phases)}; from "
              f"{', '.join(host.source_of_traffic)}; for {host.needed_for}; without it: {host.without_it}")  # fmt: skip
