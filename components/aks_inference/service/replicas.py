"""The objects of an endpoint on a cluster: for each version a Deployment, a Service and its code. Pure."""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from aks_inference import pods
from aks_inference.images.custom import CustomImage
from aks_inference.kubernetes import WAIT_FOR_READY, Manifest, named
from aks_inference.pods import GPU_TOLERATIONS, RESTRICTED, SPOT_TOLERATIONS, downward, pod_security, spread
from aks_inference.service import data_pods, shared_memory
from aks_inference.service.model_pods import Delivery, fetching, mounts, volumes
from aks_inference.service.placing import PLACING, Placing, code_files
from aks_inference.service.rollouts import progress_s
from aks_inference_runtime.api import kubernetes as k8s
from aks_inference_runtime.api.endpoint import API_VERSION, KIND, Container, EndpointVersion, Protocol
from aks_inference_runtime.api.replica import APP_ROOT, code_folder, entry_script, variables
from aks_inference_runtime.api.target import KubernetesTarget

OF_NAMESPACE = "aks-inference.dev/namespace"
_SCRIPT_FOLDER = "source"
"""Of an entry script without a folder of its own: a file cannot be mounted beside others."""
_GRACE_S = 30
"""Beyond the longest score, for the rest of a pod's end."""
_HUNG_ENDS_S = 10
"""Between the signal and the end of a container that its liveness probe found hung."""
_GIB = 2**30


@dataclass(frozen=True)
class Replica:
    """A version on a cluster."""

    endpoint: str
    namespace: str
    version: EndpointVersion
    target: KubernetesTarget
    placing: Placing = PLACING
    hidden: tuple[str, ...] = ()
    """Names of environment variables whose values are known only later, or secret: they stand in a Secret."""
    delivery: Delivery | None = None
    """None: no models."""
    image: Any = None
    """Found or built, with the code in it; None: the container's own, beside which the code is mounted."""
    custom: CustomImage | None = None
    """In place of the scoring server."""
    shared_memory: int | None = None
    """MiB, of the container that answers; None: the node's own."""
    environment_name: Any = ""
    """Of the Secret with `hidden`: another with each change, so that pods of before keep theirs."""

    @property
    def name(self) -> str:
        """Of Deployment and Service."""
        return k8s.workload_name(self.endpoint, self.version.name)

    @property
    def selector(self) -> dict[str, str]:
        """Labels that only pods of this version have."""
        return {
            k8s.ENDPOINT_LABEL: self.endpoint,
            k8s.VERSION_LABEL: k8s.version_label(self.version.name),
            k8s.COMPONENT_LABEL: k8s.REPLICA_COMPONENT,
        }

    @property
    def labels(self) -> dict[str, str]:
        """Of all objects of the version."""
        return {k8s.PART_OF_LABEL: k8s.PART_OF, **self.selector}

    @property
    def container(self) -> Container:
        """What it runs."""
        assert self.version.container is not None  # noqa: S101 - a version without is refused before
        return self.version.container

    @property
    def mounts_code(self) -> bool:
        """Whether the code travels beside the image."""
        return self.image is None and self.custom is None

    @property
    def code_name(self) -> str:
        """Of the ConfigMap with the code: another with each change."""
        return f"{self.name}-{self.version.code.digest.partition(':')[2][:10]}"


def endpoint_object(
    name: str, namespace: str, wire: Mapping[str, Any], wait_s: int, annotations: Mapping[str, Any]
) -> Manifest:
    """The ScoringEndpoint from its JSON form, without what is only of the machine that applies, and without values of
    environment variables, which the pods have. `wait_s`: for its condition, where no time-out of the resource is given;
    `annotations`: further ones, outputs or texts.
    """
    spec = {key: value for key, value in wire["spec"].items() if key != "port"}
    spec["versions"] = [_public(version) for version in spec["versions"]]
    waits = {**WAIT_FOR_READY, "pulumi.com/timeoutSeconds": str(wait_s)}
    return named(API_VERSION, KIND, name, namespace, annotations={**waits, **annotations}, spec=spec)


def _public(version: Mapping[str, Any]) -> Manifest:
    code, environment = dict(version["code"]), dict(version["environment"])
    folder = code.pop("sourceDirectory", None)
    if folder is not None:
        code["sourceDirectory"] = Path(folder).name or _SCRIPT_FOLDER
    else:
        code["entryScript"] = Path(code["entryScript"]).name
    environment.pop("environmentVariables", None)
    return {**version, "code": code, "environment": environment}


def keys_secret(endpoint: str, namespace: str, target: KubernetesTarget, digests: object) -> Manifest:
    """The digests of the keys, in the runtime's namespace. `digests`: base64, secret."""
    return named(
        "v1",
        "Secret",
        k8s.keys_secret_name(endpoint),
        target.namespace,
        labels={k8s.PART_OF_LABEL: k8s.PART_OF, k8s.ENDPOINT_LABEL: endpoint},
        annotations={OF_NAMESPACE: namespace},
        type="Opaque",
        data={k8s.KEYS_FIELD: digests},
    )


def policy(endpoint: str, namespace: str, target: KubernetesTarget) -> Manifest:
    """Routers reach the replicas of an endpoint, nobody else does; who monitors gets their metrics."""
    routers = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": target.namespace}},
        "podSelector": {"matchLabels": pods.labels(k8s.ROUTER_COMPONENT)},
    }
    selected = {k8s.ENDPOINT_LABEL: endpoint, k8s.COMPONENT_LABEL: k8s.REPLICA_COMPONENT}
    rule = {"from": [routers], "ports": pods.ports(k8s.GATE_PORT, k8s.GATE_CONTROL_PORT)}
    monitoring = {"from": [{"namespaceSelector": {"matchLabels": {pods.MONITORING_LABEL: "true"}}}]}
    metrics = monitoring | {"ports": pods.ports(k8s.GATE_READY_PORT)}
    return pods.policy(namespace, f"{endpoint}-replicas", selected, rule, metrics)


def code_object(replica: Replica) -> Manifest:
    """The code as a ConfigMap. Reads the files. A key has no slash: the volume gives the names back."""
    files = {_key(name): path for name, path in code_files(replica.version.code).items()}
    data = {key: base64.b64encode(path.read_bytes()).decode() for key, path in files.items()}
    return named(
        "v1", "ConfigMap", replica.code_name, replica.namespace, labels=replica.labels, immutable=True, binaryData=data
    )


def _key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def service(replica: Replica) -> Manifest:
    """Headless: its EndpointSlices are how routers hear of replicas."""
    ports = [
        {"name": name, "port": port, "targetPort": port, "protocol": "TCP"}
        for name, port in (("gate", k8s.GATE_PORT), ("gate-control", k8s.GATE_CONTROL_PORT))
    ]
    spec = {"clusterIP": "None", "selector": replica.selector, "ports": ports}
    return named("v1", "Service", replica.name, replica.namespace, labels=replica.labels, spec=spec)


def budget(replica: Replica) -> Manifest:
    """How many replicas a drain may take at once."""
    return pods.budget(replica.namespace, replica.name, replica.selector, labels=replica.labels)


def environment_object(replica: Replica, data: object) -> Manifest:
    """Variables that are not for everybody. `data`: base64, secret."""
    name, labels = replica.environment_name, replica.labels
    return named("v1", "Secret", name, replica.namespace, labels=labels, immutable=True, data=data)


def deployment(replica: Replica) -> Manifest:
    """The pods. It says nothing of `replicas`: the autoscaler owns the scale, also of a fixed number, so that no apply
    ever sets it back.
    """
    version, placing = replica.version, replica.placing
    grace = -(-version.requests.scoring_timeout_ms // 1_000) + _GRACE_S
    pod: Manifest = {
        "automountServiceAccountToken": placing.service_account is not None,
        "terminationGracePeriodSeconds": grace,
        "securityContext": pod_security(),
        "topologySpreadConstraints": spread(replica.selector),
        "initContainers": [*data_pods.shipping(version, replica.target, placing.model_secret), _gate(replica)],
        "containers": [_scoring(replica)],
        "volumes": [
            *_code_volume(replica),
            *data_pods.volumes(replica.name, version, placing.model_secret),
            {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    labels = dict(replica.labels)
    tolerations = GPU_TOLERATIONS if version.resources.gpu_cores else []
    if placing.spot:
        tolerations = [*tolerations, *SPOT_TOLERATIONS]
    if tolerations:
        pod["tolerations"] = tolerations
    if placing.service_account is not None:
        pod["serviceAccountName"] = placing.service_account
        labels["azure.workload.identity/use"] = "true"
    pulls = [*placing.pull_secrets]
    if replica.delivery is not None and replica.delivery.mounted and replica.delivery.secret is not None:
        # The node pulls models like images: with the same Secret that an init container would use.
        pulls += [replica.delivery.secret] if replica.delivery.secret not in pulls else []
    if pulls:
        pod["imagePullSecrets"] = [{"name": name} for name in pulls]
    if replica.delivery is not None:
        if not replica.delivery.mounted:
            # Before the gate: nothing is answered from a pod that has no models yet.
            pod["initContainers"].insert(0, fetching(replica.delivery, replica.target))
        pod["volumes"] += volumes(replica.delivery, replica.target)
    if replica.shared_memory is not None:
        pod["volumes"].append(shared_memory.volume(replica.shared_memory))
    rolling = {"maxSurge": placing.max_surge, "maxUnavailable": placing.max_unavailable}
    spec = {
        "selector": {"matchLabels": replica.selector},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
        "progressDeadlineSeconds": progress_s(version),
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    # The endpoint's own condition says when they are ready, and why they are not.
    at_once = {"pulumi.com/skipAwait": "true"}
    return named(
        "apps/v1",
        "Deployment",
        replica.name,
        replica.namespace,
        labels=replica.labels,
        annotations=at_once,
        spec=spec,
    )


def _code_volume(replica: Replica) -> Iterator[Manifest]:
    if replica.mounts_code:
        yield {"name": "code", "configMap": {"name": replica.code_name, "items": list(_items(replica))}}


def _items(replica: Replica) -> Iterator[Manifest]:
    for name in sorted(code_files(replica.version.code)):
        yield {"key": _key(name), "path": name}


def _folder(replica: Replica) -> str:
    folder = code_folder(replica.version)
    return folder or (_SCRIPT_FOLDER if replica.mounts_code else "")


def _script(replica: Replica) -> str:
    """AZUREML_ENTRY_SCRIPT."""
    script = entry_script(replica.version)
    return str(PurePosixPath(_folder(replica)) / script) if not code_folder(replica.version) else script


def _gate(replica: Replica) -> Manifest:
    """The gate, as a sidecar that starts before and ends after the scoring server."""
    container, requests = replica.container, replica.version.requests
    settings = {
        "endpoint": replica.endpoint,
        "version": replica.version.name,
        "accessLog": True,
        "listenHost": "0.0.0.0",
        "listenPort": k8s.GATE_PORT,
        "upstreamPort": container.port,
        **_spoken(container),
        "maxConcurrent": requests.replica_max_concurrent_requests,
        "scoringTimeoutMs": requests.scoring_timeout_ms,
        "queueTimeoutMs": requests.max_request_wait_time,
        "hungAfterMs": k8s.HUNG_AFTER_MS,
    }
    if replica.target.otlp_endpoint is not None:
        settings |= {"otlpEndpoint": replica.target.otlp_endpoint, "traceRatio": replica.target.trace_ratio}
    if container.health_port is not None:
        settings["healthPort"] = container.health_port
    probe = {"port": "gate-ready", "scheme": "HTTP"}
    return {
        "name": "gate",
        "image": replica.target.image,
        "command": ["python", "-m", "aks_inference_runtime.kubernetes.gate"],
        "restartPolicy": "Always",
        "env": [
            {"name": k8s.GATE_VARIABLE, "value": json.dumps(settings, sort_keys=True)},
            {"name": "PYTHONUNBUFFERED", "value": "1"},
            *downward(k8s.REPLICA_VARIABLE),
        ],
        "ports": [
            {"name": "gate", "containerPort": k8s.GATE_PORT, "protocol": "TCP"},
            {"name": "gate-control", "containerPort": k8s.GATE_CONTROL_PORT, "protocol": "TCP"},
            {"name": "gate-ready", "containerPort": k8s.GATE_READY_PORT, "protocol": "TCP"},
        ],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        "readinessProbe": {"httpGet": {"path": "/readyz", **probe}, "periodSeconds": 1, "failureThreshold": 2},
        "livenessProbe": {"httpGet": {"path": "/livez", **probe}, "periodSeconds": 10, "failureThreshold": 3},
        "securityContext": RESTRICTED,
        "volumeMounts": [{"name": "run", "mountPath": "/run/aks-inference"}],
    }


def _spoken(container: Container) -> Manifest:
    """What the gate is told of the container's protocol. One of HTTP is what it was before there was another."""
    if container.protocol is Protocol.HTTP:
        paths = {"scorePath": container.score_path, "swaggerPath": container.swagger_path}
        return {**paths, "healthPath": container.health_path}
    if container.health_protocol is Protocol.GRPC:
        return {"protocol": "grpc", "healthProtocol": "grpc"}
    return {"protocol": "grpc", "healthPath": container.health_path}


def _scoring(replica: Replica) -> Manifest:
    """The container that answers: the scoring server, or a custom image's."""
    if replica.custom is not None:
        return _custom(replica, replica.custom)
    container = replica.container
    told = variables(replica.endpoint, replica.version) | {"AZUREML_ENTRY_SCRIPT": _script(replica)}
    if folder := _folder(replica):
        told["AZUREML_SOURCE_DIRECTORY"] = folder
    code = {"name": "code", "mountPath": f"{APP_ROOT}/{folder}", "readOnly": True}
    return {
        **_answering(replica, told, [*([code] if replica.mounts_code else []), *data_pods.mounts(replica.version)]),
        "image": container.image if replica.image is None else replica.image,
        "command": ["azmlinfsrv", "--entry_script", f"{APP_ROOT}/{_script(replica)}", "--port", str(container.port)],
        "workingDir": f"{APP_ROOT}/{folder}".rstrip("/"),
        "securityContext": RESTRICTED,
    }


def _custom(replica: Replica, custom: CustomImage) -> Manifest:
    security = {**RESTRICTED, "readOnlyRootFilesystem": not custom.writable}
    result = {
        **_answering(replica, dict(replica.version.environment.environment_variables), []),
        "image": custom.image,
        "securityContext": security | ({"runAsUser": custom.user} if custom.user is not None else {}),
    }
    if custom.command:
        result["command"] = list(custom.command)
    if custom.arguments:
        result["args"] = list(custom.arguments)
    return result


def _answering(replica: Replica, told: Mapping[str, Any], mounted: list[Manifest]) -> Manifest:
    """What every container has that answers the gate. `told`: its variables."""
    version, probe = replica.version, replica.version.liveness_probe
    if replica.delivery is not None:
        told = {**told, "AZUREML_MODEL_DIR": replica.delivery.directory}
        mounted = [*mounted, *mounts(replica.delivery)]
    if replica.shared_memory is not None:
        mounted = [*mounted, shared_memory.mount()]
    result: Manifest = {
        "name": "scoring",
        "env": [{"name": n, "value": v} for n, v in sorted(told.items()) if n not in replica.hidden],
        "resources": _resources(version),
        # Of the port, and of what the gate waits for: the scoring worker's own paths have no answer while it scores,
        # and the port of one that hangs still takes connections.
        "livenessProbe": {
            "httpGet": {"path": k8s.REPLICA_LIVENESS_PATH, "port": k8s.GATE_READY_PORT, "scheme": "HTTP"},
            "periodSeconds": probe.period_seconds,
            "initialDelaySeconds": probe.initial_delay_seconds,
            "timeoutSeconds": probe.timeout_seconds,
            "successThreshold": 1,
            "failureThreshold": probe.failure_threshold,
            # What hangs does not come back, however long it may end: `preStop` would wait for it.
            "terminationGracePeriodSeconds": _HUNG_ENDS_S,
        },
        # The gate answers when nothing runs any more: only then the server is told to end.
        "lifecycle": {"preStop": {"httpGet": {"path": "/drained", "port": k8s.GATE_READY_PORT, "scheme": "HTTP"}}},
        "volumeMounts": [*mounted, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - a volume of the pod's own
    }
    if replica.hidden:
        result["envFrom"] = [{"secretRef": {"name": replica.environment_name}}]
    return result


def _resources(version: EndpointVersion) -> Manifest:
    wanted = version.resources
    requests = {"cpu": _cores(wanted.cpu_cores), "memory": _bytes(wanted.memory_gb)}
    limits: Manifest = {}
    if wanted.cpu_cores_limit is not None:
        limits["cpu"] = _cores(wanted.cpu_cores_limit)
    if wanted.memory_gb_limit is not None:
        limits["memory"] = _bytes(wanted.memory_gb_limit)
    if wanted.gpu_cores:
        limits["nvidia.com/gpu"] = str(wanted.gpu_cores)
    return {"requests": requests, **({"limits": limits} if limits else {})}


def _cores(value: float) -> str:
    return f"{round(value * 1_000)}m"


def _bytes(gigabytes: float) -> str:
    """Whole MiB, as the server writes them back."""
    return f"{round(gigabytes * _GIB / 2**20)}Mi"
