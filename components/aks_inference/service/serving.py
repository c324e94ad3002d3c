"""What services and rollouts have in common once they are planned: names, capacity, the child, the message."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
from pydantic.alias_generators import to_camel

from aks_inference.component import Component, unknown
from aks_inference.findings import Finding, Severity
from aks_inference.machine import Machine, this_machine
from aks_inference.program import ComponentFindings, current_program, peers
from aks_inference.resources import LocalEndpoint
from aks_inference.service import known_models
from aks_inference.service.endpoint import EndpointPlan, VersionPlan
from aks_inference.service.on_cluster import ClusterEndpoint, Served
from aks_inference.service.stored import register_stored
from aks_inference.targets import checked_target, choose_target
from aks_inference_runtime.api.endpoint import AuthMode, EndpointVersion

OUTPUTS = ("scoring_uri", "swagger_uri", "primary_key", "secondary_key", "state")
SHOWN_PACKAGES = 4
"""Of an environment, in the preview's text."""


@dataclass(frozen=True)
class Claim:
    """What only one endpoint of a target can have."""

    target_key: object
    """None: not known."""
    name: str
    port: int | None


def claimed(resource_name: str, declared: Mapping[str, Any], plan: EndpointPlan | None, argument: str) -> Claim:
    """The claim of a plan, or of arguments of which others are wrong."""
    if plan is not None:
        return Claim(plan.target.key, plan.name, plan.endpoint.spec.port)
    target, _ = choose_target(declared.get("target"))
    name = declared.get(argument, declared.get(to_camel(argument), resource_name))
    port = declared.get("port")
    return Claim(
        target.key if target else None,
        name if isinstance(name, str) else resource_name,
        int(port) if isinstance(port, int | float) and not isinstance(port, bool) and port == port // 1 else None,
    )


class Serving(Component):
    """A component that is an endpoint on a target."""

    _plan: EndpointPlan | None
    _claim: Claim

    def _serve(self, name: str, plan: EndpointPlan | None) -> dict[str, pulumi.Output[Any]]:
        """Registers the endpoint and sets its outputs; returns them by their names on the wire."""
        endpoint = None if plan is None else self._endpoint(name, plan)
        outputs: dict[str, pulumi.Output[Any]] = {}
        for output in OUTPUTS:
            outputs[to_camel(output)] = value = unknown(str) if endpoint is None else getattr(endpoint, output)
            setattr(self, output, value)
        return outputs

    def _endpoint(self, name: str, plan: EndpointPlan) -> LocalEndpoint | Served:
        if plan.target.local is False:
            # A plugin makes a cluster, with its list of hosts, before it hears of services.
            self._info(*describe(plan, None), *(() if self._program else hosts_told(plan)))
            return ClusterEndpoint(name, plan, self._child()).serve()
        stored = [register_stored(name, plan.name, version, self._child()) for version in plan.versions]
        found = [resource for each in stored for resource in each.resources]
        endpoint = LocalEndpoint(
            name,
            {
                "target": checked_target(plan.target),
                "endpoint": plan.wire(),
                "effectiveTraffic": plan.traffic,
                "primaryKey": None if plan.primary_key is None else pulumi.Output.secret(plan.primary_key),
                "secondaryKey": None if plan.secondary_key is None else pulumi.Output.secret(plan.secondary_key),
            },
            pulumi.ResourceOptions.merge(self._child(), pulumi.ResourceOptions(depends_on=found)),
        )
        self._info(*describe(plan, this_machine()))
        return endpoint

    def _conflicts(
        self, resource_name: str, declared: Mapping[str, Any], plan: EndpointPlan | None, argument: str
    ) -> list[Finding]:
        """Names and ports that another endpoint of the program has on the same target; own demands on the machine.

        Names and ports are compared also where something else is wrong, so that all is said at once.
        """
        self._resource_name, self._plan = resource_name, plan
        self._claim = claim = claimed(resource_name, declared, plan, argument)
        findings: list[Finding] = []
        if plan and plan.target.local is not False:
            findings += too_big(plan, this_machine(), in_versions="versions" in declared)
        others = peers((type(self), resource_name))
        for other in others:
            theirs = other._claim if isinstance(other, Serving) else None
            if theirs is None or claim.target_key is None or theirs.target_key != claim.target_key:
                continue
            whose = f"{other._kind} {other._resource_name!r}"
            if theirs.name == claim.name:
                rule = f"is also the name of {whose} on this target"
                findings.append(Finding((argument,), rule, "choose another name", claim.name))
            if claim.port is not None and theirs.port == claim.port:
                findings.append(Finding(("port",), f"is also the port of {whose}", "choose another port", claim.port))
        program = current_program()
        if program:
            known_models.ask_in_program(program, type(self).__name__, resource_name, declared, plan)
        if plan is None or plan.target.local is False:
            return findings if program else [*findings, *self._unfit(plan, others)]
        if program:
            program.at_end(lambda: crowded(program.components, self))
        else:
            findings += [f for component in crowded([*others, self], self) for f in component.findings]
        return findings

    def _unfit(self, plan: EndpointPlan | None, others: Iterable[Component]) -> Iterable[Finding]:
        """In a plugin, which sees no end of the program: whether it fits with those that were declared before it."""
        cluster = None if plan is None else plan.target.cluster
        if plan is None or cluster is None:
            return
        there: dict[Component, EndpointPlan] = {
            other: other._plan
            for other in others
            if isinstance(other, Serving) and other._plan and other._plan.target.cluster is cluster
        }
        for component, finding in cluster._misfits({**there, self: plan}):
            # Without this one all others fitted.
            if component is self or finding.severity is Severity.ERROR:
                yield finding


def smallest(version: EndpointVersion) -> int:
    """Replicas that there are always."""
    scaling = version.scaling
    return scaling.autoscale_min_replicas if scaling.autoscale_enabled else scaling.num_replicas or 0


def largest(version: EndpointVersion) -> int:
    """Replicas that there are at most."""
    scaling = version.scaling
    return scaling.autoscale_max_replicas if scaling.autoscale_enabled else scaling.num_replicas or 0


def demand(plan: EndpointPlan, limit: Machine | None = None) -> tuple[float, float]:
    """Cores and GB that the endpoint always asks for; with a limit without replicas that ask for more than that."""
    cores = memory = 0.0
    for version in plan.endpoint.spec.versions:
        wanted, count = version.resources, smallest(version)
        cores += count * wanted.cpu_cores if limit is None or wanted.cpu_cores <= limit.cores else 0
        memory += count * wanted.memory_gb if limit is None or wanted.memory_gb <= limit.memory_gb else 0
    return cores, memory


def too_big(plan: EndpointPlan, machine: Machine, in_versions: bool) -> Iterable[Finding]:
    """A replica that this machine can never hold. `in_versions`: the arguments stand in `versions`."""
    for index, version in enumerate(plan.endpoint.spec.versions):
        where: tuple[str | int, ...] = ("versions", index) if in_versions else ()
        wanted = version.resources
        if wanted.cpu_cores > machine.cores:
            rule = f"this machine has {machine.cores:g} cores: Unschedulable"
            yield Finding((*where, "cpu_cores"), rule, f"use {machine.cores:g} or less", wanted.cpu_cores)
        if wanted.memory_gb > machine.memory_gb:
            rule = f"this machine has {machine.memory_gb:.1f} GB: Unschedulable"
            yield Finding((*where, "memory_gb"), rule, f"use {machine.memory_gb:.1f} or less", wanted.memory_gb)


def crowded(components: Sequence[Component], last: Serving) -> Iterable[ComponentFindings]:
    """Whether all endpoints of a target fit on this machine at their minimum; said once, by the last of them."""
    plan = last._plan
    if plan is None:
        return
    served = [c for c in components if isinstance(c, Serving) and c._plan is not None]
    same = [c for c in served if c._plan is not None and c._plan.target.key == plan.target.key]
    if same[-1] is not last:
        return
    machine = this_machine()
    # A replica that is too big by itself is told as that.
    demands = {c._plan.name: demand(c._plan, machine) for c in same if c._plan is not None}
    for position, (what, unit, held) in enumerate(
        (("cores", "cores", machine.cores), ("memory", "GB", machine.memory_gb))
    ):
        total = sum(figures[position] for figures in demands.values())
        if total > held + 1e-6:
            parts = " + ".join(
                f"{name} {figures[position]:g}" for name, figures in demands.items() if figures[position]
            )
            rule = (
                f"{what} at the minimum of replicas: {parts} = {total:g} {unit}; "
                f"this machine has {held:.3g}: some replicas would stay Unschedulable"
            )
            finding = Finding(("target",), rule, "lower @cpu_cores, @memory_gb or the number of replicas")
            yield ComponentFindings(type(last).__name__, last._resource_name, (finding,))


def describe(plan: EndpointPlan, machine: Machine | None) -> list[str]:
    """The checks with their figures, for the preview. `machine`: that of a local target."""
    spec = plan.endpoint.spec
    cores, memory = demand(plan)
    where = plan.target.name or "(known at apply)"
    lines = [
        f"endpoint {plan.name} on {where}: {_auth(plan)}",
        f"capacity check: minimum of replicas asks for {cores:g} of {machine.cores:g} cores, "
        f"{memory:g} of {machine.memory_gb:.1f} GB: ok"
        if machine
        else f"minimum of replicas asks for {cores:g} cores, {memory:g} GB of the nodes",
        "effective traffic:",
    ]
    for version, version_plan in zip(spec.versions, plan.versions, strict=True):
        role = [*(["default"] if version.is_default else []), *([version.type.value] if version.type else [])]
        shown = f" ({', '.join(role)})" if role else ""
        models = ", ".join(use.label for use in version_plan.models) or "none"
        lines.append(
            f"  {version.name:<{_width(plan)}} {plan.traffic[version.name]:>6.2f} %"
            f"{shown}: {_replicas(version)}; models {models}"
        )
        others = [v for v in spec.versions if v is not version]
        lines.append(f"  {'':<{_width(plan)}} runs {_runs(version)}{_variables(version, version_plan, others)}")
    return lines + [f"note: {note}" for note in plan.notes]


def hosts_told(plan: EndpointPlan) -> list[str]:
    """What the service itself names: hosts that its cluster's output does not list where that came first."""
    from aks_inference.aks_cluster.hosts import service_names

    names = service_names([plan])
    parts = [
        f"{what} {', '.join(hosts)}"
        for what, hosts in (
            ("images from", names.registries),
            ("models from the storage of", names.storage_accounts),
            ("model data to the storage of", names.data_accounts),
            ("tokens of", names.identity_providers),
        )
        if hosts
    ]
    return [f"hosts that it needs, too (not in @required_hosts of a cluster): {'; '.join(parts)}"] if parts else []


def _runs(version: EndpointVersion) -> str:
    # Options may name an index with its credentials.
    packages = [package for package in version.environment.pip_packages if not package.startswith("-")]
    shown = ", ".join(packages[:SHOWN_PACKAGES])
    more = f" and {len(packages) - SHOWN_PACKAGES} more" if len(packages) > SHOWN_PACKAGES else ""
    if not version.code.entry_script and version.container is not None:
        return f"image {version.container.image}"
    digest = version.code.digest.removeprefix("sha256:")[:12]
    return f"{version.code.entry_script} ({digest}) with {shown or 'no packages of its own'}{more}"


def _variables(version: EndpointVersion, plan: VersionPlan, others: Sequence[EndpointVersion]) -> str:
    """Their names, and of those whose value differs between versions in which. A value may be a secret."""
    own = version.environment.environment_variables
    shown = []
    for name in sorted({*own, *plan.late_variables}):
        theirs = {o.name: o.environment.environment_variables.get(name) for o in others}
        unlike = [other for other, value in theirs.items() if None not in (value, own.get(name)) and value != own[name]]
        shown.append(f"{name} (another value than in {', '.join(unlike)})" if unlike else name)
    return f"; variables {', '.join(shown)}" if shown else ""


def _width(plan: EndpointPlan) -> int:
    return max(len(version.name) for version in plan.endpoint.spec.versions)


def _auth(plan: EndpointPlan) -> str:
    spec = plan.endpoint.spec
    if spec.auth is AuthMode.TOKEN:
        issuer = "an issuer that is known later" if spec.token is None else spec.token.issuer
        return f"token of {issuer} needed"
    return "key needed" if spec.auth is AuthMode.KEY else "open, no key needed"


def _replicas(version: EndpointVersion) -> str:
    scaling, requests = version.scaling, version.requests
    at_once = f"{requests.replica_max_concurrent_requests} at once each"
    if not scaling.autoscale_enabled:
        return f"{smallest(version)} replica{'s' * (smallest(version) != 1)}, {at_once}"
    target = f"{scaling.autoscale_target_utilization:g} % busy"
    return f"{smallest(version)} to {largest(version)} replicas at {target}, {at_once}"
