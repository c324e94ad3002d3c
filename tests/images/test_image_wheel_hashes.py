"""What requirements say of a file itself: its hashes, its address; and what becomes of one that was changed."""

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aks_inference_runtime.images.build.resolve import resolve
from aks_inference_runtime.images.build.target import Target
from aks_inference_runtime.images.build.wheel import Scheme, Wheel, metadata, unpack
from aks_inference_runtime.images.environment.pip import canonical_requirement
from aks_inference_runtime.images.errors import BuildFailed

TARGET = Target("3.11", "/usr/bin/python3.11", glibc=(2, 36))
OTHER = {kind: hashlib.new(kind, b"other", usedforsecurity=False).hexdigest() for kind in ("sha256", "sha512", "md5")}


@pytest.fixture
def hashes(wheelhouse: Path, make_wheel: Callable[..., Path]) -> dict[str, str]:
    """What the placeholders of requirements stand for."""
    found = {"folder": wheelhouse.as_uri()}
    found |= {f"other_{kind}": digest for kind, digest in OTHER.items()}
    made = {
        "alpha": make_wheel(wheelhouse, "alpha", requires=("beta",)),
        "beta": make_wheel(wheelhouse, "beta"),
        "generic": make_wheel(wheelhouse, "gamma"),
        "special": make_wheel(wheelhouse, "gamma", tag="cp311-cp311-manylinux_2_17_x86_64"),
    }
    make_wheel(wheelhouse, "beta", "2.0")
    make_wheel(wheelhouse, "arm", tag="cp311-cp311-manylinux_2_17_aarch64")
    make_wheel(wheelhouse, "local", "1.0+cpu")
    for name, path in made.items():
        found |= {f"{name}_{kind}": hashlib.new(kind, path.read_bytes()).hexdigest() for kind in ("sha256", "sha512")}
    return found


async def chosen(requirements: list[str], values: dict[str, str], cache: Path) -> list[Wheel]:
    lines = [canonical_requirement(one.format_map(values)) for one in requirements]
    return list(await resolve(lines, (), TARGET, cache, lambda _line: None))


@pytest.mark.parametrize(
    ("requirements", "names"),
    [
        (["beta==1.0 --hash=sha256:{beta_sha256}"], ["beta-1.0-py3-none-any.whl"]),
        (["beta==1.0 --hash=sha512:{beta_sha512}"], ["beta-1.0-py3-none-any.whl"]),
        (
            ["beta==1.0 --hash=sha256:{other_sha256} --hash=sha512:{beta_sha512}"],
            ["beta-1.0-py3-none-any.whl"],
        ),
        # Of a release's files the one that is meant, as with pip, though another fits better.
        (["gamma --hash=sha256:{generic_sha256}"], ["gamma-1.0-py3-none-any.whl"]),
        (["gamma"], ["gamma-1.0-cp311-cp311-manylinux_2_17_x86_64.whl"]),
        (
            ["alpha==1.0 --hash=sha256:{alpha_sha256}", "beta==1.0 --hash=sha256:{beta_sha256}"],
            ["alpha-1.0-py3-none-any.whl", "beta-1.0-py3-none-any.whl"],
        ),
        (["beta @ {folder}/beta-1.0-py3-none-any.whl#sha256={beta_sha256}"], ["beta-1.0-py3-none-any.whl"]),
        (["local @ {folder}/local-1.0%2Bcpu-py3-none-any.whl"], ["local-1.0+cpu-py3-none-any.whl"]),
    ],
)
async def test_what_is_asked_for(
    hashes: dict[str, str], tmp_path: Path, requirements: list[str], names: list[str]
) -> None:
    assert [one.path.name for one in await chosen(requirements, hashes, tmp_path / "cache")] == names


@pytest.mark.parametrize(
    ("requirements", "text"),
    [
        (["beta==1.0 --hash=sha256:{other_sha256}"], r"not what --hash or the address asks for: beta-1\.0.*pin the"),
        (["beta==1.0 --hash=sha512:{other_sha512}"], r"not what --hash or the address asks for: beta-1\.0"),
        (["beta --hash=sha256:{beta_sha256}"], r"not what --hash or the address asks for: beta-2\.0"),
        (["beta @ {folder}/beta-1.0-py3-none-any.whl#sha256={other_sha256}"], r"asks for: beta-1\.0"),
        (["beta @ {folder}/beta-1.0-py3-none-any.whl#md5={other_md5}"], r"asks for: beta-1\.0"),
        (
            ["alpha==1.0 --hash=sha256:{alpha_sha256}"],
            r"no --hash for beta==2\.0, though others have one; give each package its hashes, those that others need",
        ),
        (
            ["arm @ {folder}/arm-1.0-cp311-cp311-manylinux_2_17_aarch64.whl"],
            r"is no wheel of arm for Python 3\.11 on linux/amd64 with glibc 2\.36; give the address of one that is",
        ),
    ],
)
async def test_what_is_not_asked_for(
    hashes: dict[str, str], tmp_path: Path, requirements: list[str], text: str
) -> None:
    for _ in range(2):
        # What was refused is not kept as a choice.
        with pytest.raises(BuildFailed, match=text):
            await chosen(requirements, hashes, tmp_path / "cache")


@pytest.mark.parametrize("read", [metadata, lambda wheel: unpack(wheel, Scheme("/e", "3.11"), contextlib.ExitStack())])
async def test_a_wheel_that_was_changed_in_the_cache(
    hashes: dict[str, str], tmp_path: Path, read: Callable[[Wheel], Any]
) -> None:
    (wheel,) = await chosen(["beta"], hashes, tmp_path / "cache")
    wheel.path.write_bytes(wheel.path.read_bytes()[:100])
    with pytest.raises(BuildFailed, match=r"is no longer the file that was fetched, and is taken away; apply again"):
        read(wheel)
    (again,) = await chosen(["beta"], hashes, tmp_path / "cache")
    assert hashlib.sha256(again.path.read_bytes()).hexdigest() == wheel.sha256
