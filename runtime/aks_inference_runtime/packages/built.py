"""Whether an environment of this machine is there already, so that no index need be asked."""

from aks_inference_runtime.local.built import is_built

__all__ = ["is_built"]
