"""`aks-inference`: looks at what runs on this machine and tries it."""

from aks_inference_runtime.cli.commands import main

__all__ = ["main"]
