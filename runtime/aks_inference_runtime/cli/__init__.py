"""`aks-inference`: looks at what runs on this machine or a cluster and tries it; gets tokens; keys, finds and builds
images; sizes services by simulation."""

from aks_inference_runtime.cli.commands import main

__all__ = ["main"]
