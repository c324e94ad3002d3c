"""`aks-inference image key | find | build`, for people and pipelines."""

import asyncio
import functools
import json
import logging
import os
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from aks_inference_runtime.api.errors import AksInferenceError, InvalidInput
from aks_inference_runtime.api.limits import MAX_FILES, MAX_MB, ContextLimits
from aks_inference_runtime.cli.lazy import WholeHelp
from aks_inference_runtime.images.build.acr import azure_build, resource_problem
from aks_inference_runtime.images.build.application import Application
from aks_inference_runtime.images.build.choose import Builder
from aks_inference_runtime.images.build.tools import ToolOptions
from aks_inference_runtime.images.ensure import BuildSettings, Ensured, ensure_image
from aks_inference_runtime.images.environment import curated
from aks_inference_runtime.images.environment.containerfile import with_default_base
from aks_inference_runtime.images.environment.key import image_key
from aks_inference_runtime.images.environment.model import EnvironmentDefinition
from aks_inference_runtime.images.environment.read import read_environment, read_file
from aks_inference_runtime.images.lookup import Lookup, RegistryPlace, find, pins
from aks_inference_runtime.images.of_service import ensure_service
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry import CredentialStore, Login, RegistryClient, TransportOptions, transport

TIERS = ("Basic", "Standard", "Premium")
Command = Callable[..., None]
T = TypeVar("T")


@dataclass(frozen=True)
class Reach:
    """How registries are reached, from the command line."""

    username: str | None
    password_stdin: bool
    ca_file: Path | None
    plain_http: tuple[str, ...]

    def store(self, registry: str | None, definition: EnvironmentDefinition) -> CredentialStore:
        """Logins of `docker login`, of the private base registry, and the given one, which wins."""
        store = CredentialStore.from_docker()
        base = definition.base_login
        if base is not None:
            store = store.having(base.address, Login(base.username, base.password))
        if self.username is not None:
            if not self.password_stdin or registry is None:
                raise InvalidInput("--username: needs --password-stdin and --registry; a password never is an argument")
            store = store.having(registry, Login(self.username, sys.stdin.readline().rstrip("\r\n")))
        return store

    @property
    def options(self) -> TransportOptions:
        """For clients."""
        return TransportOptions(self.ca_file, frozenset(self.plain_http))

    def client(self, store: CredentialStore) -> RegistryClient:
        """A client."""
        return RegistryClient(store, self.options)


@dataclass(frozen=True)
class Wanted:
    """Which environment, from the command line."""

    environment: str
    scoring_server: bool
    base_image: str | None
    limits: ContextLimits

    async def read(self) -> EnvironmentDefinition:
        """Raises InvalidInput with all that is wrong."""
        base = ImageReference.parse(self.base_image) if self.base_image else None
        definition = await asyncio.to_thread(self._read, base)
        return curated.with_server(definition) if self.scoring_server else definition

    def _read(self, base: ImageReference | None) -> EnvironmentDefinition:
        if self.environment in curated.NAMES:
            return read_environment({"name": self.environment}, Path(), default_base=base)
        path = Path(self.environment)
        if not path.suffix and not path.exists():
            names = ", ".join(curated.NAMES)
            raise InvalidInput(f"{self.environment}: is neither a file nor a curated environment; those are {names}")
        return read_file(path, self.limits, base)


def _reach(command: Command) -> Command:
    options = [
        click.option("--username", help="Optional. User name at --registry; default: those of `docker login`."),
        click.option("--password-stdin", is_flag=True, help="Optional. Reads the password from standard input."),
        click.option(
            "--ca-file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Optional. Certificate authorities in PEM form to trust beside the machine's.",
        ),
        click.option(
            "--plain-http", multiple=True, metavar="HOST", help="Optional. A registry without TLS; repeatable."
        ),
    ]

    @functools.wraps(command)
    def with_reach(
        username: str | None, password_stdin: bool, ca_file: Path | None, plain_http: tuple[str, ...], **others: object
    ) -> None:
        command(reach=Reach(username, password_stdin, ca_file, plain_http), **others)

    for option in reversed(options):
        with_reach = option(with_reach)
    return with_reach


def _environment(command: Command) -> Command:
    command = click.option("--json", "as_json", is_flag=True, help="Optional. One JSON object on standard output.")(
        command
    )
    command = click.option(
        "--scoring-server", is_flag=True, help="Optional. Adds it, as a service does; an inferenceconfig.json has it."
    )(command)
    command = click.option(
        "--base-image", metavar="IMAGE", help="Optional. Where none is named: the `base_image` of the stack's registry."
    )(command)
    command = click.option(
        "--max-mb",
        type=click.IntRange(min=1),
        default=MAX_MB,
        show_default=True,
        help="Optional. Limit of a build context and of --source-directory.",
    )(command)
    command = click.option(
        "--max-files", type=click.IntRange(min=1), default=MAX_FILES, show_default=True, help="Optional. The same."
    )(command)

    @functools.wraps(command)
    def with_wanted(
        environment: str, scoring_server: bool, base_image: str | None, max_mb: int, max_files: int, **others: object
    ) -> None:
        limits = ContextLimits.of(max_mb, max_files)
        command(wanted=Wanted(environment, scoring_server, base_image, limits), **others)

    return click.argument("environment", metavar="ENVIRONMENT")(with_wanted)


def _registries(command: Command) -> Command:
    shared = click.option(
        "--shared",
        multiple=True,
        metavar="HOST[/REPOSITORY]",
        help="Optional. Shared registries, asked in order; repeatable.",
    )
    registry = click.option(
        "--registry", required=True, metavar="HOST[/REPOSITORY]", help="Required. The workspace's registry."
    )
    tier = click.option(
        "--registry-tier",
        type=click.Choice(TIERS, case_sensitive=False),
        help="Optional. For a note on pull time.",
    )
    return registry(shared(tier(command)))


@click.group("image", cls=WholeHelp)
def image_group() -> None:
    """Images of environments: their key, where they are, building them.

    ENVIRONMENT is a file (inferenceconfig.json, an environment object in JSON, a conda definition in YAML, a list of
    requirements) or the name of a curated environment.
    """


@image_group.command("key")
@_environment
@click.option("--offline", is_flag=True, help="Optional. Asks no registry: base images count by their tags.")
@_reach
def key_command(wanted: Wanted, as_json: bool, offline: bool, reach: Reach) -> None:
    """Prints the image key."""
    definition = _run(wanted.read())
    known, notes = _run(_key(definition, offline, reach))
    key = image_key(definition, known)
    _show(as_json, {"key": key, "base": known, "packages": definition.package_count, "notes": list(notes)}, key, notes)


@image_group.command("find")
@_environment
@_registries
@_reach
def find_command(
    wanted: Wanted, as_json: bool, registry: str, shared: tuple[str, ...], registry_tier: str | None, reach: Reach
) -> None:
    """Says where the image is, or what building it would take. Exit code 3 when it is nowhere."""
    looked = _run(_find(wanted, registry, shared, registry_tier, reach))
    image = str(looked.found) if looked.found else None
    content = {"key": looked.key, "found": image, "packages": looked.package_count, "text": looked.text}
    _show(
        as_json, {**content, "notes": list(looked.notes)}, f"{looked.text}{f': {image}' if image else ''}", looked.notes
    )
    if image is None:
        raise SystemExit(3)


@image_group.command("build")
@_environment
@_registries
@_reach
@click.option(
    "--builder", type=click.Choice([one.value for one in Builder]), default="auto", help="Optional. Default auto."
)
@click.option("--registry-id", help="Optional. Resource id of --registry in Azure, for acr-tasks. Default: looked up.")
@click.option(
    "--refresh", is_flag=True, help="Optional. Chooses packages anew and builds even when the image is there."
)
@click.option("--tool-argument", multiple=True, help="Optional. Global argument of buildah or podman; repeatable.")
@click.option("--build-argument", multiple=True, help="Optional. Argument of the tool's build; repeatable.")
@click.option("--entry-script", help="Optional. Also builds the image of a service with this entry script.")
@click.option(
    "--source-directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Optional. The folder that the entry script is relative to; its ignored files stay out.",
)
def build_command(
    wanted: Wanted,
    as_json: bool,
    registry: str,
    shared: tuple[str, ...],
    registry_tier: str | None,
    reach: Reach,
    builder: str,
    registry_id: str | None,
    refresh: bool,
    tool_argument: tuple[str, ...],
    build_argument: tuple[str, ...],
    entry_script: str | None,
    source_directory: Path | None,
) -> None:
    """Finds the image, or builds and pushes it."""
    limits = wanted.limits
    application = Application(entry_script, source_directory, limits) if entry_script else None
    if registry_id is not None and (problem := resource_problem(registry_id)):
        raise click.UsageError(f"--registry-id: {registry_id!r} {problem}")
    if source_directory and not entry_script:
        raise click.UsageError("--source-directory needs --entry-script")

    async def build() -> tuple[Ensured, Ensured | None]:
        definition = await wanted.read()
        if application is not None:
            definition = curated.with_server(definition)
        place = RegistryPlace.parse(registry, registry_tier)
        others = [RegistryPlace.parse(one) for one in shared]
        store = reach.store(place.registry, definition)
        plain = not reach.options.uses_tls(place.registry)
        tool = ToolOptions(tool_argument, build_argument, plain_http=plain, ca_file=reach.ca_file, limits=limits)
        azure = azure_build(os.environ, Builder(builder), registry_id, limits)
        settings = BuildSettings(Builder(builder), refresh=refresh, tool=tool, credentials=store, azure=azure)
        async with reach.client(store) as client:
            if application is None:
                return await ensure_image(client, definition, place, others, settings, _progress), None
            return await ensure_service(client, definition, application, place, others, settings, _progress)

    made, service = _run(build())
    content: dict[str, object] = {
        "key": made.key,
        "image": str(made.image),
        "built": made.built,
        "builder": made.builder,
    }
    content |= {"sentBytes": made.pushed.sent_bytes, "notes": list(made.notes)}
    text = f"{made.text}: {made.image}"
    if service is not None:
        content["service"] = {
            "image": str(service.image),
            "built": service.built,
            "sentBytes": service.pushed.sent_bytes,
        }
        text += f"\nservice {service.text}: {service.image}"
    _show(as_json, content, text, made.notes)


async def _key(
    definition: EnvironmentDefinition, offline: bool, reach: Reach
) -> tuple[dict[str, str], tuple[str, ...]]:
    if offline:
        return {}, ()
    base = with_default_base(definition).base
    registry = base.api_host if isinstance(base, ImageReference) else None
    async with reach.client(reach.store(registry, definition)) as client:
        return await pins(client, definition)


async def _find(wanted: Wanted, registry: str, shared: tuple[str, ...], tier: str | None, reach: Reach) -> Lookup:
    definition = await wanted.read()
    place = RegistryPlace.parse(registry, tier)
    async with reach.client(reach.store(place.registry, definition)) as client:
        return await find(client, definition, place, [RegistryPlace.parse(one) for one in shared])


class _Told(logging.Handler):
    """Shows what a registry is asked again for, and when: who waits for minutes should see why."""

    def emit(self, record: logging.LogRecord) -> None:
        _progress(record.getMessage())


def _run(work: Coroutine[Any, Any, T]) -> T:
    told = _Told(logging.INFO)
    transport.log.setLevel(logging.INFO)
    transport.log.addHandler(told)
    try:
        return asyncio.run(work)
    except AksInferenceError as error:
        raise click.ClickException(str(error)) from None
    finally:
        transport.log.removeHandler(told)


def _progress(line: str) -> None:
    click.echo(line, err=True)


def _show(as_json: bool, content: dict[str, object], text: str, notes: tuple[str, ...]) -> None:
    for note in notes:
        click.echo(f"note: {note}", err=True)
    click.echo(json.dumps(content) if as_json else text)
