"""`python -m aks_inference_provider.cli`."""

from aks_inference_provider.cli import main

main()
