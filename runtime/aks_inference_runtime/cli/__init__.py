"""`aks-inference`: looks at what runs on this machine or a cluster and tries it; gets tokens; keys, finds and builds
images; sizes services by simulation."""

from aks_inference_runtime.cli import look
from aks_inference_runtime.cli.commands import main, take_json
from aks_inference_runtime.cli.models import models_group
from aks_inference_runtime.cli.simulate import simulate_command
from aks_inference_runtime.cli.token import token_command
from aks_inference_runtime.images.cli import image_group

for group in (image_group, models_group):
    take_json(group)
    main.add_command(group)
for one in (simulate_command, token_command):
    main.add_command(one)

__all__ = ["look", "main"]
