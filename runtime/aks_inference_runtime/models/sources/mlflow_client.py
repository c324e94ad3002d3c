"""The process that uses the `mlflow` client: one order as JSON on standard input, one answer on standard output."""

import contextlib
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import FileInfo

_GONE = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "INVALID_PARAMETER_VALUE", "ENDPOINT_NOT_FOUND"})


def main() -> None:
    """Does what it is told; an error is an answer, too."""
    order = json.load(sys.stdin)
    answer_to = sys.stdout
    # The client prints notes; the answer alone belongs on standard output.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
        except ImportError:
            answer: dict[str, Any] = {
                "error": "package",
                "message": "needs the package mlflow-skinny; pip install 'pulumi-aks-inference[mlflow]'",
            }
        else:
            try:
                answer = _carry_out(MlflowClient(), order)
            except MlflowException as error:
                kind = "missing" if error.error_code in _GONE else "unavailable"
                answer = {"error": kind, "message": str(error).splitlines()[0][:500]}
            except _Wrong as error:
                answer = {"error": error.kind, "message": str(error)}
            except OSError as error:
                answer = {"error": "unavailable", "message": str(error)[:500]}
    json.dump(answer, answer_to)


class _Wrong(Exception):
    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def _carry_out(client: "MlflowClient", order: dict[str, Any]) -> dict[str, Any]:
    place = _run(client, order) if order["scheme"] == "runs" else _version(client, order)
    if order["what"] == "download":
        place.download(Path(order["target"]))
        return {}
    files = sorted(_files(place.list))
    if not files:
        raise _Wrong("missing", place.empty)
    run = client.get_run(place.run_id) if place.run_id else None
    experiment = client.get_experiment(run.info.experiment_id).name if run else ""
    if order["experiment"] not in (None, experiment):
        text = f"run {place.run_id or '(none)'} belongs to the experiment {experiment!r}, not {order['experiment']!r}"
        raise _Wrong("invalid", text)
    text = json.dumps([place.identity, run.info.end_time if run else None, files])
    # A version of a registered model stays as it is; a run under way may write its files anew.
    rests = order["scheme"] == "models" or (run is not None and run.info.status == "FINISHED")
    return {
        "revision": f"mlflow {hashlib.sha256(text.encode()).hexdigest()}" if rests else None,
        "base_name": place.base_name,
        "run_id": place.run_id,
        "experiment": experiment,
        "size": sum(size for _, size in files),
    }


@dataclass(frozen=True)
class _Place:
    """Where files are, and how they are listed and fetched."""

    base_name: str
    run_id: str
    identity: str
    list: Callable[[str | None], list["FileInfo"]]
    download: Callable[[Path], None]
    empty: str


def _run(client: "MlflowClient", order: dict[str, Any]) -> _Place:
    run_id, path = order["place"], order["path"]
    base = PurePosixPath(path)
    parent = None if str(base.parent) == "." else str(base.parent)
    siblings = client.list_artifacts(run_id, parent)

    def listed(folder: str | None) -> list["FileInfo"]:
        if folder is None:
            return [item for item in siblings if item.path == path]
        return list(client.list_artifacts(run_id, folder))

    def download(target: Path) -> None:
        Path(client.download_artifacts(run_id, path, str(target))).replace(target / base.name)

    present = ", ".join(item.path for item in siblings) or "none"
    return _Place(base.name, run_id, run_id, listed, download, f"run {run_id} has no {path!r} (there: {present})")


def _version(client: "MlflowClient", order: dict[str, Any]) -> _Place:
    from mlflow.artifacts import download_artifacts
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    name, wanted = order["place"], order["path"]
    if wanted == "latest":
        found = max(client.search_model_versions(f"name = '{name}'"), key=lambda v: int(v.version), default=None)
        if found is None:
            raise _Wrong("missing", f"no registered model {name!r}, or none of its versions")
    elif wanted.isdigit():
        found = client.get_model_version(name, wanted)
    else:
        found = client.get_model_version_by_alias(name, wanted)
    uri = f"models:/{name}/{found.version}"

    def download(target: Path) -> None:
        folder = target / name
        folder.mkdir(exist_ok=True)
        download_artifacts(artifact_uri=uri, dst_path=str(folder))
        # The client's note about where it came from is no file of the model.
        (folder / "registered_model_meta").unlink(missing_ok=True)

    repository = get_artifact_repository(uri)
    return _Place(name, str(found.run_id or ""), uri, repository.list_artifacts, download, f"{uri} holds no file")


def _files(listed: Callable[[str | None], list["FileInfo"]]) -> Iterator[tuple[str, int]]:
    """All files with their sizes."""
    here = list(listed(None))
    while here:
        item = here.pop()
        if item.is_dir:
            here += listed(item.path)
        else:
            yield item.path, int(item.file_size or 0)


if __name__ == "__main__":
    main()
