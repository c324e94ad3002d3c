"""What a Python environment is: the same content in another order or spelling is the same environment."""

import hashlib
import json
import re
from collections.abc import Sequence

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from aks_inference_runtime.api.errors import InvalidInput

SERVER_PACKAGE = "azureml-inference-server-http"
SERVER_REQUIREMENT = f"{SERVER_PACKAGE}<2,>=1.5"
_BRINGS_SERVER = frozenset({SERVER_PACKAGE, "azureml-defaults"})
_INDEX = re.compile(r"(--index-url|-i)\b")
_LAYOUT = 1
"""Grows when environments are built in another way."""


def canonical(requirements: Sequence[str]) -> tuple[str, ...]:
    """Requirement lines in one spelling and order, with the scoring server. Raises InvalidInput with all bad lines.

    Options of a requirements file (`--extra-index-url …`) stay as they are and come first, before all the index: pip
    forgets the further ones that stand before it.
    """
    options: list[str] = []
    parsed: dict[str, None] = {}
    names: set[str] = set()
    problems: list[str] = []
    for raw in requirements:
        line = raw.split(" #", 1)[0].strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("-"):
            options.append(line)
            continue
        try:
            requirement = Requirement(line)
        except InvalidRequirement as error:
            reason = str(error).splitlines()[0]
            problems.append(f"pipPackages: {raw!r} is not a requirement specifier ({reason}); write name==version")
            continue
        names.add(canonicalize_name(requirement.name))
        parsed[_spelled(requirement)] = None
    if problems:
        raise InvalidInput("\n".join(problems))
    if not names & _BRINGS_SERVER:
        parsed[SERVER_REQUIREMENT] = None
    options.sort(key=lambda option: not _INDEX.match(option))
    return (*options, *sorted(parsed))


def _spelled(requirement: Requirement) -> str:
    extras = f"[{','.join(sorted(canonicalize_name(e) for e in requirement.extras))}]" if requirement.extras else ""
    source = f" @ {requirement.url}" if requirement.url else ",".join(sorted(str(s) for s in requirement.specifier))
    marker = f" ; {requirement.marker}" if requirement.marker else ""
    return f"{canonicalize_name(requirement.name)}{extras}{source}{marker}"


def environment_hash(lines: Sequence[str], python: str, platform: str) -> str:
    """32 hex digits over canonical lines, Python's version (`3.11`) and the platform (`linux-x86_64`)."""
    content = json.dumps([_LAYOUT, python, platform, list(lines)])
    return hashlib.sha256(content.encode()).hexdigest()[:32]
