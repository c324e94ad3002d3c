"""Images that run: a Debian base made by debootstrap, wheels from the package index, started by buildah; and buildah
as the builder. Needs root, debootstrap, buildah and a package index."""

import asyncio
import contextlib
import gzip
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aks_inference_runtime.api.limits import ContextLimits
from aks_inference_runtime.images import (
    Application,
    Builder,
    BuildSettings,
    RegistryClient,
    RegistryPlace,
    ensure_image,
    ensure_service,
    read_environment,
)
from aks_inference_runtime.images.build.tools import OF_TOOLS, ToolOptions, write_context
from aks_inference_runtime.images.environment.containerfile import FILES, VENV
from aks_inference_runtime.images.errors import BuildFailed
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

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="debootstrap and buildah with chroot isolation need root"),
]
for program in ("debootstrap", "buildah"):
    pytestmark.append(pytest.mark.skipif(shutil.which(program) is None, reason=f"no {program}: install Debian's"))

AUTHORITIES = os.environ.get("PIP_CERT")
"""Where the package index is reached by a private authority, pip in the build container must know it too."""
SCRIPT = """
import json, os, alpha_probe
def init(): pass
def run(data): return {"user": os.getuid(), "probe": alpha_probe.__version__}
print(json.dumps(run(None)))
"""


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Debian with Python as one compressed layer."""
    folder = tmp_path_factory.mktemp("debian")
    command = ["debootstrap", "--variant=minbase", "--include=python3,python3-venv", "bookworm", str(folder / "root")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"debootstrap failed: {done.stdout[-500:]}{done.stderr[-500:]}")
    listed = ["tar", "-C", str(folder / "root"), "--exclude=./proc/*", "--exclude=./sys/*", "--exclude=./dev/*"]
    subprocess.run([*listed, "--exclude=./var/cache/apt/*", "-cf", str(folder / "layer.tar"), "."], check=True)
    shutil.rmtree(folder / "root")
    return folder / "layer.tar"


@pytest.fixture
async def base(debian: Path, registry: Any, quick: Callable[..., RegistryClient]) -> ImageReference:
    plain = await asyncio.to_thread(debian.read_bytes)
    layer = await asyncio.to_thread(gzip.compress, plain, 1, mtime=0)
    reference = ImageReference.parse(f"{registry.host}/real/debian:12")
    described = Descriptor(OCI_LAYER_GZIP, sha256(layer), len(layer))
    config = json_bytes(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/usr/bin:/bin", *([f"PIP_CERT={AUTHORITIES}"] if AUTHORITIES else [])]},
            "rootfs": {"type": "layers", "diff_ids": [sha256(plain)]},
            "history": [{"created_by": "debootstrap"}],
        }
    )
    async with quick() as client:
        await client.push_blob(reference, described, UploadSource.of(layer))
        config_blob = Descriptor(OCI_CONFIG, sha256(config), len(config))
        await client.push_blob(reference, config_blob, UploadSource.of(config))
        await client.push_manifest(reference, image_manifest(config_blob, (described,)))
    return reference


class Buildah:
    """buildah with a storage of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.options = ("--root", str(folder / "root"), "--runroot", str(folder / "run"), "--storage-driver", "vfs")

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(["buildah", *self.options, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def run(self, image: object, *command: str) -> str:
        """Runs a command in a container of the image, as its user."""
        name = self("from", "--tls-verify=false", f"docker://{image}")
        try:
            return self("run", "--isolation", "chroot", name, "--", *command)
        finally:
            self("rm", name)


@pytest.fixture
def buildah(tmp_path: Path) -> Iterator[Buildah]:
    made = Buildah(tmp_path / "buildah")
    yield made
    made("rm", "--all")
    made("rmi", "--all", "--force")


def without_tag(reference: ImageReference) -> ImageReference:
    """buildah takes a tag or a digest, not both."""
    return ImageReference(reference.registry, reference.repository, None, reference.digest)


async def test_our_image_runs(
    registry: Any,
    quick: Any,
    base: ImageReference,
    buildah: Buildah,
    tmp_path: Path,
    wheelhouse: Path,
    make_wheel: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A compiled package from the index, one of our own, an entry script: imported in the image, not as root."""
    monkeypatch.delenv("PIP_NO_INDEX")
    make_wheel(wheelhouse, "alpha-probe", "2.5", scripts={"probe": "alpha_probe:__doc__"})
    packages = ["alpha-probe", "numpy==2.2.6"]
    definition = read_environment({"docker": {"baseImage": str(base)}, "pipPackages": packages}, Path())
    source = tmp_path / "service"
    source.mkdir()
    (source / "score.py").write_text(SCRIPT)
    settings = BuildSettings(cache=tmp_path / "cache")
    where = RegistryPlace.parse(f"{registry.host}/real/env")
    async with quick() as client:
        application = Application("score.py", source)
        _, service = await ensure_service(client, definition, application, where, settings=settings)
    image = without_tag(service.image)
    got = await asyncio.to_thread(buildah.run, image, f"{VENV}/bin/python", "/var/azureml-app/service/score.py")
    assert json.loads(got) == {"user": 10001, "probe": "2.5"}
    code = "import numpy, sys; print(numpy.ones(3).sum(), sys.prefix)"
    assert await asyncio.to_thread(buildah.run, image, "python", "-c", code) == f"3.0 {VENV}"
    check = await asyncio.to_thread(buildah.run, image, "python", "-c", LISTED)
    assert check == "alpha-probe 2.5, numpy 2.2.6"


LISTED = (
    "import importlib.metadata as m; ds = sorted(m.distributions(), key=lambda d: d.name.lower()); "
    "assert all(f.locate().exists() for d in ds for f in d.files); print(', '.join(f'{d.name} {d.version}' for d in ds))"  # noqa: E501
)


async def test_buildah_builds_the_generated_file(
    registry: Any, quick: Any, base: ImageReference, buildah: Buildah, tmp_path: Path
) -> None:
    """Steps of one's own: our builder cannot make them, so buildah does; the same user and labels come out."""
    docker = {"baseImage": str(base), "extraDockerFileSteps": "RUN echo made > /made\n"}
    definition = read_environment({"docker": docker, "python": {"userManagedDependencies": True}}, Path())
    options = ToolOptions(buildah.options, ("--isolation=chroot",), plain_http=True)
    settings = BuildSettings(cache=tmp_path / "cache", tool=options)
    where = RegistryPlace.parse(f"{registry.host}/real/tool")
    log: list[str] = []
    async with quick() as client:
        made = await ensure_image(client, definition, where, settings=settings, progress=log.append)
        again = await ensure_image(client, definition, where, settings=settings)
    assert (made.builder, again.built, again.image) == ("buildah", False, made.image)
    assert any("STEP" in line for line in log)
    got = await asyncio.to_thread(buildah.run, without_tag(made.image), "sh", "-c", "cat /made; id -u")
    assert got.split() == ["made", "10001"]


@contextlib.contextmanager
def podman(_folder: Path) -> Iterator[ToolOptions]:
    """With a storage of the test's own; the paths of its sockets may not be long."""
    if shutil.which("podman") is None:
        pytest.skip("no podman: install Debian's")
    with tempfile.TemporaryDirectory(prefix="podman-") as own:
        storage = ("--root", f"{own}/root", "--runroot", f"{own}/run", "--storage-driver", "vfs")
        options = (*storage, "--cgroup-manager=cgroupfs", "--runtime=runc")
        yield ToolOptions(options, ("--isolation=chroot",), plain_http=True)


@contextlib.contextmanager
def buildx(folder: Path) -> Iterator[ToolOptions]:
    """docker's client with a plugin and a builder that the user has chosen: a BuildKit of the test's own, no daemon."""
    for program in ("docker", "buildkitd", "buildx"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}: docker's client; Go modules github.com/moby/buildkit, github.com/docker/buildx")
    plugins = folder / "docker" / "cli-plugins"
    plugins.mkdir(parents=True)
    (plugins / "docker-buildx").symlink_to(str(shutil.which("buildx")))
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="buildkit-") as own:
        patch.setenv("DOCKER_CONFIG", str(folder / "docker"))
        address = f"unix://{own}/socket"
        command = ["buildkitd", "--root", f"{own}/root", "--addr", address, "--oci-worker-net=host"]
        with (folder / "buildkit.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            end = time.monotonic() + 60
            while not Path(own, "socket").exists():
                assert process.poll() is None, (folder / "buildkit.log").read_text()
                assert time.monotonic() < end, "buildkitd does not listen"
                time.sleep(0.05)
            create = ["docker", "buildx", "create", "--name", "of-tests", "--driver", "remote", "--use", address]
            subprocess.run(create, check=True, capture_output=True)
            yield ToolOptions(plain_http=True)
        finally:
            process.terminate()
            process.wait(30)


@pytest.mark.parametrize("tool", [podman, buildx])
async def test_other_tools_build_it_too(
    tool: Callable[[Path], contextlib.AbstractContextManager[ToolOptions]],
    registry: Any,
    quick: Any,
    base: ImageReference,
    buildah: Buildah,
    tmp_path: Path,
) -> None:
    """A context with an odd name in it, and a failing step's log."""
    context, builder = tmp_path / "context", Builder(tool.__name__)
    context.mkdir()
    (context / "Dockerfile").write_text(f"FROM {base}\nCOPY . /made\nRUN python3 -c 'print(6 * 7)' > /answer\n")
    (context / "a b ü 漢.txt").write_text("odd")
    raw = {"docker": {"buildContext": {"location": str(context)}}, "python": {"userManagedDependencies": True}}
    definition = read_environment(raw, tmp_path)
    docker = {"baseImage": str(base), "extraDockerFileSteps": "RUN echo before it && exit 7\n"}
    failing = read_environment({"docker": docker, "python": {"userManagedDependencies": True}}, tmp_path)
    where = RegistryPlace.parse(f"{registry.host}/real/{builder.value}")
    with tool(tmp_path) as options:
        settings = BuildSettings(builder, cache=tmp_path / "cache", tool=options)
        async with quick() as client:
            made = await ensure_image(client, definition, where, settings=settings)
            with pytest.raises(BuildFailed, match=r"(?s)the end of its log:.*before it"):
                await ensure_image(client, failing, where, settings=settings)
    assert (made.builder, made.built) == (builder.value, True)
    command = ("sh", "-c", "cat /answer '/made/a b ü 漢.txt'; id -u")
    got = await asyncio.to_thread(buildah.run, without_tag(made.image), *command)
    assert got.split() == ["42", "odd10001"]


@pytest.mark.parametrize("name", OF_TOOLS)
def test_a_context_that_leaves_all_out_still_gets_its_packages(buildah: Buildah, tmp_path: Path, name: str) -> None:
    """What is installed lies in the context too, and the author's file for build tools does not know of it."""
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY . /made\n")
    (folder / name).write_text("*\n!kept")
    (folder / "kept").write_text("1")
    (folder / "left out").write_text("2")
    raw = {"docker": {"buildContext": {"location": str(folder)}}, "pipPackages": ["alpha"]}
    work = tmp_path / "work"
    work.mkdir()
    context, file = write_context(work, read_environment(raw, tmp_path), {}, ContextLimits())
    # Nothing in an empty image can run.
    file.write_text("".join(line for line in file.read_text().splitlines(keepends=True) if not line.startswith("RUN")))
    buildah("build", "--isolation", "chroot", "--format", "oci", "--file", str(file), "--tag", "made", str(context))
    container = buildah("from", "localhost/made")
    mounted = Path(buildah("mount", container))
    assert (mounted / FILES.lstrip("/") / "requirements.txt").read_text() == "alpha\n"
    assert (mounted / "made" / "kept").is_file()
    assert not (mounted / "made" / "left out").exists()
    buildah("umount", container)


async def test_failure_of_buildah_shows_the_end_of_its_log(
    registry: Any, quick: Any, base: ImageReference, buildah: Buildah, tmp_path: Path
) -> None:
    docker = {"baseImage": str(base), "extraDockerFileSteps": "RUN echo before it && exit 7\n"}
    definition = read_environment({"docker": docker, "python": {"userManagedDependencies": True}}, Path())
    options = ToolOptions(buildah.options, ("--isolation=chroot",), plain_http=True)
    settings = BuildSettings(Builder.BUILDAH, cache=tmp_path / "cache", tool=options)
    async with quick() as client:
        with pytest.raises(
            BuildFailed, match=r"(?s)buildah of .* failed with code \d+; the end of its log:.*before it"
        ):
            await ensure_image(client, definition, RegistryPlace.parse(f"{registry.host}/real/fail"), settings=settings)


async def test_our_builder_against_buildah(
    registry: Any,
    quick: Any,
    base: ImageReference,
    buildah: Buildah,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The same packages by both; the times are printed, not asserted."""
    packages = ["numpy==2.2.6", "flask==3.1.0"]
    definition = read_environment({"docker": {"baseImage": str(base)}, "pipPackages": packages}, Path())
    mounts = [f"--volume={AUTHORITIES}:{AUTHORITIES}:ro"] if AUTHORITIES else []
    options = ToolOptions(buildah.options, ("--isolation=chroot", *mounts), plain_http=True)
    seconds: dict[str, float] = {}
    sizes: dict[str, int] = {}
    async with quick() as client:
        for builder in (Builder.ASSEMBLE, Builder.BUILDAH):
            settings = BuildSettings(builder, cache=tmp_path / builder.value, tool=options)
            where = RegistryPlace.parse(f"{registry.host}/real/by-{builder.value}")
            begin = time.monotonic()
            made = await ensure_image(client, definition, where, settings=settings)
            seconds[builder.value] = time.monotonic() - begin
            manifest = await client.manifest(made.image)
            sizes[builder.value] = sum(layer.size for layer in manifest.parts("layers"))
            code = "import flask, numpy; print(numpy.__version__)"
            got = await asyncio.to_thread(buildah.run, without_tag(made.image), "python", "-c", code)
            assert got == "2.2.6"
    with capsys.disabled():
        print(json.dumps({"seconds": seconds, "sizes": sizes}))
