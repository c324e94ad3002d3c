"""The router: HAProxy as the data plane, an agent that configures and observes it, a gate at each replica."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aks_inference_runtime.router.haproxy_router import HaproxyRouter

__all__ = ["HaproxyRouter"]


def __getattr__(name: str) -> object:
    # A gate process imports this package too and should not carry the agent.
    if name == "HaproxyRouter":
        from aks_inference_runtime.router.haproxy_router import HaproxyRouter

        return HaproxyRouter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
