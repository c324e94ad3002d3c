"""The image key (docs/image-key.md): a SHA-256 over what an environment image is made of, and nothing else."""

import hashlib
import json
import re
from collections.abc import Mapping

from aks_inference_runtime.images.environment.model import BuildContext, Dockerfile, EnvironmentDefinition
from aks_inference_runtime.images.reference import ImageReference

KEY_FORMAT = 1
"""Grows with every change of what the canonical form holds: old images are then not found, never mistaken."""
_DIRECTIVE = re.compile(r"#\s*(?:syntax|escape|check)\s*=", re.IGNORECASE)
_FROM = re.compile(
    r"^\s*FROM\s+(?:--\S+\s+)*(?P<image>\S+)(?:\s+AS\s+(?P<stage>\S+))?\s*$", re.IGNORECASE | re.MULTILINE
)


def base_references(definition: EnvironmentDefinition) -> tuple[ImageReference, ...]:
    """The images that the definition builds on, as far as its text names them (a build argument does not)."""
    if isinstance(definition.base, ImageReference):
        return (definition.base,)
    text = definition.base.text if isinstance(definition.base, Dockerfile) else _context_text(definition.base)
    stages: set[str] = set()
    images: dict[ImageReference, None] = {}
    for match in _FROM.finditer(text):
        image = match["image"]
        if image not in stages and image != "scratch" and "$" not in image and not image.isdigit():
            images[ImageReference.parse(image)] = None
        if match["stage"]:
            stages.add(match["stage"])
    return tuple(images)


def canonical_definition(definition: EnvironmentDefinition, pins: Mapping[str, str] | None = None) -> str:
    """The canonical text that is hashed: JSON with sorted keys and no whitespace.

    `pins`: digests by reference, as base_references gives them; a reference without one counts by its tag.
    """
    known = pins or {}
    bases = sorted(
        (reference.at(known[str(reference)]) if str(reference) in known else reference).identity
        for reference in base_references(definition)
    )
    base = definition.base
    installs = not definition.user_managed
    # Channels count only where something is taken from them.
    channels = definition.conda.channels if definition.conda.dependencies else ()
    content = {
        "format": KEY_FORMAT,
        "platform": str(definition.platform),
        "bases": bases,
        "dockerfile": canonical_steps(base.text) if isinstance(base, Dockerfile) else None,
        "context": _context(base) if isinstance(base, BuildContext) else None,
        "steps": canonical_steps(definition.docker_steps or "") or None,
        "channels": list(channels) if installs else [],
        "conda": list(definition.conda.dependencies) if installs else [],
        "pip": list(definition.pip) if installs else [],
        "pipOptions": list(definition.pip_options) if installs and definition.pip else [],
    }
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def image_key(definition: EnvironmentDefinition, pins: Mapping[str, str] | None = None) -> str:
    """The key: 64 hexadecimal digits. The same content gives the same key, whatever it is called."""
    return hashlib.sha256(canonical_definition(definition, pins).encode()).hexdigest()


def canonical_steps(text: str) -> str:
    """Docker steps without comments, blank lines and trailing whitespace; their order stays.

    A text with a here-document keeps its comments: there `#` may be content.
    """
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    if "<<" in text:
        return "\n".join(lines).strip("\n")
    return "\n".join(line for line in lines if line and (not line.lstrip().startswith("#") or _DIRECTIVE.match(line)))


def _context(context: BuildContext) -> dict[str, str]:
    where = context.digest or context.location
    return {"content": where, "dockerfile": context.dockerfile_path}


def _context_text(base: BuildContext | None) -> str:
    if base is None or base.folder is None:
        return ""
    return (base.folder / base.dockerfile_path).read_text("utf-8")
