"""The one form that every definition of an environment is read into. Frozen; canonical where order has no meaning."""

from dataclasses import dataclass, field
from pathlib import Path

from aks_inference_runtime.images.reference import ImageReference


@dataclass(frozen=True)
class Platform:
    """What the image runs on, in the words of the OCI image specification."""

    os: str = "linux"
    architecture: str = "amd64"

    def __str__(self) -> str:
        return f"{self.os}/{self.architecture}"


@dataclass(frozen=True)
class RegistryLogin:
    """Credentials of a private base registry. Never part of the key, of a text or of a build file."""

    address: str
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Dockerfile:
    """A base given by the text of a Dockerfile."""

    text: str


@dataclass(frozen=True)
class BuildContext:
    """A base given by a folder with a Dockerfile in it, or by a location that a builder fetches."""

    location: str
    dockerfile_path: str = "Dockerfile"
    folder: Path | None = None
    """The folder on this machine; None for git and storage locations."""
    digest: str | None = None
    """`sha256:<hex>` over names and contents of the folder's files; None without a folder."""


@dataclass(frozen=True)
class CondaDefinition:
    """What conda installs. Channels keep their order (it is their priority); dependencies are sorted."""

    channels: tuple[str, ...] = ()
    dependencies: tuple[str, ...] = ()


@dataclass(frozen=True)
class EnvironmentDefinition:
    """An environment: a base, custom steps, packages. Its identity is its content (key.py)."""

    name: str | None = None
    version: str | None = None
    base: ImageReference | Dockerfile | BuildContext | None = None
    """None: chosen by what is to be installed (containerfile.default_base)."""
    docker_steps: str | None = None
    conda: CondaDefinition = CondaDefinition()
    pip: tuple[str, ...] = ()
    """Canonical requirements, sorted."""
    pip_options: tuple[str, ...] = ()
    """Options of pip that choose where packages come from, such as `--extra-index-url https://…`: `--index-url` first,
    the rest sorted."""
    user_managed: bool = False
    """The base holds the packages already: nothing is installed."""
    interpreter_path: str = "python"
    environment_variables: tuple[tuple[str, str], ...] = ()
    """Set on the replicas, not in the image: a changed variable is no new image."""
    platform: Platform = Platform()
    base_login: RegistryLogin | None = None

    @property
    def package_count(self) -> int:
        """How many packages are listed (not what they draw in)."""
        return len(self.pip) + len(self.conda.dependencies)
