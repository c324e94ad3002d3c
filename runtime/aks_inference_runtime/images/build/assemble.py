"""Our own builder: an image put together from a base's layers and wheels, without any build tool."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aks_inference_runtime.images.build.base import BaseImage
from aks_inference_runtime.images.build.tarball import Entry, Layer, kept
from aks_inference_runtime.images.build.target import Target
from aks_inference_runtime.images.build.wheel import LAYOUT, Scheme, Wheel, unpack
from aks_inference_runtime.images.environment.containerfile import APP_ROOT, FILES, KEY_LABEL, USER, VENV
from aks_inference_runtime.images.registry.manifest import (
    OCI_CONFIG,
    Descriptor,
    Manifest,
    image_manifest,
    json_bytes,
    sha256,
)

OWN_LAYER_BYTES = 1024 * 1024
"""A wheel from this size on is a layer of its own: it is sent and kept once, whatever changes beside it."""
MOST_LAYERS = 100
"""Layers of one image with its base: runtimes take about 127."""
BASE_NAME = "org.opencontainers.image.base.name"
BASE_DIGEST = "org.opencontainers.image.base.digest"


@dataclass(frozen=True)
class NewLayer:
    """A layer that the builder made, and what it says in the image's history."""

    layer: Layer
    says: str


@dataclass(frozen=True)
class Image:
    """A finished image: what is pushed."""

    manifest: Manifest
    config: bytes
    base: BaseImage
    new: tuple[NewLayer, ...]

    @property
    def digest(self) -> str:
        """The manifest's."""
        return self.manifest.digest

    @property
    def size(self) -> int:
        """Compressed bytes of all layers."""
        return sum(one.size for one in self.manifest.parts("layers"))


def group_wheels(wheels: Sequence[Wheel], sizes: Mapping[str, int], room: int) -> list[tuple[Wheel, ...]]:
    """Which wheels share a layer: the small ones all together, the large ones one each while there is room. Pure."""
    ordered = sorted(wheels, key=lambda wheel: (-sizes[wheel.sha256], wheel.name))
    alone = [wheel for wheel in ordered if sizes[wheel.sha256] >= OWN_LAYER_BYTES][: max(0, room - 1)]
    together = tuple(sorted((wheel for wheel in wheels if wheel not in alone), key=lambda wheel: wheel.name))
    groups = [(wheel,) for wheel in sorted(alone, key=lambda wheel: wheel.name)]
    return groups + ([together] if together else [])


async def environment_layers(
    base: BaseImage, wheels: Sequence[Wheel], target: Target, cache: Path
) -> tuple[NewLayer, ...]:
    """The layers of an environment, packed on all cores, kept between builds."""
    scheme = Scheme(VENV, target.python)
    sizes = {wheel.sha256: wheel.path.stat().st_size for wheel in wheels}
    groups = group_wheels(wheels, sizes, MOST_LAYERS - len(base.layers))
    slots = asyncio.Semaphore(os.cpu_count() or 1)

    async def packed(key: str, says: str, wheels: tuple[Wheel, ...]) -> NewLayer:
        async with slots:
            return NewLayer(await asyncio.to_thread(_wheel_layer, key, wheels, scheme, cache), says)

    skeleton = list(_skeleton(wheels, target))
    content = sha256(repr([(one.name, one.content, one.link) for one in skeleton]).encode())
    first = await asyncio.to_thread(kept, cache / "layers", f"environment {content}", lambda _stack: skeleton)
    others = await asyncio.gather(*(packed(_group_key(group, scheme), _says(group), group) for group in groups))
    return (NewLayer(first, f"environment for {target.interpreter}"), *others)


def _wheel_layer(key: str, wheels: tuple[Wheel, ...], scheme: Scheme, cache: Path) -> Layer:
    def entries(stack: ExitStack) -> list[Entry]:
        # By name: of two wheels with the same file the later one wins, as with an installer.
        return list({one.name: one for wheel in wheels for one in unpack(wheel, scheme, stack)}.values())

    return kept(cache / "layers", key, entries)


def _group_key(group: Sequence[Wheel], scheme: Scheme) -> str:
    return f"wheels {LAYOUT} {scheme} {' '.join(wheel.sha256 for wheel in group)}"


def _says(group: Sequence[Wheel]) -> str:
    names = [f"{wheel.name} {wheel.version}" for wheel in group]
    return ", ".join(names) if len(names) <= 5 else f"{', '.join(names[:5])} and {len(names) - 5} more"


def _skeleton(wheels: Sequence[Wheel], target: Target) -> list[Entry]:
    """What makes the folder a virtual environment (PEP 405), and the list of what is in it."""
    root = VENV.lstrip("/")
    home = target.interpreter.rpartition("/")[0]
    settings = f"home = {home}\ninclude-system-site-packages = false\nversion = {target.python}\n"
    lock = "".join(f"{one.name}=={one.version} --hash=sha256:{one.sha256}\n" for one in sorted(wheels, key=_name))
    return [
        Entry(f"{root}/pyvenv.cfg", settings.encode()),
        Entry(f"{root}/bin/python", link=target.interpreter),
        Entry(f"{root}/bin/python3", link="python"),
        Entry(f"{root}/bin/python{target.python}", link="python"),
        Entry(f"{FILES.lstrip('/')}/requirements.lock", lock.encode()),
    ]


def _name(wheel: Wheel) -> str:
    return wheel.name


def environment_image(base: BaseImage, new: tuple[NewLayer, ...], key: str) -> Image:
    """The image of an environment; without new layers the base brings its own interpreter and packages."""
    variables = {"AML_APP_ROOT": APP_ROOT, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    if new:
        path = base.environment.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        variables |= {"PATH": f"{VENV}/bin:{path.removeprefix(f'{VENV}/bin:')}", "VIRTUAL_ENV": VENV}
    changes = {
        "User": USER,
        "WorkingDir": APP_ROOT,
        "Entrypoint": None,
        "Cmd": ["python"],
        "Labels": {KEY_LABEL: key},
        "Env": variables,
    }
    return put_together(base, new, changes, {KEY_LABEL: key})


def put_together(
    base: BaseImage, new: tuple[NewLayer, ...], changes: Mapping[str, Any], annotations: Mapping[str, str]
) -> Image:
    """An image of a base and new layers. `changes`: of its `config`; `Env` and `Labels` are added to. Pure."""
    config = dict(base.config.get("config") or {})
    environment = base.environment | dict(changes.get("Env") or {})
    labels = {**(config.get("Labels") or {}), **(changes.get("Labels") or {})}
    config |= {name: value for name, value in changes.items() if name not in {"Env", "Labels"}}
    config |= {"Env": [f"{name}={value}" for name, value in environment.items()], "Labels": labels}
    config = {name: value for name, value in config.items() if value is not None}
    created = base.config.get("created")
    history = [*_base_history(base), *(_history(one, created) for one in new)]
    diff_ids = [*base.config["rootfs"]["diff_ids"], *(one.layer.diff_id for one in new)]
    content = {
        **{name: base.config[name] for name in ("architecture", "os", "variant", "created") if name in base.config},
        "config": config,
        "history": history,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    raw = json_bytes(content)
    layers = (*base.layers, *(one.layer.descriptor() for one in new))
    described = Descriptor(OCI_CONFIG, sha256(raw), len(raw))
    notes = {**annotations, BASE_NAME: str(base.reference).partition("@")[0], BASE_DIGEST: base.manifest.digest}
    return Image(image_manifest(described, layers, notes), raw, base, new)


def _base_history(base: BaseImage) -> list[Mapping[str, Any]]:
    """With one entry for each layer: build tools refuse an image whose history is shorter."""
    said = [*(base.config.get("history") or ())]
    missing = len(base.layers) - sum(1 for one in said if not one.get("empty_layer"))
    return [*said, *({"created_by": "base image"} for _ in range(missing))]


def _history(one: NewLayer, created: object) -> dict[str, object]:
    return {**({"created": created} if created else {}), "created_by": f"aks-inference: {one.says}"}
