"""Model data collection: the rules, and whether a script asks for it.

Azure ML wrote into the workspace's storage account; here the store is an argument.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from aks_inference.findings import Finding, Severity
from aks_inference.service.code import absolute
from aks_inference.service.placing import code_files
from aks_inference.service.settings import VersionSettings
from aks_inference.targets import TargetChoice
from aks_inference.values import Read
from aks_inference_runtime.api.endpoint import Code, ModelData
from aks_inference_runtime.api.errors import InvalidInput

PACKAGE = re.compile(rb"azureml\s*\.\s*monitoring|from\s+azureml\s+import\s+[^\n]*\bmonitoring\b")
"""What a script imports to collect, as its text shows it."""
WORKSPACE = re.compile(r"[^/\s]+/[^/\s]+/[^/\s]+")
_MEND = "give az://account/container[/prefix], or a folder on the local target"


def model_data_findings(read: Read[Any], target: TargetChoice | None, code: Code | None) -> Iterator[Finding]:
    """The rules. `code`: None where it is not read, or not ours."""
    settings: VersionSettings = read.spec
    store, at = settings.model_data_store, ("model_data_store",)
    if not read.whole("collect_model_data", "model_data_store"):
        return
    if not settings.collect_model_data:
        for name in ("model_data_store", "model_data_workspace"):
            value = getattr(settings, name)
            if value is not None:
                rule = "has no effect without @collect_model_data"
                yield Finding((name,), rule, "add @collect_model_data true", value, Severity.WARNING)
        return
    if settings.custom_image is not None:
        rule = "has no effect with @custom_image: its container has no entry script that collects"
        yield Finding(("collect_model_data",), rule, "leave it out", value=True)
        return
    if store is None:
        rule = "is required with @collect_model_data: in Azure ML it was the workspace's storage account"
        yield Finding(at, rule, _MEND)
    elif target is not None:
        yield from _store(store, on_cluster=target.on_cluster)
    workspace = settings.model_data_workspace
    if workspace is not None and not WORKSPACE.fullmatch(workspace):
        rule = "is not <subscription>/<resource group>/<workspace>"
        yield Finding(("model_data_workspace",), rule, "give the three names with / between them", workspace)
    if code is not None and not asks_for_it(code):
        rule = "has nothing to collect: no script imports azureml.monitoring"
        mend = "hand data to its ModelDataCollector, or leave this out"
        yield Finding(("collect_model_data",), rule, mend, value=True, severity=Severity.WARNING)


def _store(store: str, *, on_cluster: bool) -> Iterator[Finding]:
    at = ("model_data_store",)
    if not on_cluster:
        if "://" in store:
            rule = "is for a Kubernetes target" if store.startswith("az://") else "is no folder"
            yield Finding(at, rule, "give a folder of this machine", store)
        return
    from aks_inference_runtime.models.stores.open import blob_place

    try:
        blob_place(store)
    except InvalidInput as error:
        yield Finding(at, str(error), "", store)


def model_data(settings: VersionSettings, code: Code) -> ModelData | None:
    """What the replicas are told. A script that imports the package needs it also where nothing is collected: the
    switch alone decides, not the script.
    """
    if not settings.collect_model_data:
        return ModelData() if settings.custom_image is None and asks_for_it(code) else None
    store = settings.model_data_store
    assert store is not None  # noqa: S101 - the rules ask for one
    given = settings.model_data_workspace
    place = store.rstrip("/") if store.startswith("az://") else str(absolute(store))
    return ModelData(store=place) if given is None else ModelData(store=place, workspace=given)


def asks_for_it(code: Code) -> bool:
    """Whether one of the version's Python files imports the package. Reads them."""
    return bool(code.entry_script) and _asks(code.digest, code)


@lru_cache(maxsize=256)
def _asks(_digest: str, code: Code) -> bool:
    files = (path for name, path in code_files(code).items() if name.endswith(".py"))
    return any(PACKAGE.search(_read(path)) for path in files)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        # Who reads the code for its digest has told it.
        return b""
