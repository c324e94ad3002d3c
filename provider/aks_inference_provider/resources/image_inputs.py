"""From the plain inputs of an Image to what the images part takes: environment, files, registries, logins, builder."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aks_inference_provider.resources.folder_limits import limits_of
from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.images.build.acr import azure_build
from aks_inference_runtime.images.build.application import Application, Packed, collect
from aks_inference_runtime.images.build.choose import Builder
from aks_inference_runtime.images.build.tools import ToolOptions
from aks_inference_runtime.images.ensure import BuildSettings
from aks_inference_runtime.images.environment.curated import with_server
from aks_inference_runtime.images.environment.model import RegistryLogin
from aks_inference_runtime.images.environment.read import read_environment
from aks_inference_runtime.images.lookup import RegistryPlace
from aks_inference_runtime.images.own import runtime_environment, runtime_package
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry import CredentialStore, Login, Silence, TransportOptions
from aks_inference_runtime.images.service import Wanted


def wanted_of(values: Mapping[str, Any]) -> Wanted:
    """What is wanted, from checked plain inputs. Reads files. Raises InvalidInput with all that is wrong."""
    environment: dict[str, Any]
    packed: Packed | None
    if values.get("runtime"):
        environment, packed = dict(runtime_environment()), runtime_package()
    else:
        environment, packed = values["environment"], _application(values)
    if (login := values.get("baseLogin")) is not None:
        docker = {**(environment.get("docker") or {}), "baseImageRegistry": login}
        environment = {**environment, "docker": docker}
    default_base = ImageReference.parse(values["baseImage"]) if values.get("baseImage") else None
    folder = Path(values.get("baseDirectory") or "/")
    definition = read_environment(environment, folder, limits=limits_of(values), default_base=default_base)
    if values.get("scoringServer"):
        definition = with_server(definition)
    return Wanted(
        definition,
        RegistryPlace.parse(values["registry"], values.get("registryTier")),
        tuple(RegistryPlace.parse(one) for one in values.get("sharedRegistries") or ()),
        packed,
        ImageReference.parse(values["alias"]) if values.get("alias") else None,
    )


def login_of(values: Mapping[str, Any], base: RegistryLogin | None) -> CredentialStore:
    """Logins of `docker login`, of a private base, and the given one, which wins."""
    store = CredentialStore.from_docker()
    if base is not None:
        store = store.having(base.address, Login(base.username, base.password))
    if values.get("username"):
        host = RegistryPlace.parse(values["registry"]).registry
        store = store.having(host, Login(values["username"], values["password"]))
    return store


def reach(values: Mapping[str, Any], silence: Silence | None = None) -> TransportOptions:
    """How registries are reached. `silence`: for looks, in a preview."""
    authorities = values.get("caFile")
    plain = frozenset({RegistryPlace.parse(values["registry"]).registry}) if values.get("plainHttp") else frozenset()
    return TransportOptions(Path(authorities) if authorities else None, plain, silence=silence)


def settings_of(values: Mapping[str, Any], wanted: Wanted) -> BuildSettings:
    """How it is built. Raises AzureFailed for variables that Azure is not to be asked with."""
    options = reach(values)
    tool = ToolOptions(
        build_arguments=tuple(values.get("buildArguments") or ()),
        plain_http=not options.uses_tls(wanted.workspace.registry),
        ca_file=options.ca_file,
        limits=limits_of(values),
    )
    credentials = login_of(values, wanted.definition.base_login)
    builder = Builder(values.get("builder") or Builder.AUTO)
    azure = azure_build(os.environ, builder, values.get("registryId"), limits_of(values))
    return BuildSettings(builder, tool=tool, credentials=credentials, azure=azure)


def _application(values: Mapping[str, Any]) -> Packed | None:
    script, folder = values.get("entryScript"), values.get("sourceDirectory")
    if script is None:
        return None
    try:
        return collect(Application(script, Path(folder) if folder else None, limits_of(values)))
    except InvalidInput as error:
        lines = str(error).splitlines()
        raise InvalidInput(
            "\n".join(line if line.startswith("entryScript: ") else f"sourceDirectory: {line}" for line in lines)
        ) from None
