"""The hashes that requirements ask for: uv compares none while it chooses."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from aks_inference_runtime.images.build.wheel import Wheel
from aks_inference_runtime.images.environment.pip import given_hashes, requirement_name
from aks_inference_runtime.images.errors import BuildFailed


@dataclass(frozen=True)
class Hashes:
    """By the canonical names of packages: `sha256:…`."""

    listed: Mapping[str, frozenset[str]]
    strict: bool
    """One has `--hash`, so that each package needs some, as with pip: without those of what a package needs its own
    protect nothing."""

    def of(self, name: str) -> frozenset[str]:
        """One of which the file of a package has to have; empty: any."""
        return self.listed.get(name, frozenset())


def hashes_of(requirements: Iterable[str]) -> Hashes:
    """Those of canonical requirements: of `--hash`, and of addresses (`#sha256=…`)."""
    listed: dict[str, frozenset[str]] = {}
    strict = False
    for line in requirements:
        options, address = given_hashes(line)
        strict = strict or bool(options)
        name = requirement_name(line)
        listed[name] = listed.get(name, frozenset()) | (options or address)
    return Hashes(listed, strict)


def check_hashes(hashes: Hashes, wheels: Sequence[Wheel]) -> None:
    """Raises BuildFailed for all that are not what was asked for. Reads files whose hashes are of other kinds."""
    missing = [f"{one.name}=={one.version}" for one in wheels if hashes.strict and not hashes.of(one.name)]
    if missing:
        raise BuildFailed(
            f"choosing packages: no --hash for {', '.join(missing)}, though others have one; give each package its "
            "hashes, those that others need too (uv pip compile --generate-hashes), or none"
        )
    wrong = [one for one in wheels if (asked := hashes.of(one.name)) and not _is_one(one, asked)]
    if wrong:
        found = ", ".join(f"{one.path.name} (sha256:{one.sha256})" for one in wrong)
        raise BuildFailed(
            f"choosing packages: not what --hash or the address asks for: {found}; pin the version that the hashes are "
            "of, or correct them if you trust the file"
        )


def _is_one(wheel: Wheel, asked: Iterable[str]) -> bool:
    if f"sha256:{wheel.sha256}" in asked:
        return True
    return any(
        f"{kind}:{_digest(wheel, kind)}" in asked for kind in {one.partition(":")[0] for one in asked} - {"sha256"}
    )


def _digest(wheel: Wheel, kind: str) -> str:
    with wheel.path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
