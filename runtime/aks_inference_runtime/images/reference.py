"""Names of images: `registry/repository:tag@digest`, with Docker's short forms spelt out."""

import re
from dataclasses import dataclass, replace

from aks_inference_runtime.api.errors import InvalidInput

DOCKER_HUB = "docker.io"
DOCKER_HUB_API = "registry-1.docker.io"
"""Docker Hub answers the distribution API under another name than images carry."""
# Grammar of the OCI distribution specification 1.1, section "Pulling manifests".
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::\d{1,5})?")


@dataclass(frozen=True)
class ImageReference:
    """Where an image is. `tag` or `digest` or both; the digest wins."""

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @staticmethod
    def parse(text: str) -> "ImageReference":
        """Reads a reference as Docker does (`python` is `docker.io/library/python:latest`). Raises InvalidInput."""
        rest, _, digest = text.strip().partition("@")
        head, slash, tail = rest.partition("/")
        is_host = bool(slash) and ("." in head or ":" in head or head == "localhost")
        registry, path = (head, tail) if is_host else (DOCKER_HUB, rest)
        repository, _, tag = path.partition(":")
        if registry in {DOCKER_HUB, "index.docker.io", DOCKER_HUB_API}:
            registry = DOCKER_HUB
            repository = repository if "/" in repository else f"library/{repository}"
        problem = _problem(registry, repository, tag, digest, ":" in path, "@" in text)
        if problem:
            raise InvalidInput(f"{text!r} is not the name of an image: {problem}; write registry/repository:tag")
        return ImageReference(registry, repository, tag or (None if digest else "latest"), digest or None)

    @property
    def api_host(self) -> str:
        """The host that answers the distribution API."""
        return DOCKER_HUB_API if self.registry == DOCKER_HUB else self.registry

    @property
    def target(self) -> str:
        """The last part of a manifest's URL: the digest where there is one, else the tag."""
        return self.digest or self.tag or "latest"

    def at(self, digest: str) -> "ImageReference":
        """The same image, pinned."""
        return replace(self, digest=digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"

    @property
    def identity(self) -> str:
        """What the reference means: with a digest the tag says nothing more."""
        return str(replace(self, tag=None)) if self.digest else str(self)


def _problem(registry: str, repository: str, tag: str, digest: str, has_tag: bool, has_digest: bool) -> str:
    if not _HOST.fullmatch(registry):
        return f"{registry!r} is not a host"
    if not _REPOSITORY.fullmatch(repository):
        return f"{repository!r} is not a repository (lower-case letters, digits, and . _ - / between them)"
    if has_tag and not _TAG.fullmatch(tag):
        return f"{tag!r} is not a tag (up to 128 letters, digits, and . _ -)"
    if has_digest and not _DIGEST.fullmatch(digest):
        return f"{digest!r} is not a digest (sha256: and 64 hexadecimal digits)"
    return ""


def repository_of(text: str, default_repository: str) -> tuple[str, str]:
    """Registry and repository from `host` or `host/repository`. Raises InvalidInput."""
    registry, _, repository = text.removeprefix("https://").rstrip("/").partition("/")
    repository = repository or default_repository
    problem = _problem(registry, repository, "", "", False, False)
    if problem or "://" in text.removeprefix("https://"):
        raise InvalidInput(f"{text!r} is not a registry: {problem or 'a scheme'}; write host or host/repository")
    return registry, repository
