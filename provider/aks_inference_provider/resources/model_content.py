"""The files of a model as inputs name them: looked at, hashed, fetched where they are elsewhere, counted."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aks_inference_provider.resources.base import Operation
from aks_inference_runtime.api.content import combined_digest, file_digests, model_files
from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.api.models import ModelFacts, is_remote
from aks_inference_runtime.api.output import printable
from aks_inference_runtime.models.progress import Progress, size_text
from aks_inference_runtime.models.sources import SourceSettings, fetch, revision
from aks_inference_runtime.models.stores import Upload
from aks_inference_runtime.models.stores.store import StoredFile

SHOWN = 5
"""File names in a note."""


@dataclass(frozen=True)
class Content:
    """What Check finds."""

    files: Mapping[str, str]
    """Stored name → `sha256:<hex> <bytes>`."""
    digest: str
    revision: str | None = None
    """Of a remote source."""
    lineage: Mapping[str, str] = field(default_factory=dict)
    """What its server tells of the run that made it, as `facts` have it."""


def inspect(path: str, child_paths: tuple[str, ...]) -> tuple[dict[str, str], str]:
    """Stored names → `sha256:<hex> <bytes>`, and the digest over all. Reads every file. Raises InvalidInput."""
    try:
        found = model_files(Path(path), child_paths)
        digests = file_digests(found)
        sizes = {name: file.stat().st_size for name, file in found.items()}
    except OSError as error:
        raise InvalidInput(f"path: {error.filename or path} cannot be read: {error.strerror}") from None
    return {name: f"{digests[name]} {sizes[name]}" for name in sorted(found)}, combined_digest(digests)


async def look(olds: Mapping[str, Any], news: Mapping[str, Any]) -> Content:
    """The content that plain inputs name; that of a remote source which has not changed is not fetched again.

    Raises the errors of the source, with the property first where it is known.
    """
    path, children = str(news["path"]), tuple(news.get("childPaths") or ())
    if not is_remote(path):
        return Content(*await asyncio.to_thread(inspect, path, children))
    settings = _settings(news)
    known = await revision(path, settings)
    told = {"runId": known.run_id, "experimentName": known.experiment}
    lineage = {name: value for name, value in told.items() if value}
    same = all(olds.get(key) == news.get(key) for key in ("path", "childPaths", "unpack", "trackingUri"))
    if same and known.text and known.text == olds.get("revision") and isinstance(olds.get("files"), dict):
        return Content(olds["files"], str(olds["digest"]), known.text, lineage)
    fetched = await fetch(path, settings, known=known)
    try:
        return Content(*await asyncio.to_thread(inspect, str(fetched.path), children), known.text, lineage)
    except InvalidInput as error:
        # Where it was put on this machine says nothing to anybody.
        raise InvalidInput(str(error).replace(str(fetched.path), path)) from None


async def local_path(inputs: Mapping[str, Any], operation: Operation) -> Path:
    """Where the files of plain inputs are on this machine; remote ones are fetched unless the check has done it."""
    path = str(inputs["path"])
    if not is_remote(path):
        return Path(path)
    return (await fetch(path, _settings(inputs), telling(operation, "fetching"))).path


def make_upload(inputs: Mapping[str, Any], path: Path) -> Upload:
    """What a store gets: the files with the digests that the check found."""
    sources = model_files(path, tuple(inputs.get("childPaths") or ()))
    files = {}
    for name, text in inputs["files"].items():
        digest, size = text.split(" ")
        if name not in sources:
            raise InvalidInput(f"path: {name} was there at the check and is gone; apply again when the files rest")
        files[name] = StoredFile(sources[name], digest, int(size))
    return Upload(inputs["name"], files, facts(inputs))


def facts(inputs: Mapping[str, Any]) -> ModelFacts:
    """What is known of the model beside its files."""
    plain = {
        "tags": inputs.get("tags") or {},
        "properties": inputs.get("properties") or {},
        "description": inputs.get("description"),
        "framework": inputs.get("framework"),
        "framework_version": inputs.get("frameworkVersion"),
        "source": inputs["path"] if is_remote(str(inputs["path"])) else None,
    }
    return ModelFacts.model_validate({**plain, **(inputs.get("facts") or {})})


def telling(operation: Operation, what: str) -> Progress:
    """Progress as messages about a resource; from any thread."""
    loop = asyncio.get_running_loop()
    told = -1

    def tell(done: int, total: int | None) -> None:
        nonlocal told
        step = done * 20 // total if total else done // 50_000_000
        if step != told:
            told = step
            of = f" of {size_text(total)}" if total is not None else ""
            loop.call_soon_threadsafe(operation.progress.status, f"{what}: {size_text(done)}{of}")

    return tell


def change_note(olds: Mapping[str, Any], news: Mapping[str, Any], present: set[str] | None) -> str:
    """For a preview: which files changed, and how many bytes have to be sent.

    Args:
        olds: Required. Plain inputs as they are; empty for a new model.
        news: Required. Plain inputs as they will be.
        present: Required. Contents that the store has; None where it cannot be asked.
    """
    before, after = olds.get("files") or {}, news.get("files") or {}
    parts = [
        _named("changed", sorted(name for name in after if name in before and before[name] != after[name])),
        _named("new", sorted(name for name in after if name not in before)),
        _named("gone", sorted(name for name in before if name not in after)),
    ]
    contents = {text.split(" ")[0]: int(text.split(" ")[1]) for text in after.values()}
    total = sum(contents.values())
    to_send = sum(size for digest, size in contents.items() if digest not in (present or ()))
    what = ", ".join(part for part in parts if part) or "the same files"
    return f"model {news.get('name')}: {what}; {size_text(to_send)} of {size_text(total)} will be uploaded"


def _named(what: str, names: Sequence[str]) -> str:
    shown = ", ".join(map(printable, names[:SHOWN])) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    return f"{len(names)} file{'s' * (len(names) != 1)} {what} ({shown})" if names else ""


def _settings(inputs: Mapping[str, Any]) -> SourceSettings:
    experiment = (inputs.get("facts") or {}).get("experimentName")
    return SourceSettings(
        unpack=bool(inputs.get("unpack")), tracking_uri=inputs.get("trackingUri"), experiment=experiment
    )
