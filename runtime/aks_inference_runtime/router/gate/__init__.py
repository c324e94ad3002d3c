"""The gate: one small process at each replica that counts what really runs there and refuses the rest (I1)."""

from aks_inference_runtime.router.gate.client import GateClient
from aks_inference_runtime.router.gate.settings import GateSettings, GateStatus

__all__ = ["GateClient", "GateSettings", "GateStatus"]
