"""`aks-inference`: looks at what runs on this machine and tries it; keys, finds and builds images;
sizes services by simulation."""

from aks_inference_runtime.cli.commands import main, take_json
from aks_inference_runtime.cli.models import models_group
from aks_inference_runtime.cli.simulate import simulate_command
from aks_inference_runtime.images.cli import image_group

for group in (image_group, models_group):
    take_json(group)
    main.add_command(group)
main.add_command(simulate_command)

__all__ = ["main"]
