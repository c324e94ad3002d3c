"""The bill of materials: SPDX 2.3 in JSON, the same for the same content."""

import re
from collections.abc import Mapping, Sequence

from aks_inference_runtime.images.build.wheel import Wheel, metadata
from aks_inference_runtime.images.environment.conda import spec_name
from aks_inference_runtime.images.environment.containerfile import KEY_LABEL
from aks_inference_runtime.images.environment.model import EnvironmentDefinition
from aks_inference_runtime.images.environment.pip import requirement_name
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry.manifest import json_bytes

SPDX_JSON = "application/spdx+json"
CREATED = "1980-01-01T00:00:00Z"
"""Fixed: the document describes a content, and the same content shall give the same document."""
_IDENTIFIER = re.compile(r"[^A-Za-z0-9.-]+")
_EXPRESSION = re.compile(r"[A-Za-z0-9.+() -]{1,120}")


def spdx(
    image_digest: str, key: str, bases: Sequence[ImageReference], contents: Sequence[Mapping[str, object]]
) -> bytes:
    """The document of an image; `contents` by wheel_packages or declared_packages."""
    root = "SPDXRef-image"
    image = _part(root, f"environment {key}", image_digest) | {"comment": f"{KEY_LABEL}={key}"}
    below = [_base(number, one) for number, one in enumerate(bases)]
    packages = [image, *below, *contents]
    relations = [_relation("SPDXRef-DOCUMENT", "DESCRIBES", root)]
    relations += [_relation(root, "DESCENDANT_OF", str(one["SPDXID"])) for one in below]
    relations += [_relation(root, "CONTAINS", str(one["SPDXID"])) for one in contents]
    return json_bytes(
        {
            "spdxVersion": "SPDX-2.3",
            "dataLicense": "CC0-1.0",
            "SPDXID": "SPDXRef-DOCUMENT",
            "name": f"environment-{key[:12]}",
            "documentNamespace": f"urn:aks-inference:spdx:{image_digest}",
            "creationInfo": {"created": CREATED, "creators": ["Tool: aks-inference"]},
            "packages": packages,
            "relationships": relations,
        }
    )


def wheel_packages(wheels: Sequence[Wheel]) -> list[Mapping[str, object]]:
    """What our own builder put in: exact."""
    return [_wheel(wheel) for wheel in wheels]


def declared_packages(definition: EnvironmentDefinition) -> list[Mapping[str, object]]:
    """What a build tool was asked for: as declared, without what that draws in, as only the tool knows it."""
    names = [("pip", requirement_name(one), one) for one in definition.pip]
    names += [("conda", spec_name(one), one) for one in definition.conda.dependencies]
    parts: list[Mapping[str, object]] = []
    for number, (kind, name, text) in enumerate(names):
        part = _part(f"SPDXRef-{kind}-{number}-{_IDENTIFIER.sub('-', name)}", name, "NOASSERTION")
        parts.append(part | {"comment": f"declared as {text!r} for {kind}; the installed version is not known here"})
    return [] if definition.user_managed else parts


def _part(identifier: str, name: str, version: str) -> dict[str, object]:
    part = {"SPDXID": identifier, "name": name, "versionInfo": version, "downloadLocation": "NOASSERTION"}
    return {**part, "filesAnalyzed": False}


def _base(number: int, base: ImageReference) -> dict[str, object]:
    part = _part(f"SPDXRef-base-{number}", f"{base.registry}/{base.repository}", base.digest or base.tag or "")
    return part | {"primaryPackagePurpose": "CONTAINER"}


def _relation(one: str, kind: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}


def _wheel(wheel: Wheel) -> dict[str, object]:
    said = metadata(wheel)
    expression = str(said.get("License-Expression") or "").strip()
    return {
        **_part(f"SPDXRef-python-{_IDENTIFIER.sub('-', wheel.name)}", wheel.name, wheel.version),
        "packageFileName": wheel.path.name,
        "licenseDeclared": expression if _EXPRESSION.fullmatch(expression) else "NOASSERTION",
        "checksums": [{"algorithm": "SHA256", "checksumValue": wheel.sha256}],
        "externalRefs": [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": f"pkg:pypi/{wheel.name}@{wheel.version}",
            }
        ],
    }
