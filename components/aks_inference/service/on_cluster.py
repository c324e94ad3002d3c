"""The children of an endpoint on a Kubernetes target, and its outputs."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pulumi

from aks_inference.component import known
from aks_inference.images.child import image_resource
from aks_inference.images.registry import RegistryPlan
from aks_inference.kubernetes import KubernetesObject, KubernetesProvider, Manifest, logical
from aks_inference.resources import EndpointKeys, EndpointName, ImageVolumes
from aks_inference.service import data_pods, replicas
from aks_inference.service.endpoint import EndpointPlan, VersionPlan
from aks_inference.service.insights import shown_to_engine
from aks_inference.service.model_pods import Delivery
from aks_inference.service.replicas import Replica
from aks_inference.service.rollouts import progress_s, template_digest, with_digest
from aks_inference.service.stored import can_mount, directory_of, register_stored
from aks_inference_runtime.api.addresses import endpoint_addresses
from aks_inference_runtime.api.endpoint import AuthMode
from aks_inference_runtime.api.keys import keyed_digest
from aks_inference_runtime.api.kubernetes import DECLARER_ANNOTATION, declarer

_TOLD_S = 60
"""Beyond the rollout's own time: a rollout that is given up says why, where a wait that ends does not."""


@dataclass(frozen=True)
class Served:
    """What a service says of itself."""

    scoring_uri: pulumi.Output[str]
    swagger_uri: pulumi.Output[str]
    primary_key: pulumi.Output[str | None]
    secondary_key: pulumi.Output[str | None]
    state: pulumi.Output[str]


class ClusterEndpoint:
    """Registers the objects of one endpoint, each after what it needs."""

    def __init__(self, name: str, plan: EndpointPlan, child: pulumi.ResourceOptions) -> None:
        """`child`: the options that all children have."""
        target = plan.target.kubernetes
        assert target is not None  # noqa: S101 - the plan's rules refuse a cluster that is not known
        self._name, self._plan, self._child, self._target = name, plan, child, target
        provider = getattr(plan.target.cluster, "_provider", None)
        self._volumes: ImageVolumes | None = None
        self._images: dict[str, Any] = {}
        """Of versions whose image is known only later."""
        self._templates: dict[str, pulumi.Output[str]] = {}
        """Digest of each version's pods."""
        self._key: pulumi.Output[str | None] | None = None
        """Of digests of secrets."""
        # Before anything is applied.
        place = {"name": plan.name, "namespace": plan.endpoint.metadata.namespace}
        self._claim = EndpointName(name, {**place, **self._access()}, self._after_cluster())
        self._provider = provider or KubernetesProvider(name, target.kubeconfig, target.context, child)

    def serve(self) -> Served:
        """Registers everything."""
        plan, space = self._plan, self._plan.endpoint.metadata.namespace
        keys = self._keys()
        waits: list[pulumi.Resource] = [self._object(replicas.policy(plan.name, space, self._target))]
        if keys is not None:
            digests = keys.digests.apply(_encoded)
            waits.append(self._object(replicas.keys_secret(plan.name, space, self._target, digests)))
        for version in plan.versions:
            waits += self._version(version)
        wire = plan.wire()
        for declared in wire["spec"]["versions"]:
            declared["podTemplate"] = self._templates[declared["name"]]
            if (image := self._images.get(declared["name"])) is not None:
                declared["container"]["image"] = image
        # The pods are waited for by the endpoint's condition: first it must be there, so that they get their number.
        wait_s = max(progress_s(version.version) for version in plan.versions) + _TOLD_S
        # Of two endpoints of one name the older is served: in another namespace it must go first.
        first = pulumi.ResourceOptions(delete_before_replace=True)
        # Whose it is: another resource, or another stack, is refused there.
        mark = {DECLARER_ANNOTATION: self._claim.urn.apply(declarer)}
        served = self._object(replicas.endpoint_object(plan.name, space, wire, wait_s, mark), *waits, opts=first)
        scoring_uri, swagger_uri = self._addresses(served)
        nothing: pulumi.Output[str | None] = pulumi.Output.from_input(None)
        return Served(
            scoring_uri=scoring_uri,
            swagger_uri=swagger_uri,
            primary_key=nothing if keys is None else keys.primary_key,
            secondary_key=nothing if keys is None else keys.secondary_key,
            state=served.status.apply(lambda status: _text(status, "state")),
        )

    def _addresses(self, served: KubernetesObject) -> tuple[pulumi.Output[str], pulumi.Output[str]]:
        """By the runtime's address where that is in sight: it may change where nothing of the endpoint does."""
        url = None if self._plan.target.cluster is None else self._plan.target.cluster._url
        if url is None:
            told = served.status
            return told.apply(lambda s: _text(s, "scoringUri")), told.apply(lambda s: _text(s, "swaggerUri"))
        name, protocol = self._plan.name, self._plan.endpoint.spec.protocol
        # With the id: nobody is to use them before it is served.
        found: pulumi.Output[Any] = pulumi.Output.all(url, served.id)
        both = found.apply(lambda got: endpoint_addresses(got[0], name, protocol))
        return both.apply(lambda addresses: addresses[0]), both.apply(lambda addresses: addresses[1])

    def _keys(self) -> EndpointKeys | None:
        plan = self._plan
        if plan.endpoint.spec.auth is not AuthMode.KEY:
            return None
        inputs = {
            "primaryKey": None if plan.primary_key is None else pulumi.Output.secret(plan.primary_key),
            "secondaryKey": None if plan.secondary_key is None else pulumi.Output.secret(plan.secondary_key),
            "keyVersion": plan.key_version,
        }
        return EndpointKeys(self._name, inputs, self._child)

    def _version(self, planned: VersionPlan) -> list[pulumi.Resource]:
        plan = self._plan
        used: list[pulumi.Resource] = []
        replica = Replica(
            endpoint=plan.name,
            namespace=plan.endpoint.metadata.namespace,
            version=planned.version,
            target=self._target,
            placing=planned.placing,
            hidden=tuple(sorted(planned.late_variables)),
            delivery=self._delivery(planned, used),
            image=self._image(planned, used),
            custom=planned.image.custom,
            shared_memory=planned.image.shared_memory,
        )
        service = self._object(replicas.service(replica))
        self._object(replicas.budget(replica))
        after: list[pulumi.Resource] = [service, *used]
        if replica.mounts_code:
            after.append(self._object(replicas.code_object(replica)))
        if replica.version.model_data is not None:
            package = data_pods.package_object(replica.name, replica.namespace, replica.labels)
            after.append(self._object(package))
        if replica.hidden:
            replica = replace(replica, environment_name=self._environment(replica, planned.late_variables))
        manifest = replicas.deployment(replica)
        whole: pulumi.Output[Any] = pulumi.Output.from_input(manifest)
        digest = self._templates[planned.version.name] = whole.apply(template_digest)
        return [service, self._object(with_digest(manifest, digest), *after)]

    def _environment(self, replica: Replica, variables: Mapping[str, Any]) -> pulumi.Output[str]:
        """The name of a Secret with these variables, which is made where it is known: another one for other values.

        So the one before stays until the Deployment has the new one, and a way back to it makes nothing anew.
        """
        if self._key is None:
            self._key = EndpointKeys(f"{self._name}-variables", {}, self._child).primary_key
        late = {name: shown_to_engine(value) for name, value in variables.items()}

        def made(found: Any) -> pulumi.Output[str]:  # noqa: ANN401 - JSON
            key, values = found
            digest = keyed_digest(key or "", json.dumps(values, sort_keys=True))
            named = replace(replica, environment_name=f"{replica.name}-environment-{digest}")
            data = {name: _encoded(str(value)) for name, value in values.items()}
            secret = self._object(replicas.environment_object(named, pulumi.Output.secret(data)))
            return known(str(named.environment_name), secret)

        both: pulumi.Output[Any] = pulumi.Output.all(self._key, pulumi.Output.all(**late))
        return pulumi.Output.unsecret(both.apply(made))

    def _image(self, planned: VersionPlan, used: list[pulumi.Resource]) -> pulumi.Output[str] | None:
        """The image of a version that is found or built. `used` gets its resource."""
        version, content = planned.version.name, planned.image.content
        if planned.image.custom is not None:
            self._images[version] = planned.image.custom.image
        if content is None:
            return None
        found = image_resource(f"{self._name}-{version}-image", self._registry(), content, self._child)
        used.append(found)
        self._images[version] = found.image
        return found.image

    def _registry(self) -> RegistryPlan:
        """With its login, where the cluster is in sight or its text says it."""
        plan: RegistryPlan | None = getattr(self._plan.target.cluster, "_registry", None)
        assert self._target.registry is not None  # noqa: S101 - the plan's rules ask for one
        return plan or RegistryPlan(self._target.registry)

    def _delivery(self, planned: VersionPlan, used: list[pulumi.Resource]) -> Delivery | None:
        """The models of a version. `used` gets the resources that look them up and protect them."""
        if not planned.models:
            return None
        mounted = self._target.model_volumes and can_mount(planned.models)
        if mounted:
            used.append(self._image_volumes())
        stored = register_stored(self._name, self._plan.name, planned, self._child, mounted=mounted)
        used += stored.resources
        directory, secret = directory_of(planned.models), planned.placing.model_secret
        return Delivery(stored.models, directory, secret, stored.mounted)

    def _image_volumes(self) -> ImageVolumes:
        """One for all versions: whether the cluster can do it."""
        if self._volumes is None:
            self._volumes = ImageVolumes(f"{self._name}-volumes", self._access(), self._after_cluster())
        return self._volumes

    def _access(self) -> dict[str, Any]:
        """Which cluster, as resources that look at it are told."""
        given = getattr(self._plan.target.cluster, "_kubeconfig", None)
        given = self._target.kubeconfig if given is None else given
        kubeconfig = None if given is None else pulumi.Output.secret(given)
        return {"kubeconfig": kubeconfig, "context": self._target.context}

    def _after_cluster(self, *after: pulumi.Resource) -> pulumi.ResourceOptions:
        """Options of a child. The runtime brings the definition, and the namespace of the keys' digests."""
        runtime = [] if self._plan.target.cluster is None else [self._plan.target.cluster]
        return pulumi.ResourceOptions.merge(self._child, pulumi.ResourceOptions(depends_on=[*runtime, *after]))

    def _object(
        self, manifest: Manifest, *after: pulumi.Resource, opts: pulumi.ResourceOptions | None = None
    ) -> KubernetesObject:
        options = pulumi.ResourceOptions(provider=self._provider)
        options = pulumi.ResourceOptions.merge(self._after_cluster(self._claim, *after), options)
        merged = pulumi.ResourceOptions.merge(options, opts)
        return KubernetesObject(f"{self._name}-{logical(manifest)}", manifest, merged)


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _text(status: Any, name: str) -> str:  # noqa: ANN401 - JSON
    return str((status or {}).get(name) or "")
