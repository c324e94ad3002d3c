"""`aks-inference`: looks at what runs on this machine and tries it; keys, finds and builds images;
sizes services by simulation."""

from aks_inference_runtime.cli.commands import main
from aks_inference_runtime.cli.models import models_group
from aks_inference_runtime.cli.simulate import simulate_command
from aks_inference_runtime.images.cli import image_group

main.add_command(image_group)
main.add_command(models_group)
main.add_command(simulate_command)

__all__ = ["main"]
