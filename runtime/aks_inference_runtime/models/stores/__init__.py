"""Stores of models: a folder, Azure Blob Storage, an OCI registry; the same versions by the same rules in each."""

from aks_inference_runtime.models.stores.open import open_store, parse_store
from aks_inference_runtime.models.stores.store import ModelStore, Upload

__all__ = ["ModelStore", "Upload", "open_store", "parse_store"]
