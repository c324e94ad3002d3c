"""The bill of materials of a service, which is joined of pieces, is the document that it was as a whole."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from aks_inference_runtime.images.build.sbom import File, below_application, service_spdx, spdx
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry.manifest import json_bytes, sha256

ENVIRONMENT = ImageReference("registry.example", "a/env", None, "sha256:" + "a" * 64)
SERVICE = "sha256:" + "b" * 64
FILES = (File("app/é.py", "1" * 64, "2" * 40), File('app/"q".py', "3" * 64, "4" * 40))
BASES = (ImageReference("registry.example", "base", "1"),)
ODD = (
    {
        "SPDXID": "SPDXRef-python-z",
        "name": "naïve\u2028",
        "versionInfo": "1",
        "z": [1, 2.5, None],
        "a": {"y": 1, "b": 2},
    },
    {"SPDXID": "SPDXRef-python-a", "name": "SPDXRef-image", "versionInfo": "2"},
)
"""Of packages: keys out of order, letters and line ends of others, a name that is an identifier elsewhere."""


def of_environment(bases: Sequence[ImageReference], packages: Sequence[Any]) -> bytes:
    return spdx(str(ENVIRONMENT.digest), "k" * 20, bases, packages)


# Written once by the code that read and wrote the whole document: a bill that is made anew is the one that is attached.
@pytest.mark.parametrize(
    ("files", "below", "digest"),
    [
        (FILES, of_environment(BASES, ODD), "sha256:c1e4593a2f8d9cb3d6d0e3fb540779ece719b4aa065fb01b07b6ef6a526c24f6"),
        (FILES, of_environment((), ()), "sha256:4f8dceb0486d3ebc4e74e2faa458b5761e5a79aa226809d8133ff32a677fe81b"),
        (FILES, None, "sha256:64f50e10e9f4ab2da50506b345d57e7b3cbe5ba63d44b5b461e51ba38746dbe8"),
        ((), of_environment(BASES, ODD), "sha256:81238a850a98bcc8568224c071cd6f6265d200da812b0152753fc395ffb54319"),
    ],
)
def test_the_same_document_as_before(files: Sequence[File], below: bytes | None, digest: str) -> None:
    made = service_spdx(SERVICE, ENVIRONMENT, files, below_application(below) if below is not None else None)
    assert sha256(made) == digest
    assert made == json_bytes(json.loads(made))


def test_all_of_the_environment_is_in_it_under_a_name_of_its_own() -> None:
    below = json.loads(of_environment(BASES, ODD))
    made = json.loads(service_spdx(SERVICE, ENVIRONMENT, FILES, below_application(json_bytes(below))))
    image, *others = below["packages"]
    assert made["packages"][2:] == [image | {"SPDXID": "SPDXRef-environment"}, *others]
    contained = [one["relatedSpdxElement"] for one in below["relationships"][1:]]
    found = made["relationships"][-len(contained) :]
    assert [(one["spdxElementId"], one["relatedSpdxElement"]) for one in found] == [
        ("SPDXRef-environment", one) for one in contained
    ]
    assert [one["relationshipType"] for one in made["relationships"]].count("DESCRIBES") == 1


OURS: dict[str, Any] = {"creationInfo": {"creators": ["Tool: aks-inference"]}, "packages": [], "relationships": []}


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"creationInfo": []}',
        b"[" * 100_000,
        json_bytes(OURS | {"creationInfo": {"creators": ["Tool: another"]}}),
        json_bytes(OURS | {"packages": None}),
        json_bytes(OURS | {"packages": {"a": 1}}),
        json_bytes(OURS | {"packages": [{}]}),
        json_bytes(OURS | {"packages": [{"SPDXID": []}]}),
        json_bytes(OURS | {"relationships": ["text"]}),
        json_bytes(OURS | {"relationships": [{"spdxElementId": "a", "relatedSpdxElement": {}}]}),
        json.dumps(OURS | {"packages": [{"SPDXID": "\ud800"}]}).encode(),
    ],
    ids=lambda document: document[:40].decode(errors="replace"),
)
def test_what_is_no_document_of_ours(document: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the reader's own are some, in words of their own
        below_application(document)
