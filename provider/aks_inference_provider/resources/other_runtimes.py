"""The runtimes that are in a cluster already: one serves there, and it is one stack's."""

from collections.abc import Mapping
from typing import Any

from aks_inference_provider.resources.base import Urn
from aks_inference_runtime.api.errors import NotFound
from aks_inference_runtime.api.kubernetes import ROUTER_NAME, STACK_ANNOTATION, stack_mark
from aks_inference_runtime.kubernetes.client import Api

Object = Mapping[str, Any]
MANAGER = "pulumi-kubernetes"
"""Field managers of Pulumi's begin with it, each resource's its own."""
DEPLOYMENTS = "/apis/apps/v1/deployments"


async def there(api: Api, path: str) -> dict[str, Any] | None:
    """None: there is no such object."""
    try:
        return await api.get(path)
    except NotFound:
        return None


def pulumis(live: Object) -> list[str]:
    """The field manager of each resource of Pulumi's that has applied something to an object."""
    fields = (live.get("metadata") or {}).get("managedFields") or ()
    applied = [
        str(one.get("manager")) for one in fields if one.get("operation") == "Apply" and not one.get("subresource")
    ]
    return [manager for manager in applied if manager.startswith(MANAGER)]


def mark_of(router: Object) -> str:
    """The stack that declares a runtime; empty: none says so."""
    return str((router["metadata"].get("annotations") or {}).get(STACK_ANNOTATION, ""))


def is_own(router: Object, urn: Urn) -> bool:
    """Whether this stack has applied it; one that Pulumi applied without a mark is from before there were any."""
    mark = mark_of(router)
    return mark == stack_mark(urn.project, urn.stack) if mark else bool(pulumis(router))


async def refusal(api: Api, namespace: str, urn: Urn, left: str | None = None) -> str | None:
    """Why no runtime of this stack can be in a namespace. One that is in `left` goes in the same apply.

    A runtime of others in the same namespace that Pulumi has not applied may be taken over: that is told, not refused.
    Raises as `Api.get`.
    """
    routers, _ = await api.list(DEPLOYMENTS, fields=f"metadata.name={ROUTER_NAME}")
    for router in routers:
        where, mark = router["metadata"]["namespace"], mark_of(router)
        if router["metadata"].get("deletionTimestamp"):
            continue
        if where == namespace:
            if is_own(router, urn) or not mark:
                continue
            own = stack_mark(urn.project, urn.stack)
            return (
                f"{namespace!r} has the inference runtime of the stack {mark}: whichever of the two stacks is "
                f"destroyed first removes it for both; name its output `target` as the target of services, or destroy "
                f"that stack first; if it is gone, take the runtime over: kubectl -n {namespace} annotate --overwrite "
                f"deployment {ROUTER_NAME} {STACK_ANNOTATION}={own}"
            )
        space = None if where == left else await there(api, f"/api/v1/namespaces/{where}")
        if space is not None and not space["metadata"].get("deletionTimestamp"):
            whose = f" (of the stack {mark})" if mark else ""
            return (
                f"{namespace!r} would be the second inference runtime of this cluster, one is in namespace "
                f"{where!r}{whose}: both would scale and route the same endpoints; name its output `target` as the "
                f"target of services, or destroy it first (a runtime that only moves keeps its name in the program)"
            )
    return None
