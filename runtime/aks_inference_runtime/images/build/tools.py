"""Building with a build tool: buildah, podman or docker buildx, from the generated build file."""

import asyncio
import base64
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aks_inference_runtime.api.limits import AZURE_ML, ContextLimits
from aks_inference_runtime.images.build.choose import PROGRAMS, Builder
from aks_inference_runtime.images.build.run import Progress, run_tool
from aks_inference_runtime.images.context import context_files
from aks_inference_runtime.images.environment.containerfile import FOLDER, build_files
from aks_inference_runtime.images.environment.model import BuildContext, EnvironmentDefinition
from aks_inference_runtime.images.errors import BuildFailed
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry.credentials import Login

OF_TOOLS = (".dockerignore", ".containerignore")
"""What build tools themselves leave out of a context."""


@dataclass(frozen=True)
class ToolOptions:
    """How a build tool is run."""

    arguments: tuple[str, ...] = ()
    """Optional. Global arguments of buildah and podman, such as `--storage-driver=vfs`."""
    build_arguments: tuple[str, ...] = ()
    """Optional. Further arguments of the build, such as `--isolation=chroot`."""
    refresh: bool = False
    plain_http: bool = False
    ca_file: Path | None = None
    limits: ContextLimits = AZURE_ML


async def build_and_push(
    builder: Builder,
    definition: EnvironmentDefinition,
    target: ImageReference,
    pins: Mapping[str, str],
    logins: Mapping[str, Login],
    options: ToolOptions,
    progress: Progress,
) -> None:
    """Builds the environment and pushes it under the target's tag. Raises BuildFailed with the end of the log.

    Credentials go by a file that only this user can read, and that goes when the build ends.
    """
    with tempfile.TemporaryDirectory(prefix="aks-inference-build-") as name:
        folder = Path(name)
        await asyncio.to_thread(_write, folder, definition, pins, logins, options)
        if builder == Builder.BUILDX:
            await asyncio.to_thread(_take_over_docker, folder / "login")
        environment = {
            "DOCKER_CONFIG": str(folder / "login"),
            "REGISTRY_AUTH_FILE": str(folder / "login" / "config.json"),
        }
        for command in commands(builder, definition, target, folder, options):
            progress(f"$ {' '.join(command)}")
            await run_tool(command, progress, what=f"{builder.value} of {target}", environment=environment)


def commands(
    builder: Builder, definition: EnvironmentDefinition, target: ImageReference, folder: Path, options: ToolOptions
) -> Sequence[Sequence[str]]:
    """What is run, one after the other. Pure."""
    program, context = PROGRAMS[builder], folder / "context"
    common = ["--platform", str(definition.platform), "--file", str(folder / "Containerfile"), *options.build_arguments]
    common += ["--no-cache"] if options.refresh else []
    if builder == Builder.BUILDX:
        insecure = ",registry.insecure=true" if options.plain_http else ""
        output = f"type=image,push=true{insecure}"
        return [[program, "buildx", "build", *common, "--tag", str(target), "--output", output, str(context)]]
    tls = [f"--tls-verify={str(not options.plain_http).lower()}"]
    tls += [f"--cert-dir={folder / 'certs'}"] if options.ca_file else []
    head = [program, *options.arguments]
    return [
        [*head, "build", "--format", "oci", *tls, *common, "--tag", str(target), str(context)],
        [*head, "push", *tls, str(target), f"docker://{target}"],
    ]


def write_context(
    folder: Path, definition: EnvironmentDefinition, pins: Mapping[str, str], limits: ContextLimits
) -> tuple[Path, Path]:
    """Writes what a build tool needs into a folder. Gives the build context and the build file, which is beside it.

    Raises BuildFailed for a context that is not on this machine, InvalidInput for one that breaks a rule.
    """
    context, file = folder / "context", folder / "Containerfile"
    context.mkdir()
    if isinstance(definition.base, BuildContext):
        for name, path in context_files(require_folder(definition.base), limits).items():
            place = context / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, place)
    made = build_files(definition, pins)
    for name, text in made.files.items():
        place = context / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, "utf-8")
    for ignoring in (context / name for name in OF_TOOLS):
        if ignoring.is_file():
            # What is taken anyway is not the author's to leave out. A copy has its file's mode, too.
            ignoring.chmod(0o600)
            with ignoring.open("a", encoding="utf-8") as opened:
                opened.write(f"\n!{FOLDER}\n!{FOLDER}/**\n")
    file.write_text(made.containerfile, "utf-8")
    return context, file


def require_folder(context: BuildContext) -> Path:
    """Where a build context is on this machine. Raises BuildFailed."""
    if context.folder is None:
        raise BuildFailed(f"the build context {context.location} is not on this machine; fetch it and name the folder")
    return context.folder


def _write(
    folder: Path,
    definition: EnvironmentDefinition,
    pins: Mapping[str, str],
    logins: Mapping[str, Login],
    options: ToolOptions,
) -> None:
    write_context(folder, definition, pins, options.limits)
    (folder / "login").mkdir(mode=0o700)
    auths = {host: _auth(login) for host, login in logins.items()}
    config = folder / "login" / "config.json"
    config.touch(mode=0o600)
    config.write_text(json.dumps({"auths": auths}), "utf-8")
    if options.ca_file is not None:
        (folder / "certs").mkdir()
        shutil.copy(options.ca_file, folder / "certs" / "ca.crt")


def _take_over_docker(login: Path) -> None:
    """docker looks beside its logins for plugins, builders and contexts: there they are the user's own."""
    own = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    for name in ("buildx", "cli-plugins", "contexts"):
        if (own / name).is_dir():
            (login / name).symlink_to((own / name).resolve())
    try:
        settings = json.loads((own / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return
    kept = {key: settings[key] for key in ("cliPluginsExtraDirs", "currentContext", "proxies") if key in settings}
    config = login / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text("utf-8")), **kept}), "utf-8")


def _auth(login: Login) -> dict[str, str]:
    auth = base64.b64encode(f"{login.username}:{login.password}".encode()).decode()
    return {"auth": auth, **({"identitytoken": login.identity_token} if login.identity_token else {})}
