"""The bill of materials: SPDX 2.3 in JSON, the same for the same content."""

import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
_CREATORS = ["Tool: aks-inference"]
_ENVIRONMENT = "SPDXRef-environment"
"""In the document of a service's image."""
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
    return json_bytes(_document(f"environment-{key[:12]}", image_digest, packages, relations))


def _document(
    name: str, image_digest: str, packages: Sequence[Mapping[str, object]], relations: Sequence[Mapping[str, str]]
) -> dict[str, object]:
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": f"urn:aks-inference:spdx:{image_digest}",
        "creationInfo": {"created": CREATED, "creators": _CREATORS},
        "packages": [*packages],
        "relationships": [*relations],
    }


@dataclass(frozen=True)
class Below:
    """What is below an application: packages and relationships as JSON, to stand behind others of their kind."""

    packages: bytes
    relationships: bytes


def service_spdx(image_digest: str, environment: ImageReference, files: Sequence["File"], below: Below | None) -> bytes:
    """The document of a service's image: its files, on what the environment's document (`below`) lists."""
    root, application = "SPDXRef-image", "SPDXRef-application"
    parts = [_file(number, one) for number, one in enumerate(files)]
    code = hashlib.sha1("".join(sorted(one.sha1 for one in files)).encode(), usedforsecurity=False).hexdigest()
    packages = [
        _part(root, "service", image_digest) | {"primaryPackagePurpose": "CONTAINER"},
        _part(application, "application", "NOASSERTION")
        | {"filesAnalyzed": True, "packageVerificationCode": {"packageVerificationCodeValue": code}},
    ]
    relations = [
        _relation("SPDXRef-DOCUMENT", "DESCRIBES", root),
        _relation(root, "DESCENDANT_OF", _ENVIRONMENT),
        _relation(root, "CONTAINS", application),
        *(_relation(application, "CONTAINS", str(one["SPDXID"])) for one in parts),
    ]
    document = {**_document(f"service-{image_digest[7:19]}", image_digest, packages, relations), "files": parts}
    below = below or _unknown(environment)
    more = {"packages": below.packages, "relationships": below.relationships}
    return b"{%b}" % b",".join(
        b'"%b":%b' % (name.encode(), _longer(json_bytes(document[name]), more.get(name, b"")))
        for name in sorted(document)
    )


def _longer(content: bytes, more: bytes) -> bytes:
    """A list that has something in it, with more at its end."""
    return content[:-1] + b"," + more + b"]" if more else content


@functools.lru_cache(maxsize=8)
def below_application(document: bytes) -> Below:
    """What an environment's document lists, the environment under a name of its own. Kept: to read and write it again
    costs as much as the requests of a changed script. Raises ValueError for a document that is not of this package."""
    try:
        bill = json.loads(document)
        if bill["creationInfo"]["creators"] != _CREATORS:
            raise ValueError
        renamed = {"SPDXRef-image": _ENVIRONMENT}
        packages = [{**one, "SPDXID": renamed.get(one["SPDXID"], one["SPDXID"])} for one in bill["packages"]]
        relations = [
            {end: renamed.get(value, value) for end, value in one.items()}
            for one in bill["relationships"]
            if one["spdxElementId"] != "SPDXRef-DOCUMENT"
        ]
    except (LookupError, TypeError, RecursionError) as error:
        raise ValueError from error
    return Below(json_bytes(packages)[1:-1], json_bytes(relations)[1:-1])


def _unknown(environment: ImageReference) -> Below:
    part = _part(_ENVIRONMENT, f"{environment.registry}/{environment.repository}", environment.digest or "")
    return Below(json_bytes(part | {"comment": "no bill of materials is attached to it"}), b"")


@dataclass(frozen=True)
class File:
    """A file in an image. SPDX wants the older digest, too."""

    name: str
    """In the image, from its root."""
    sha256: str
    sha1: str


def _file(number: int, file: File) -> dict[str, object]:
    checksums = [("SHA1", file.sha1), ("SHA256", file.sha256)]
    return {
        "SPDXID": f"SPDXRef-file-{number}",
        "fileName": f"./{file.name}",
        "checksums": [{"algorithm": kind, "checksumValue": value} for kind, value in checksums],
    }


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
