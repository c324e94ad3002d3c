"""`aks-inference models list | show | download | delete`, on a local cluster or a store."""

import asyncio
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import click
from rich.table import Table

from aks_inference_runtime.api.client import SupervisorClient
from aks_inference_runtime.api.errors import Conflict, InvalidInput, NotFound
from aks_inference_runtime.api.models import Framework
from aks_inference_runtime.api.output import printable
from aks_inference_runtime.api.status import ModelRecord
from aks_inference_runtime.cli.context import Context, command
from aks_inference_runtime.cli.lazy import WholeHelp
from aks_inference_runtime.cli.terminal import console
from aks_inference_runtime.models.filters import Filter, matching
from aks_inference_runtime.models.progress import size_text

if TYPE_CHECKING:
    from aks_inference_runtime.models.stores import ModelStore


_NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True)
class Place:
    """Where the models are: a store, beside it the supervisor that owns it."""

    store: "ModelStore"
    supervisor: SupervisorClient | None

    async def records(self, name: str | None = None) -> list[ModelRecord]:
        """All versions, or those of one name."""
        if self.supervisor is not None:
            return [record for record in await self.supervisor.models() if name in (None, record.name)]
        names = [name] if name is not None else await self.store.names()
        found = await asyncio.gather(*(self.store.versions(one) for one in names))
        return [record for records in found for record in records]

    async def users(self, record: ModelRecord) -> list[str]:
        """Who needs a version; those of a local cluster are its endpoints."""
        if self.supervisor is None:
            return await self.store.users(record.name, record.version)
        key = (record.name, record.version, None)
        return [
            f"endpoint {view.endpoint.metadata.name}, version {version.name}"
            for view in await self.supervisor.endpoints()
            for version in view.endpoint.spec.versions
            if key in [(model.name, model.version, model.store) for model in version.models]
        ]

    async def one(self, model: str) -> ModelRecord:
        """`name` (the newest) or `name:version`. Raises NotFound."""
        name, colon, version = model.partition(":")
        if colon and not _NUMBER.fullmatch(version):
            raise InvalidInput(f"{model!r} is not a model; write NAME or NAME:VERSION")
        records = await self.records(name)
        for record in reversed(records):
            if not colon or record.version == int(version):
                return record
        present = ", ".join(str(record.version) for record in records) or "none"
        raise NotFound(f"no model {model} (versions of {name}: {present})")


def _place(context: Context, store: str | None) -> Place:
    from aks_inference_runtime.models.stores import open_store
    from aks_inference_runtime.models.stores.folder import FolderStore

    if store is not None:
        if not store.strip():
            raise InvalidInput("--store: is empty; give a folder, az://… or oci://…, or leave it out")
        return Place(open_store(str(Path(store).absolute()) if "://" not in store else store), None)
    return Place(FolderStore(context.state() / "models"), context.client())


_store = click.option(
    "--store",
    metavar="STORE",
    help="Optional. A folder, az://account/container[/prefix] or oci://registry[/repository]. Default: that of the "
    "local cluster.",
)


@click.group("models", cls=WholeHelp)
def models_group() -> None:
    """Registered models: what there is, what is in it, a copy of it, removing it.

    MODEL is NAME:VERSION, or NAME for the newest version.
    """


@models_group.command("list")
@_store
@click.option("--name", help="Only of this name.")
@click.option("--tag", "tags", multiple=True, metavar="TagName=TagValue", help="Only with this tag; repeatable.")
@click.option("--property", "properties", multiple=True, metavar="NAME=VALUE", help="Only with this property.")
@click.option("--framework", type=click.Choice([one.value for one in Framework]), help="Only of this framework.")
@click.option("--run-id", help="Only made by this run.")
@click.option("--dataset", help="Only made from this dataset.")
@click.option("--latest", is_flag=True, help="Only the newest version of each name.")
@command
async def list_command(
    context: Context,
    store: str | None,
    name: str | None,
    tags: tuple[str, ...],
    properties: tuple[str, ...],
    framework: str | None,
    run_id: str | None,
    dataset: str | None,
    latest: bool,
) -> int:
    """All versions of all models, or those that are meant."""
    wanted = Filter(name, tags, properties, framework, run_id, dataset, latest)
    matching([], wanted)
    found = matching(await _place(context, store).records(name), wanted)
    if context.as_json:
        click.echo(json.dumps({"models": [record.to_wire() for record in found]}))
    elif found:
        console().print(_table(found))
    else:
        click.echo("no model", err=True)
    return 0


@models_group.command("show")
@click.argument("model")
@_store
@command
async def show_command(context: Context, model: str, store: str | None) -> int:
    """One version with its files."""
    place = _place(context, store)
    record = await place.one(model)
    users = await place.users(record)
    if context.as_json:
        click.echo(json.dumps({**record.to_wire(), "users": users}))
        return 0
    shown = console()
    facts = {
        "framework": " ".join(filter(None, (record.framework, record.framework_version))),
        "stored": record.created_time,
        "digest": record.digest,
        "description": record.description,
        "from": record.source,
        "run": " of ".join(filter(None, (record.run_id, record.experiment_name))),
        "parent": record.parent_model_id,
        "data": ", ".join(f"{one.relationship} {one.dataset}" for one in record.datasets),
        "tags": _labels(record.tags),
        "properties": _labels(record.properties),
        "used by": "; ".join(users),
    }
    files = f"{len(record.files)} file{'s' * (len(record.files) != 1)}"
    shown.print(f"model {record.model_id}: {files}, {size_text(record.size_bytes)}", soft_wrap=True)
    for name, value in facts.items():
        if value:
            # Line breaks of a description stay; what else is no text does not reach the terminal.
            text = "\n".join(printable(line) for line in value.splitlines())
            shown.print(f"{name:<12} {text}", soft_wrap=True)
    table = Table("file", "size", "SHA-256", box=None, pad_edge=False)
    for name, digest in record.files.items():
        size = record.file_sizes.get(name)
        table.add_row(printable(name), size_text(size) if size is not None else "", digest[7:19])
    shown.print(table)
    return 0


@models_group.command("download")
@click.argument("model")
@click.option("--to", "target", type=click.Path(path_type=Path), default=Path(), help="Optional. A folder; default .")
@click.option("--exist-ok", is_flag=True, help="Optional. Replaces files that are there with another content.")
@_store
@command
async def download_command(context: Context, model: str, target: Path, exist_ok: bool, store: str | None) -> int:
    """Copies the files of a version into a folder, each compared with its digest."""
    place = _place(context, store)
    record = await place.one(model)
    await asyncio.to_thread(_refuse_present, record, target, exist_ok)
    # Beside the target and not in it: what is cut off leaves nothing among the user's files, and the next one goes on.
    folder = target / f".{record.name}-{record.version}.download"
    await place.store.fetch(record, folder, _progress(context))
    path = await asyncio.to_thread(_move, record, folder, target)
    click.echo(json.dumps({"path": str(path), "model": record.model_id}) if context.as_json else str(path))
    return 0


@models_group.command("delete")
@click.argument("model")
@_store
@command
async def delete_command(context: Context, model: str, store: str | None) -> int:
    """Removes one version; refused while somebody uses it."""
    if ":" not in model:
        raise InvalidInput(f"{model!r} names no version; write NAME:VERSION")
    place = _place(context, store)
    record = await place.one(model)
    if place.supervisor is not None:
        await place.supervisor.delete_model(record.name, record.version)
    else:
        await place.store.delete(record.name, record.version)
    click.echo(json.dumps({"deleted": record.model_id}) if context.as_json else f"deleted {record.model_id}")
    return 0


def _table(records: Sequence[ModelRecord]) -> Table:
    table = Table("model", "version", "framework", "size", "stored (UTC)", "tags", box=None, pad_edge=False)
    for record in records:
        framework = " ".join(filter(None, (record.framework, record.framework_version)))
        size, tags = size_text(record.size_bytes), _labels(record.tags)
        stored = record.created_time[:16].replace("T", " ")
        table.add_row(record.name, str(record.version), framework, size, stored, tags)
    return table


def _labels(labels: dict[str, str]) -> str:
    return ", ".join(printable(f"{key}={value}") for key, value in sorted(labels.items()))


def _common(record: ModelRecord) -> str:
    """The file, or the folder that all files are in."""
    first = next(iter(record.files))
    return first.partition("/")[0]


def _refuse_present(record: ModelRecord, target: Path, exist_ok: bool) -> None:
    for name in record.files:
        if (target / name).is_dir():
            raise Conflict(f"{target / name} is a folder there and a file in the model; choose another folder")
        for place in [target / above for above in PurePosixPath(name).parents]:
            if os.path.lexists(place) and not place.is_dir():
                raise Conflict(f"{place} is no folder there and one in the model; choose another folder")
    present = [name for name in record.files if (target / name).exists()]
    if present and not exist_ok:
        more = f" and {len(present) - 1} more" if len(present) > 1 else ""
        raise Conflict(f"{target / present[0]}{more} is there already; choose another folder, or --exist-ok")


def _move(record: ModelRecord, folder: Path, target: Path) -> Path:
    for name in record.files:
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        # A copy: what a store keeps may be the same file by a hard link, and this one belongs to the user.
        with tempfile.NamedTemporaryFile(dir=place.parent, delete=False) as copy, (folder / name).open("rb") as source:
            try:
                shutil.copyfileobj(source, copy, 1024 * 1024)
                copy.flush()
                Path(copy.name).chmod(0o644)
                Path(copy.name).replace(place)
            except BaseException:
                Path(copy.name).unlink(missing_ok=True)
                raise
    shutil.rmtree(folder)
    return target.absolute() / _common(record)


def _progress(context: Context) -> Callable[[int, int | None], None]:
    return _Line(show=not context.as_json and sys.stderr.isatty())


class _Line:
    """Progress on a terminal."""

    def __init__(self, *, show: bool) -> None:
        self._show = show

    def __call__(self, done: int, total: int | None) -> None:
        if self._show:
            of = f" of {size_text(total)}" if total is not None else ""
            end = "\n" if done == total else ""
            click.echo(f"\r{size_text(done)}{of}   {end}", nl=False, err=True)
