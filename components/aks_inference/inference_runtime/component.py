"""The component InferenceRuntime."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack, overload

import pulumi

from aks_inference.component import NO_ARGS, Cluster, known, merged, unknown
from aks_inference.findings import Finding
from aks_inference.images.child import image_resource
from aks_inference.images.registry import RegistryPlan
from aks_inference.inference_runtime.access import accounts, policies
from aks_inference.inference_runtime.args import InferenceRuntimeArgs
from aks_inference.inference_runtime.monitoring import monitoring
from aks_inference.inference_runtime.needs import needs
from aks_inference.inference_runtime.routers import describe_routers
from aks_inference.inference_runtime.spec import DNS_LABEL, RuntimePlan, plan_runtime
from aks_inference.inference_runtime.tls import describe_tls, dns_line, tls_objects
from aks_inference.inference_runtime.vault import keeper
from aks_inference.inference_runtime.workloads import foundation, priority, workloads
from aks_inference.kubernetes import KubernetesObject, KubernetesProvider, Manifest, logical, named
from aks_inference.pods import labels
from aks_inference.resources import ClusterKinds, ClusterObject, EndpointKeys, PlainPort
from aks_inference.values import is_late
from aks_inference_runtime.api.addresses import router_url
from aks_inference_runtime.api.keys import keyed_digest
from aks_inference_runtime.api.kubernetes import (
    AUTOSCALER_NAME,
    ROUTER_COMPONENT,
    ROUTER_NAME,
    ROUTER_TOKEN_FIELD,
    ROUTER_TOKEN_NAME,
    RUNTIME_NAMESPACE,
    STACK_ANNOTATION,
    WEBHOOK_KEY,
    WEBHOOK_NAME,
    stack_mark,
)
from aks_inference_runtime.api.target import KubernetesTarget, RegistrySettings, format_target

VAULT_ARGUMENT = "ssl_key_vault_secret_id"
LEAF_ARGUMENT = "leaf_domain_label"
"""Of an AksInferenceCluster: has a certificate issued for it."""


class InferenceRuntime(Cluster):
    """The inference runtime on any Kubernetes cluster that a kubeconfig reaches: router, autoscaler, their rights.

    One for each cluster: the definition of ScoringEndpoint is the cluster's.
    """

    target: pulumi.Output[str]
    """What services name as their target. Secret where the kubeconfig is given as an argument."""
    url: pulumi.Output[str]
    """Where clients reach the router."""
    address: pulumi.Output[str]
    """The address of the router's load balancer, for a record in the DNS; empty where there is none."""
    namespace: pulumi.Output[str]
    """Of routers and autoscaler."""

    @overload
    def __init__(self, name: str, args: InferenceRuntimeArgs, opts: pulumi.ResourceOptions | None = None) -> None: ...

    @overload
    def __init__(
        self, name: str, *, opts: pulumi.ResourceOptions | None = None, **settings: Unpack[InferenceRuntimeArgs]
    ) -> None: ...

    def __init__(
        self,
        name: str,
        args: InferenceRuntimeArgs = NO_ARGS,
        opts: pulumi.ResourceOptions | None = None,
        **settings: Any,
    ) -> None:
        """Arguments as a dict, or as keywords."""
        declared = merged(args, settings)
        plan, findings = plan_runtime(name, declared)
        self._local = False
        # Where the arguments are wrong, services on it are not told about it again.
        self._kubernetes = plan.target() if plan else unplanned(name, declared)
        self._provider: KubernetesProvider | None = None
        self._kubeconfig: Any = plan.kubeconfig if plan else None
        self._registry: RegistryPlan | None = plan.registry if plan else None
        super().__init__(name, declared, findings, opts)
        self._register(name, self._sound(plan))

    def _register(self, name: str, plan: RuntimePlan | None) -> None:
        if plan is None:
            self.target = self._target = unknown(str)
            self.url, self.address, self.namespace = unknown(str), unknown(str), unknown(str)
            return
        # What the runtime waits for stays until everything of it is gone: services and all.
        after = pulumi.ResourceOptions(depends_on=self._given_options.depends_on)
        options = pulumi.ResourceOptions.merge(self._child(), after)
        provider = self._provider = KubernetesProvider(name, plan.kubeconfig, plan.context, options)
        where: dict[str, Any] = {"context": plan.context}
        if plan.kubeconfig is not None:
            where["kubeconfig"] = pulumi.Output.secret(plan.kubeconfig)
        # Before anything is applied: without what somebody else brings, it would be left half-way.
        lacks = pulumi.ResourceOptions(depends_on=self._needs(plan, where, options))
        base = self._base(provider, plan, where, pulumi.ResourceOptions.merge(options, lacks))
        if plan.tls is not None and not plan.tls.allow_insecure:
            asked = {"namespace": plan.namespace, "issued": plan.tls.acme_server is not None}
            port = PlainPort(f"{self._resource_name}-plain-port", {**asked, **where}, options)
            plan = replace(plan, plain=port.until_certificate)
        rights = self._objects(provider, [*accounts(plan), *policies(plan), priority(plan)], base)
        token = EndpointKeys(f"{self._resource_name}-routers", {}, self._child()).primary_key
        rights.append(self._router_token(provider, plan, token, base))
        image = self._image(plan)
        given = plan.tls is not None and plan.tls.acme_server is None
        if given:
            # Routers that speak TLS find their certificate.
            rights += self._certificate(provider, plan, base)
        if plan.tls is not None and plan.tls.vault is not None:
            kept = keeper(plan.tls.vault, plan.tls.host, plan.namespace, plan.image, plan.pull)
            rights += self._objects(provider, kept, [*base, *rights, *image])
        if plan.webhook is not None:
            rights += self._objects(provider, [_webhook(plan)], base)
        # The autoscaler first: it says how many routers there are.
        parts: list[_Part] = []
        for manifest in workloads(plan, pulumi.Output.unsecret(token.apply(_mark))):
            parts += self._objects(provider, [_marked(manifest)], [*base, *rights, *image, *_said_by(manifest, parts)])
        self._objects(provider, monitoring(plan.namespace, operator=plan.prometheus_operator), base)
        if not given:
            # One that is issued is waited for: the authority asks the routers, by the name.
            self._certificate(provider, plan, [*base, *parts])
        self.target = self._target = self._named(plan, parts)
        self.namespace = pulumi.Output.from_input(plan.namespace)
        service = next(part for part in parts if part.logical == f"service-{ROUTER_NAME}")
        address = plan.address
        self.url = self._url = (
            service.status.apply(lambda s: _url(plan, s)) if address is None else pulumi.Output.from_input(address)
        )
        self.address = service.status.apply(_address)
        self._info(*describe(plan))
        outputs = {"target": self.target, "url": self.url, "address": self.address, "namespace": self.namespace}
        self.register_outputs(outputs)

    def _needs(
        self, plan: RuntimePlan, where: Mapping[str, Any], options: pulumi.ResourceOptions
    ) -> list[pulumi.Resource]:
        """Whether the cluster has the kinds that somebody else brings."""
        around = self._given_options.parent
        owner = around if isinstance(around, Cluster) else None
        # What brings them may be among what the runtime is to wait for.
        later = (owner or self)._given_options.depends_on not in (None, [])
        made = (owner or self)._made
        looks: list[pulumi.Resource] = []
        for need in needs(plan):
            path: tuple[str, ...] = (need.argument,)
            if owner is not None:
                if need.argument == VAULT_ARGUMENT:
                    continue  # the cluster's own add-on brings them
                path = (LEAF_ARGUMENT,) if need.argument == "acme_server" else ("runtime", need.argument)
            spelling = (owner or self)._spelling
            argument = spelling.as_written(Finding(path, "", "")).location(spelling.casing)
            inputs: dict[str, Any] = {"argument": argument, "kinds": list(need.kinds), "brings": need.brings}
            inputs |= {"later": later or None, "made": made or None}
            name = f"{self._resource_name}-kinds-{need.argument.replace('_', '-')}"
            looks.append(ClusterKinds(name, {**inputs, **where}, options))
        return looks

    def _base(
        self,
        provider: KubernetesProvider,
        plan: RuntimePlan,
        where: Mapping[str, Any],
        options: pulumi.ResourceOptions,
    ) -> "list[_Part]":
        """What may be there already. Who knows which was removes the rest at the end; so Pulumi itself does not."""
        given = {"namespace": plan.namespace, **where}
        parts: list[_Part] = []
        for manifest in foundation(plan):
            inputs = {"kind": manifest["kind"], **given}
            before = ClusterObject(f"{self._resource_name}-found-{manifest['kind'].lower()}", inputs, options)
            parts += self._objects(provider, [manifest], [before], retain=True)
        return parts

    def _image(self, plan: RuntimePlan) -> list[pulumi.Resource]:
        """The runtime's own image, where it is not given."""
        if plan.registry is None or not plan.builds:
            return []
        content = {"runtime": True, "alias": plan.image}
        return [image_resource(f"{self._resource_name}-image", plan.registry, content, self._child())]

    def _objects(
        self,
        provider: KubernetesProvider,
        manifests: Iterable[Manifest],
        after: Sequence[pulumi.Resource],
        *,
        retain: bool = False,
    ) -> "list[_Part]":
        options = pulumi.ResourceOptions(provider=provider, depends_on=list(after), retain_on_delete=retain or None)
        options = pulumi.ResourceOptions.merge(self._child(), options)
        return [_Part(self._resource_name, manifest, options) for manifest in manifests]

    def _router_token(
        self,
        provider: KubernetesProvider,
        plan: RuntimePlan,
        token: pulumi.Output[str | None],
        after: Sequence[pulumi.Resource],
    ) -> "_Part":
        """What routers prove to each other that they are routers with: generated once, kept in the state."""
        data = {ROUTER_TOKEN_FIELD: token.apply(_encoded)}
        manifest = named("v1", "Secret", ROUTER_TOKEN_NAME, plan.namespace, labels=labels(ROUTER_COMPONENT), data=data)
        (part,) = self._objects(provider, [manifest], after)
        return part

    def _certificate(
        self, provider: KubernetesProvider, plan: RuntimePlan, after: Sequence[pulumi.Resource]
    ) -> "list[_Part]":
        objects = () if plan.tls is None else tls_objects(plan.tls, plan.namespace)
        return self._objects(provider, map(_hidden, objects), after)

    def _named(self, plan: RuntimePlan, parts: Sequence[pulumi.Resource]) -> pulumi.Output[str]:
        """The target; known before the runtime is there, so that services on it are checked at preview."""
        given = plan.hidden
        if not given:
            return known(format_target(plan.target()), parts[0])
        if not any(is_late(value) for value in given.values()):
            return pulumi.Output.secret(known(format_target(plan.target(**_texts(given))), parts[0]))
        later: pulumi.Output[Any] = pulumi.Output.all(**given)
        return pulumi.Output.secret(later.apply(lambda found: format_target(plan.target(**_texts(found)))))


def _texts(given: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in given.items()}


def unplanned(name: str, declared: object) -> KubernetesTarget:
    """A target whose runtime's arguments are wrong: what stands on it is not told about that again."""
    store = declared.get("model_store") if isinstance(declared, Mapping) else None
    registry = declared.get("registry") if isinstance(declared, Mapping) else None
    return KubernetesTarget(
        name=name,
        namespace=RUNTIME_NAMESPACE,
        model_store=store if isinstance(store, str) else None,
        registry=RegistrySettings(server="") if registry is not None else None,
    )


class _Part(KubernetesObject):
    """An object of the runtime."""

    def __init__(self, prefix: str, manifest: Manifest, opts: pulumi.ResourceOptions) -> None:
        self.logical = logical(manifest)
        super().__init__(f"{prefix}-{self.logical}", manifest, opts)


def _marked(manifest: Manifest) -> Manifest:
    """The router's Deployment says whose it is: another stack's runtime is refused there (ClusterObject)."""
    metadata = manifest["metadata"]
    if (manifest["kind"], metadata["name"]) != ("Deployment", ROUTER_NAME):
        return manifest
    mark = {STACK_ANNOTATION: stack_mark(pulumi.get_project(), pulumi.get_stack())}
    return {**manifest, "metadata": {**metadata, "annotations": {**metadata.get("annotations", {}), **mark}}}


def _said_by(manifest: Manifest, before: Sequence[_Part]) -> list[_Part]:
    """What says how many pods of a Deployment there are, where the Deployment does not."""
    silent = manifest["kind"] == "Deployment" and "replicas" not in manifest["spec"]
    return [part for part in before if silent and part.logical == f"deployment-{AUTOSCALER_NAME}"]


def _address(status: Any) -> str:  # noqa: ANN401 - JSON
    """Of the load balancer."""
    balancer = (status or {}).get("loadBalancer") or {}
    return next((str(one.get("ip") or one.get("hostname")) for one in balancer.get("ingress") or ()), "")


def _webhook(plan: RuntimePlan) -> Manifest:
    """The Secret that the autoscaler mounts."""
    text: pulumi.Output[str] = pulumi.Output.secret(plan.webhook)
    data = {WEBHOOK_KEY: text.apply(lambda url: base64.b64encode(url.encode()).decode())}
    return named("v1", "Secret", WEBHOOK_NAME, plan.namespace, data=data)


def _url(plan: RuntimePlan, status: Any) -> str:  # noqa: ANN401 - JSON
    """The address of the router's Service."""
    return router_url(plan.namespace, _address(status))


def _encoded(token: str | None) -> str:
    return base64.b64encode((token or "").encode()).decode()


def _mark(token: str | None) -> str:
    """Tells one token from another, and nothing of it."""
    return keyed_digest(token or "", "router-token")


def _hidden(manifest: Manifest) -> Manifest:
    """What a Secret holds is secret in the state and in every diff."""
    return {**manifest, "data": pulumi.Output.secret(manifest["data"])} if "data" in manifest else manifest


def describe(plan: RuntimePlan) -> list[str]:
    """The figures, for the preview."""
    routers = f"{plan.routers.least} router{'s' * (plan.routers.least != 1)}"
    autoscalers = f"{plan.autoscalers} autoscaler{'s' * (plan.autoscalers != 1)}, one leading"
    return [
        f"inference runtime {plan.name}, purpose {plan.purpose}, namespace {plan.namespace}: {routers}, {autoscalers}",
        *describe_routers(plan.routers),
        f"reached by a Service of type {plan.service_type}{f' at {plan.url}' if plan.url else ''}",
        *(describe_tls(plan.tls) if plan.tls else ()),
        *([dns_line(plan.tls)] if plan.tls and DNS_LABEL not in plan.annotations else ()),
    ]
