"""Where the files of a model come from: this machine, the web, Blob Storage, a registry, an MLflow server."""

from aks_inference_runtime.api.models import is_remote
from aks_inference_runtime.models.sources.address import Address, Scheme, parse_address
from aks_inference_runtime.models.sources.fetch import Fetched, SourceSettings, fetch, revision

__all__ = ["Address", "Fetched", "Scheme", "SourceSettings", "fetch", "is_remote", "parse_address", "revision"]
