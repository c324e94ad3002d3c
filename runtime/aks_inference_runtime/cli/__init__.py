"""`aks-inference`: looks at what runs on this machine and tries it; keys, finds and builds images."""

from aks_inference_runtime.cli.commands import main
from aks_inference_runtime.images.cli import image_group

main.add_command(image_group)

__all__ = ["main"]
