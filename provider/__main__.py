"""Started by the engine as `python <this folder> <engine address>`."""

from aks_inference_provider.plugin import main

main()
