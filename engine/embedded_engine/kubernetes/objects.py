"""Pure questions about manifests and live objects: names, identities, what cannot change, what is secret."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from embedded_engine import model, values
from embedded_engine.kubernetes.errors import KubernetesError
from embedded_engine.model import Properties, Value

PACKAGE = "kubernetes"
SKIP_AWAIT = "pulumi.com/skipAwait"
WAIT_FOR = "pulumi.com/waitFor"
PATCH_FORCE = "pulumi.com/patchForce"
PROPAGATION = "pulumi.com/deletionPropagationPolicy"
TIMEOUT = "pulumi.com/timeoutSeconds"

_UNSUPPORTED = ("helm.sh/", "kustomize:", "yaml:", "yaml/")
_VOLATILE = ("uid", "resourceVersion", "creationTimestamp", "generation")
_SUFFIX_LENGTH = 8
_IDENTITY = ("apiVersion", "kind", "metadata.name", "metadata.namespace")

# Fields that the API server never lets change; for other kinds its own refusal of a dry run says so.
_FIXED: Mapping[str, tuple[str, ...]] = {
    "Deployment": ("spec.selector",),
    "ReplicaSet": ("spec.selector",),
    "DaemonSet": ("spec.selector",),
    "StatefulSet": ("spec.selector", "spec.serviceName", "spec.podManagementPolicy", "spec.volumeClaimTemplates"),
    "Job": ("spec.selector", "spec.template", "spec.completionMode"),
    "Service": ("spec.clusterIP", "spec.clusterIPs"),
    "RoleBinding": ("roleRef",),
    "ClusterRoleBinding": ("roleRef",),
    "Secret": ("type",),
    "PersistentVolumeClaim": ("spec.accessModes", "spec.storageClassName", "spec.volumeName", "spec.selector"),
    "StorageClass": ("provisioner", "parameters", "reclaimPolicy", "volumeBindingMode"),
}


def of_token(token: str) -> tuple[str, str]:
    """API version and kind of `kubernetes:apps/v1:Deployment`. Raises KubernetesError for what is not supported."""
    package, version, kind = token.split(":")
    if version == "core/v1":
        version = "v1"
    if any(f"{version}:".startswith(part) for part in _UNSUPPORTED):
        raise KubernetesError(
            f"{package}:{version}:{kind} needs the official plugin: put pulumi-resource-kubernetes on PATH"
        )
    if kind.endswith(("Patch", "List")) and kind not in ("Patch", "List"):
        raise KubernetesError(f"{token} needs the official plugin: declare the objects themselves")
    return version, kind


def completed(urn: str, olds: Properties, news: Properties, namespace: str, seed: bytes) -> Properties:
    """A manifest with version, kind, name and (where the program named none) the name that it had.

    `namespace`: of one that the program puts in none; empty for a kind that has no namespaces.
    """
    version, kind = of_token(model.urn_type(urn))
    metadata = dict(news.get("metadata") or {})
    if not metadata.get("name") and not metadata.get("generateName"):
        old = (values.unwrap(olds).get("metadata") or {}).get("name") if olds else None
        digest = hashlib.sha256(seed or urn.encode()).hexdigest()[:_SUFFIX_LENGTH]
        metadata["name"] = old or f"{model.urn_name(urn).lower()}-{digest}"
        metadata["annotations"] = {**(metadata.get("annotations") or {}), "pulumi.com/autonamed": "true"}
    if not metadata.get("namespace") and namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": version, "kind": kind, **news, "metadata": metadata}


def manifest(inputs: Properties) -> dict[str, Any]:
    """The inputs as the API server takes them."""
    plain: dict[str, Any] = values.unwrap(values.plain_outputs(inputs))
    return plain


def name_of(plain: Mapping[str, Any]) -> str:
    """The object's name."""
    return str(plain["metadata"]["name"])


def namespace_of(plain: Mapping[str, Any]) -> str:
    """Empty where none is named."""
    return str((plain.get("metadata") or {}).get("namespace") or "")


def without_namespace(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The same object, where its kind has no namespaces."""
    return {**plain, "metadata": {key: value for key, value in plain["metadata"].items() if key != "namespace"}}


def beside(name: str) -> str:
    """Another name, as good as this one."""
    return f"{name[: 62 - _SUFFIX_LENGTH]}-{hashlib.sha256(name.encode()).hexdigest()[:_SUFFIX_LENGTH]}"


def identity(plain: Mapping[str, Any], namespaced: bool) -> str:
    """The id: `namespace/name`, or the name."""
    name = name_of(plain)
    return f"{plain['metadata'].get('namespace') or 'default'}/{name}" if namespaced else name


def of_identity(text: str) -> tuple[str, str]:
    """Namespace (empty where there is none) and name."""
    namespace, _, name = text.rpartition("/")
    return namespace, name


def annotation(plain: Mapping[str, Any], name: str) -> str:
    """Empty where there is none."""
    return str(((plain.get("metadata") or {}).get("annotations") or {}).get(name) or "")


def manager_of(urn: str) -> str:
    """The field manager: one for each resource, the same for its whole life."""
    return f"pulumi-kubernetes-{hashlib.sha256(urn.encode()).hexdigest()[:_SUFFIX_LENGTH]}"


def outputs(live: Mapping[str, Any], inputs: Properties, manager: str, *, preview: bool = False) -> Properties:
    """The state: the live object, what is secret marked so, and what the official plugin keeps."""
    shown = {key: value for key, value in live.items() if key != "metadata"}
    metadata = {key: value for key, value in (live.get("metadata") or {}).items() if key != "managedFields"}
    if preview:
        metadata |= {key: values.UNKNOWN for key in _VOLATILE if key in metadata}
        shown.pop("status", None)
    shown["metadata"] = metadata
    result = values.annotate_secrets(shown, inputs)
    if live.get("kind") == "Secret":
        result |= {key: values.secret(result[key]) for key in ("data", "stringData") if key in result}
    own = {"__fieldManager": manager, "__initialApiVersion": inputs.get("apiVersion"), "__inputs": inputs}
    return {**result, **own}


def conflict(causes: Sequence[tuple[str, str]]) -> str:
    """Why fields are not taken from somebody else in silence, and what to do. `causes`: (field, message)."""
    held: dict[str, list[str]] = {}
    for field, message in causes:
        held.setdefault(message.removeprefix("conflict with "), []).append(field)
    who = "; ".join(f"{manager} has set {', '.join(fields)}" for manager, fields in held.items())
    return (
        f"{who}: set them to the declared values with kubectl, or remove that manager's fields "
        "(metadata.managedFields), then `up` again; on an object that you declare yourself the annotation "
        f'{PATCH_FORCE}: "true" takes them over'
    )


def is_custom(api_version: str) -> bool:
    """Whether a definition makes the kind: its fields may change in the same run. The server's own groups have no dot
    or are Kubernetes' own.
    """
    group = api_version.rpartition("/")[0]
    return "." in group and not group.endswith(".k8s.io")


def unchangeable(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Paths that differ and that no update can change."""
    fixed = [*_IDENTITY, *_FIXED.get(str(new.get("kind")), ())]
    if old.get("immutable") is True:
        fixed += ["data", "stringData", "binaryData", "immutable"]
    return [path for path in fixed if not values.equal(_normal(path, _at(old, path)), _normal(path, _at(new, path)))]


def _normal(path: str, value: Value) -> Value:
    """What a missing value means."""
    return "default" if path == "metadata.namespace" and not value else value


def _at(value: Value, path: str) -> Value:
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def differences(old: Value, new: Value, path: str = "") -> Iterator[tuple[str, str]]:
    """(path, `add` | `delete` | `update`) of all leaves that differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping) and values.SIGNATURE not in {*old, *new}:
        for key in sorted({*old, *new}):
            where = _joined(path, key)
            if key not in old:
                yield where, "add"
            elif key not in new:
                yield where, "delete"
            else:
                yield from differences(old[key], new[key], where)
    elif isinstance(old, list) and isinstance(new, list):
        for index in range(max(len(old), len(new))):
            where = f"{path}[{index}]"
            if index >= len(old):
                yield where, "add"
            elif index >= len(new):
                yield where, "delete"
            else:
                yield from differences(old[index], new[index], where)
    elif not values.equal(old, new):
        yield path, "update"


def _joined(path: str, key: str) -> str:
    if not key.replace("_", "").replace("-", "").isalnum():
        return f'{path}["{key}"]'
    return f"{path}.{key}" if path else key


def drifted(inputs: Value, wanted: Value, live: Value) -> Value:
    """The inputs as the live object has them. `wanted`: what an apply of the inputs would give, so that defaults and
    other spellings of the same quantity are no drift.
    """
    if values.equal(wanted, live):
        return inputs
    if values.is_secret(inputs):
        return values.secret(drifted(inputs["value"], wanted, live))
    if isinstance(inputs, Mapping) and isinstance(wanted, Mapping) and isinstance(live, Mapping):
        return {
            key: drifted(value, wanted.get(key), live[key])
            for key, value in inputs.items()
            if live.get(key) is not None
        }
    if isinstance(inputs, list) and isinstance(wanted, list) and isinstance(live, list):
        if len(inputs) == len(wanted) == len(live):
            return [drifted(*three) for three in zip(inputs, wanted, live, strict=True)]
        return live
    return live
