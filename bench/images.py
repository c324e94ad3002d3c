"""Images: looking up 100 services, our own builder beside buildah, the size of what comes out.

Both builders make the quickstart's packages on the same Debian base from the same package index, each with an empty
cache; in a full run it was asked for them once before (one near by keeps what it has fetched: that would cost the
first). Then only the entry script changes. buildah gets the Dockerfile that people write: packages first, the script
last, so that its own layer cache helps it with the change. Both have the base stored, ask the registry whether it is
still the same, and end with the image under a tag of the registry; ours has connections of its own each time, as each
update of a stack has, and a process that runs already, as Pulumi's plugin does.

The two do not do the same: ours also makes a bill of materials and attaches it before the image has its tag, which
counts, and buildah none. What that takes is the registry's: so there are two (see tests/helpers/registries.py), in the
same turns. `code_change_speedup_vs_buildah` is by the one with referrers, as Azure Container Registry has them, and
blobs in one request, which the distribution specification leaves to each registry; it keeps all in memory, as one
elsewhere costs this machine no disk. `older_…` is by Debian's docker-registry: a bill takes two manifests more there,
each blob two requests, and everything waits for the disk. The cold build is by this one.

`floor_ms` is what the registry itself takes for an image alone: its requests by plain sockets; `floor_described_ms` for
what ours sends. Divided into buildah's time (`…_speedup_vs_buildah`) they are what a builder would reach that asks
nothing and whose own work takes no time.

    ./bench/run images [--json] [--quick]
"""

import asyncio
import gzip
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.harness import machine, run_bench
from bench.plain_push import PlainImage
from bench.servers import of_tests

from aks_inference_runtime.images import (
    Application,
    Builder,
    BuildSettings,
    CredentialStore,
    Ensured,
    RegistryClient,
    RegistryPlace,
    ensure_service,
    find_all,
    read_environment,
)
from aks_inference_runtime.images.build.sbom import SPDX_JSON
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry.manifest import (
    OCI_CONFIG,
    OCI_LAYER_GZIP,
    Descriptor,
    image_manifest,
    json_bytes,
    sha256,
)
from aks_inference_runtime.images.registry.upload import UploadSource

PACKAGES = ("scikit-learn==1.9.0", "joblib>=1.5", "azureml-inference-server-http")
"""As the quickstart's services have them."""
QUICK_PACKAGES = ("joblib==1.5.2", "flask==3.1.0")
SERVICES = 100
CHANGES, QUICK_CHANGES = 15, 3
"""Of the entry script, by turns with each builder; the medians count. Before each turn all of the last one is on the
disk: what a builder leaves to be written would else cost the other."""
NEWER = (False, True)
"""Of the registries, in their order."""
SUITE = "bookworm"
AUTHORITIES = os.environ.get("PIP_CERT")
"""Where the index is reached by a private authority, pip in the build container must know it too."""
COLD_TO_REACH, CHANGE_TO_REACH, LOOKUP_TO_REACH_S = 3.0, 20.0, 1.0


def debian(tools: Any) -> Path:
    """A Debian with Python as one tar; made once by debootstrap and kept."""
    with tools.made_once(f"debian-{SUITE}") as (folder, new):
        layer: Path = folder / "layer.tar"
        if new:
            root = folder / "root"
            command = ["debootstrap", "--variant=minbase", "--include=python3,python3-venv", SUITE, str(root)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            skipped = [f"--exclude=./{name}/*" for name in ("proc", "sys", "dev", "var/cache/apt")]
            subprocess.run(["tar", "-C", str(root), *skipped, "-cf", str(layer), "."], check=True)
            shutil.rmtree(root)
    return layer


async def push_base(client: RegistryClient, host: str, tar: Path) -> ImageReference:
    """The base image of both."""
    plain = await asyncio.to_thread(tar.read_bytes)
    layer = await asyncio.to_thread(gzip.compress, plain, 1, mtime=0)
    reference = ImageReference.parse(f"{host}/bench/debian:12")
    described = Descriptor(OCI_LAYER_GZIP, sha256(layer), len(layer))
    variables = ["PATH=/usr/bin:/bin", *([f"PIP_CERT={AUTHORITIES}"] if AUTHORITIES else [])]
    config = json_bytes(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": variables},
            "rootfs": {"type": "layers", "diff_ids": [sha256(plain)]},
            # buildah counts the layers here, too.
            "history": [{"created_by": "debootstrap"}],
        }
    )
    await client.push_blob(reference, described, UploadSource.of(layer))
    config_blob = Descriptor(OCI_CONFIG, sha256(config), len(config))
    await client.push_blob(reference, config_blob, UploadSource.of(config))
    await client.push_manifest(reference, image_manifest(config_blob, (described,)))
    return reference


class Buildah:
    """buildah with a storage of its own, as a person would use it."""

    def __init__(self, folder: Path, storage: Path, base: ImageReference, packages: tuple[str, ...]) -> None:
        self._context = folder / "context"
        self._context.mkdir(parents=True)
        listed = " ".join(f"'{package}'" for package in packages)
        (self._context / "Dockerfile").write_text(
            f"FROM {base}\nRUN python3 -m venv /venv && /venv/bin/pip install --no-cache-dir {listed}\n"
            f"COPY score.py /app/score.py\n"
        )
        self._options = ["--root", str(storage / "root"), "--runroot", str(storage / "run")]
        # vfs copies every layer whole: only where the kernel has no overlays.
        self.driver = next(driver for driver in ("overlay", "vfs") if self._has(driver))
        self._options += ["--storage-driver", self.driver]

    def build(self, script: str, image: str) -> float:
        """Seconds until the image is in the registry."""
        (self._context / "score.py").write_text(script)
        mounts = [f"--volume={AUTHORITIES}:{AUTHORITIES}:ro"] if AUTHORITIES else []
        begin = time.perf_counter()
        self._run("build", "--layers", "--isolation=chroot", "--tls-verify=false", *mounts, "-t", image, self._context)
        self._run("push", "--tls-verify=false", image, f"docker://{image}")
        return time.perf_counter() - begin

    def remove(self) -> None:
        """All that it keeps."""
        self._run("rmi", "--all", "--force")

    def _has(self, driver: str) -> bool:
        command = ["buildah", *self._options, "--storage-driver", driver, "info"]
        return driver == "vfs" or subprocess.run(command, capture_output=True, check=False).returncode == 0

    def _run(self, *arguments: object) -> None:
        command = ["buildah", *self._options, *map(str, arguments)]
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise SystemExit(f"buildah {arguments[0]} failed:\n{done.stdout[-2_000:]}")


def fetch_once(packages: Sequence[str], folder: Path) -> None:
    """From the package index, to be thrown away."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-cache-dir", "--dest", str(folder), *packages]
    subprocess.run(pip, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(folder)


async def layer_bytes(client: RegistryClient, image: ImageReference) -> int:
    """What a node pulls."""
    manifest = await client.manifest(image)
    assert manifest is not None
    return sum(layer.size for layer in manifest.parts("layers"))


async def plain_image(client: RegistryClient, image: ImageReference) -> PlainImage:
    """As large as an image that is there, with its bill of materials."""
    manifest = await client.manifest(image)
    assert manifest is not None
    (listed,) = await client.referrers(image, SPDX_JSON)
    attached = await client.manifest(image.at(listed.digest))
    assert attached is not None
    config = await client.read_blob(image, manifest.part("config"), 2**20)
    return PlainImage.like(manifest, config, attached.parts("layers")[0])


async def lookup(client: RegistryClient, made: Ensured, base: ImageReference, packages: list[str]) -> float:
    """Seconds for key and look-up of 100 services whose environments differ in name and order only."""
    turned = [packages[n % len(packages) :] + packages[: n % len(packages)] for n in range(SERVICES)]
    raw = [
        {"name": f"environment-{n}", "docker": {"baseImage": str(base)}, "pipPackages": listed}
        for n, listed in enumerate(turned)
    ]
    place = RegistryPlace(made.image.registry, made.image.repository)
    services = [read_environment(one, Path()) for one in raw]
    begin = time.perf_counter()
    found = await find_all(client, services, place)
    seconds = time.perf_counter() - begin
    assert all(one.key == made.key and one.found is not None for one in found)
    return seconds


async def measure(*, quick: bool) -> dict[str, Any]:
    """All of it."""
    for program in ("debootstrap", "buildah"):
        if shutil.which(program) is None:
            raise SystemExit(f"no {program}: install Debian's")
    tools, servers = of_tests("models"), of_tests("images")
    packages = QUICK_PACKAGES if quick else PACKAGES
    tar = await asyncio.to_thread(debian, tools)
    # Else uv's would not be empty.
    os.environ.pop("UV_CACHE_DIR", None)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        started = [servers.start_registry(work), servers.start_referrers_registry(work)]
        try:
            return await compare(work, [one.host for one in started], tar, packages, quick)
        finally:
            for one in started:
                servers.stop(one)


@dataclass(frozen=True)
class Side:
    """Both builders with one of the registries."""

    client: RegistryClient
    host: str
    newer: bool
    base: ImageReference
    buildah: Buildah
    image: str
    """buildah's."""
    ours: Callable[[str], Awaitable[tuple[float, Ensured, Ensured]]]

    async def change(self, script: str, turn: int) -> dict[str, float]:
        """Seconds of each with another entry script, and of the registry alone."""
        await asyncio.to_thread(os.sync)
        ours_s, _, service = await self.ours(script)
        await asyncio.to_thread(os.sync)
        found = {"ours": ours_s, "buildah": await asyncio.to_thread(self.buildah.build, script, self.image)}
        for name, described in (("floor", False), ("floor_described", True)):
            plain = await plain_image(self.client, service.image)
            await asyncio.to_thread(os.sync)
            repository, tag = service.image.repository, f"plain-{turn}-{name}"
            found[name] = await asyncio.to_thread(
                plain.push, self.host, repository, tag, described=described, newer=self.newer
            )
        return found


async def compare(
    work: Path, hosts: Sequence[str], tar: Path, packages: tuple[str, ...], quick: bool
) -> dict[str, Any]:
    """Both builders, by turns, on the older and the newer registry."""
    async with RegistryClient() as client:
        sides = [await side(client, work, host, tar, packages, newer) for host, newer in zip(hosts, NEWER, strict=True)]
        older = sides[0]
        if not quick:
            await asyncio.to_thread(fetch_once, packages, work / "fetched")
        try:
            cold_s, made, service = await older.ours("def init(): ...\ndef run(data): return data\n")
            lookup_s = await lookup(client, made, older.base, list(packages))
            dockerfile_cold_s = await asyncio.to_thread(
                older.buildah.build, "def run(data): return data\n", older.image
            )
            await sides[1].ours("def init(): ...\ndef run(data): return data\n")
            await asyncio.to_thread(sides[1].buildah.build, "def run(data): return data\n", sides[1].image)
            turns: dict[bool, list[dict[str, float]]] = {one.newer: [] for one in sides}
            for turn in range(QUICK_CHANGES if quick else CHANGES):
                for one in sides:
                    # Of its own: what was packed for the other registry is kept, and would not be packed here.
                    script = f"def init(): ...\ndef run(data): return [data, {turn}, {one.newer}]\n"
                    turns[one.newer].append(await one.change(script, turn))
        finally:
            await asyncio.to_thread(older.buildah.remove)
        sizes = {
            "ours": await layer_bytes(client, service.image),
            "dockerfile": await layer_bytes(client, ImageReference.parse(older.image)),
        }
    version = await asyncio.to_thread(subprocess.run, ["buildah", "--version"], capture_output=True, text=True)
    return {
        "lookup_100_s": round(lookup_s, 3),
        "cold_speedup_vs_buildah": round(dockerfile_cold_s / cold_s, 2),
        **changed(turns[True]),
        **{f"older_{name}": value for name, value in changed(turns[False]).items()},
        "size_vs_dockerfile": round(sizes["ours"] / sizes["dockerfile"], 3),
        "to_reach": {
            "lookup_100_s": LOOKUP_TO_REACH_S,
            "cold_speedup_vs_buildah": COLD_TO_REACH,
            "code_change_speedup_vs_buildah": CHANGE_TO_REACH,
        },
        "seconds": {"ours_cold": round(cold_s, 2), "buildah_cold": round(dockerfile_cold_s, 2)},
        "bytes": sizes,
        "changes": len(turns[True]),
        "packages": list(packages),
        "quick": quick,
        "machine": machine(),
        "versions": {"buildah": version.stdout.strip(), "buildah_storage": older.buildah.driver},
    }


async def side(
    client: RegistryClient, work: Path, host: str, tar: Path, packages: tuple[str, ...], newer: bool
) -> Side:
    """With the base in the registry, and nothing built yet."""
    folder = work / ("newer" if newer else "older")
    source = folder / "service"
    source.mkdir(parents=True)
    base = await push_base(client, host, tar)
    place = RegistryPlace.parse(f"{host}/bench/env")
    settings = BuildSettings(Builder.ASSEMBLE, cache=work / "cache", credentials=CredentialStore())
    definition = read_environment({"docker": {"baseImage": str(base)}, "pipPackages": list(packages)}, Path())

    async def ours(script: str) -> tuple[float, Ensured, Ensured]:
        (source / "score.py").write_text(script)
        begin = time.perf_counter()
        application = Application("score.py", source)
        async with RegistryClient() as own:
            made, service = await ensure_service(own, definition, application, place, (), settings)
        return time.perf_counter() - begin, made, service

    buildah = Buildah(folder, work / "buildah", base, packages)
    return Side(client, host, newer, base, buildah, f"{host}/bench/dockerfile:1", ours)


def changed(turns: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Figures of a changed entry script with one registry: medians."""
    ms = {name: 1_000 * statistics.median(turn[name] for turn in turns) for name in turns[0]}
    return {
        "code_change_speedup_vs_buildah": round(ms["buildah"] / ms["ours"], 2),
        "floor_speedup_vs_buildah": round(ms["buildah"] / ms["floor"], 2),
        "floor_described_speedup_vs_buildah": round(ms["buildah"] / ms["floor_described"], 2),
        **{f"{name}_ms": round(value, 1) for name, value in ms.items()},
    }


def table(result: dict[str, Any]) -> str:
    """For people."""
    seconds = result["seconds"]
    lines = [
        f"key and look-up of {SERVICES} services: {result['lookup_100_s']:.2f} s (to reach: below 1 s)",
        f"cold build: {seconds['ours_cold']:.1f} s, buildah {seconds['buildah_cold']:.1f} s: "
        f"{result['cold_speedup_vs_buildah']:.1f} x faster (to reach: {COLD_TO_REACH:g} x)",
    ]
    for title, key in (("registry with referrers", ""), ("docker-registry", "older_")):
        lines += [
            f"entry script changed, {title}: {result[key + 'ours_ms']:.1f} ms, buildah "
            f"{result[key + 'buildah_ms']:.0f} ms: {result[key + 'code_change_speedup_vs_buildah']:.1f} x faster"
            + ("" if key else f" (to reach: {CHANGE_TO_REACH:g} x)"),
            f"  the registry's own {result[key + 'floor_described_ms']:.1f} ms (by plain sockets) would be "
            f"{result[key + 'floor_described_speedup_vs_buildah']:.1f} x, without a bill of materials, as buildah, "
            f"{result[key + 'floor_ms']:.1f} ms and {result[key + 'floor_speedup_vs_buildah']:.1f} x",
        ]
    lines.append(f"size: {json.dumps(result['bytes'])}: {result['size_vs_dockerfile']:.2f} of the Dockerfile's")
    return "\n".join(lines)


if __name__ == "__main__":
    run_bench("images", (__doc__ or "").split("\n", maxsplit=1)[0], measure, table)
