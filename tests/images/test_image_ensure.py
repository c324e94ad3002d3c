"""From a definition to an image in a real registry: found, built once, reproducible, described; by our own builder."""

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from aks_inference_runtime.api.errors import NotFound
from aks_inference_runtime.images import (
    Application,
    BuildSettings,
    RegistryClient,
    RegistryPlace,
    ensure_image,
    ensure_service,
    find,
    find_all,
    read_environment,
)
from aks_inference_runtime.images.build.base import fetch_image
from aks_inference_runtime.images.build.sbom import SPDX_JSON
from aks_inference_runtime.images.environment.model import EnvironmentDefinition, Platform
from aks_inference_runtime.images.errors import BuildFailed, RegistryUnavailable
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry.manifest import index_manifest

SITE = "opt/aks-inference/environment/lib/python3.11/site-packages"


def environment(base: object, *packages: str, **more: object) -> EnvironmentDefinition:
    return read_environment({"docker": {"baseImage": str(base)}, "pipPackages": list(packages), **more}, Path())


def place(host: str, name: str) -> RegistryPlace:
    return RegistryPlace.parse(f"{host}/{name}")


@pytest.fixture
def packages(wheelhouse: Path, make_wheel: Callable[..., Path]) -> Path:
    """`alpha` needs `beta`; `gamma` is large enough for a layer of its own."""
    make_wheel(wheelhouse, "alpha", requires=("beta>=1",), scripts={"alpha": "alpha:main"})
    make_wheel(wheelhouse, "beta")
    make_wheel(wheelhouse, "gamma", files={"gamma/data.bin": os.urandom(1_500_000)})
    return wheelhouse


async def files_of(client: Any, reference: ImageReference) -> dict[str, tarfile.TarInfo]:
    image = await fetch_image(client, reference, Platform())
    found: dict[str, tarfile.TarInfo] = {}
    for layer in image.layers:
        content = await client.read_blob(reference, layer, 10**8)
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(content))) as tar:
            found |= {member.name: member for member in tar}
    return found


async def test_build_then_find(
    registry: Any, quick: Callable[..., RegistryClient], push_base: Any, packages: Any, tmp_path: Path
) -> None:
    async with quick() as client:
        base = await push_base(client, f"{registry.host}/ensure/base:1")
        definition = environment(base.reference, "alpha", "gamma")
        where = place(registry.host, "ensure/one")
        before = await find(client, definition, where)
        assert (before.found, before.text) == (None, "will build: about 2 packages")
        made = await ensure_image(client, definition, where, settings=BuildSettings(cache=tmp_path / "a"))
        assert (made.built, made.builder, made.key) == (True, "assemble", before.key)
        looked = await find(client, definition, where)
        assert looked.found == made.image
        assert looked.text == f"image found in {registry.host}"
        files = await files_of(client, made.image)
        assert {f"{SITE}/alpha/__init__.py", f"{SITE}/beta/__init__.py", f"{SITE}/gamma/data.bin"} <= set(files)
        assert files["opt/aks-inference/environment/bin/alpha"].mode == 0o755
        assert files["opt/aks-inference/environment/bin/python"].linkname == "/usr/bin/python3.11"
        image = await fetch_image(client, made.image, Platform())
        config = image.config["config"]
        assert config["User"] == "10001:10001"
        assert "BASE=1" in config["Env"]
        assert config["Env"][0].startswith("PATH=/opt/aks-inference/environment/bin:/usr/bin")
        assert len(image.layers) == len(image.config["rootfs"]["diff_ids"]) == 4
        assert image.layers[0].digest == base.layer.digest
        assert len(image.config["history"]) == 4, (
            "build tools want an entry for each layer, also where the base has none"
        )
        again = await ensure_image(client, definition, where, settings=BuildSettings(cache=tmp_path / "a"))
        assert (again.built, again.image) == (False, made.image)


async def test_two_builds_give_the_same_digest(
    registry: Any, quick: Callable[..., RegistryClient], push_base: Any, packages: Any, tmp_path: Path
) -> None:
    async with quick() as client:
        base = await push_base(client, f"{registry.host}/same/base:1")
        definition = environment(base.reference, "gamma", "alpha")
        digests = []
        for name in ("one", "two"):
            settings = BuildSettings(cache=tmp_path / name)
            made = await ensure_image(client, definition, place(registry.host, f"same/{name}"), settings=settings)
            assert made.built
            digests.append(made.image.digest)
        assert digests[0] == digests[1]


async def test_only_what_changed_is_sent(
    proxy: Any, quick: Callable[..., RegistryClient], push_base: Any, packages: Any, make_wheel: Any, tmp_path: Path
) -> None:
    settings = BuildSettings(cache=tmp_path / "cache")
    async with quick() as client:
        base = await push_base(client, f"{proxy.host}/changed/base:1", {"large": os.urandom(2_000_000)})
        where = place(proxy.host, "changed/env")
        first = await ensure_image(client, environment(base.reference, "gamma"), where, settings=settings)
        before = proxy.body_bytes
        second = await ensure_image(client, environment(base.reference, "gamma", "alpha"), where, settings=settings)
    assert first.pushed.kept_blobs == 1, "the base's layer is mounted"
    assert first.pushed.sent_bytes > 1_000_000
    assert second.pushed.sent_bytes < 20_000
    assert proxy.body_bytes - before < 40_000


async def test_changed_script_leaves_the_environment_alone(
    registry: Any, quick: Callable[..., RegistryClient], push_base: Any, packages: Any, tmp_path: Path
) -> None:
    source = tmp_path / "my service"
    (source / "sub").mkdir(parents=True)
    (source / "score.py").write_text("def init(): ...\n")
    (source / "sub" / "helper.py").write_text("")
    (source / "notes.log").write_text("x")
    (source / ".amlignore").write_text("*.log\n")
    settings = BuildSettings(cache=tmp_path / "cache")
    where = place(registry.host, "script/env")
    async with quick() as client:
        base = await push_base(client, f"{registry.host}/script/base:1")
        definition = environment(base.reference, "gamma")
        application = Application("score.py", source)
        made, first = await ensure_service(client, definition, application, where, settings=settings)
        _, same = await ensure_service(client, definition, application, where, settings=settings)
        (source / "score.py").write_text("def init(): pass\n")
        found, second = await ensure_service(client, definition, application, where, settings=settings)
        files = await files_of(client, second.image)
        image = await fetch_image(client, second.image, Platform())
    assert (made.built, first.built, same.built, found.built, second.built) == (True, True, False, False, True)
    assert same.image == first.image != second.image
    assert second.pushed.sent_bytes < 10_000
    assert "var/azureml-app/my service/score.py" in files
    assert "var/azureml-app/my service/notes.log" not in files
    config = image.config["config"]
    assert {"AZUREML_ENTRY_SCRIPT=my service/score.py", "AZUREML_SOURCE_DIRECTORY=my service"} <= set(config["Env"])
    assert config["Cmd"] == ["azmlinfsrv", "--entry_script", "/var/azureml-app/my service/score.py"]
    assert config["User"] == "10001:10001"


async def test_bill_of_materials(
    registry: Any, quick: Callable[..., RegistryClient], push_base: Any, packages: Any, tmp_path: Path
) -> None:
    async with quick() as client:
        base = await push_base(client, f"{registry.host}/sbom/base:1")
        definition = environment(base.reference, "alpha")
        settings = BuildSettings(cache=tmp_path / "cache")
        made = await ensure_image(client, definition, place(registry.host, "sbom/env"), settings=settings)
        (listed,) = await client.referrers(made.image, SPDX_JSON)
        artifact = await client.manifest(made.image.at(listed.digest))
        assert artifact.data["subject"]["digest"] == made.image.digest
        document = json.loads(await client.read_blob(made.image, artifact.parts("layers")[0], 10**6))
    assert document["spdxVersion"] == "SPDX-2.3"
    purls = {
        ref["referenceLocator"]: package for package in document["packages"] for ref in package.get("externalRefs", ())
    }
    assert set(purls) == {"pkg:pypi/alpha@1.0", "pkg:pypi/beta@1.0"}
    assert purls["pkg:pypi/alpha@1.0"]["licenseDeclared"] == "MIT"
    identifiers = [package["SPDXID"] for package in document["packages"]]
    assert len(identifiers) == len(set(identifiers))
    named = {one["relatedSpdxElement"] for one in document["relationships"]}
    assert named | {"SPDXRef-DOCUMENT"} >= set(identifiers)


@pytest.mark.parametrize("known", [True, False])
async def test_bill_of_materials_of_a_service(
    registry: Any, quick: Callable[..., RegistryClient], push_base: Any, packages: Any, tmp_path: Path, known: bool
) -> None:
    """Its files on what the environment's bill lists, whether that was made here or is the registry's."""
    source = tmp_path / "service"
    (source / "sub dir").mkdir(parents=True)
    (source / "score.py").write_text("def init(): ...\n")
    (source / "sub dir" / "helper.py").write_text("")
    async with quick() as client:
        base = await push_base(client, f"{registry.host}/bill-{known}/base:1".lower())
        where, definition = place(registry.host, f"bill-{known}/env".lower()), environment(base.reference, "alpha")
        made = await ensure_image(client, definition, where, settings=BuildSettings(cache=tmp_path / "cache"))
        settings = BuildSettings(cache=tmp_path / ("cache" if known else "another"))
        application = Application("score.py", source)
        _, service = await ensure_service(client, definition, application, where, settings=settings)
        (listed,) = await client.referrers(service.image, SPDX_JSON)
        artifact = await client.manifest(service.image.at(listed.digest))
        document = json.loads(await client.read_blob(service.image, artifact.parts("layers")[0], 10**6))
    files = {
        one["fileName"]: {each["algorithm"]: each["checksumValue"] for each in one["checksums"]}
        for one in document["files"]
    }
    content = b"def init(): ...\n"
    assert files["./var/azureml-app/service/score.py"] == {
        "SHA1": hashlib.sha1(content).hexdigest(),
        "SHA256": hashlib.sha256(content).hexdigest(),
    }
    assert set(files) == {"./var/azureml-app/service/score.py", "./var/azureml-app/service/sub dir/helper.py"}
    names = {package["name"]: package for package in document["packages"]}
    assert {"alpha", "beta", "service", "application", f"environment {made.key}"} <= set(names)
    assert names["service"]["versionInfo"] == service.image.digest
    assert names[f"environment {made.key}"]["versionInfo"] == made.image.digest
    identifiers = [one["SPDXID"] for one in (*document["packages"], *document["files"])]
    assert len(identifiers) == len(set(identifiers))
    ends = {one[end] for one in document["relationships"] for end in ("spdxElementId", "relatedSpdxElement")}
    assert ends == {"SPDXRef-DOCUMENT", *identifiers}


async def test_base_of_another_registry_is_copied(
    registry: Any,
    registry_with: Any,
    quick: Callable[..., RegistryClient],
    push_base: Any,
    packages: Any,
    tmp_path: Path,
) -> None:
    other = registry_with({})
    async with quick() as client:
        base = await push_base(client, f"{other.host}/base:1")
        definition = environment(f"{other.host}/base:1", "beta")
        settings = BuildSettings(cache=tmp_path / "cache")
        made = await ensure_image(client, definition, place(registry.host, "copied/env"), settings=settings)
        assert await client.has_blob(made.image, base.layer.digest)


async def test_index_as_base(
    registry: Any, quick: Callable[..., RegistryClient], push_base: Any, packages: Any, tmp_path: Path
) -> None:
    async with quick() as client:
        base = await push_base(client, f"{registry.host}/multi/base:amd64")
        head = await client.head(base.reference)
        entries = ({**head.to_json(), "platform": {"os": "linux", "architecture": "amd64"}},)
        await client.push_manifest(ImageReference.parse(f"{registry.host}/multi/base:1"), index_manifest(entries))
        settings = BuildSettings(cache=tmp_path / "cache")
        definition = environment(f"{registry.host}/multi/base:1", "beta")
        made = await ensure_image(client, definition, place(registry.host, "multi/env"), settings=settings)
        assert made.built
        docker = {"baseImage": f"{registry.host}/multi/base:1", "platform": {"architecture": "arm64"}}
        arm = environment("", docker=docker)
        with pytest.raises(NotFound, match="not made for linux/arm64"):
            await ensure_image(client, arm, place(registry.host, "multi/env"), settings=settings)


async def test_shared_registries_in_order(
    registry: Any,
    registry_with: Any,
    quick: Callable[..., RegistryClient],
    push_base: Any,
    packages: Any,
    tmp_path: Path,
) -> None:
    shared = registry_with({})
    settings = BuildSettings(cache=tmp_path / "cache")
    async with quick(tries=1) as client:
        base = await push_base(client, f"{shared.host}/base:1")
        definition = environment(base.reference, "beta")
        there = await ensure_image(client, definition, place(shared.host, "env"), settings=settings)
        gone = place("127.0.0.1:1", "env")
        workspace = place(registry.host, "shared-test/env")
        looked = await find(client, definition, workspace, [gone, place(shared.host, "env")])
        assert looked.found == there.image
        assert any(note.startswith("shared registry 127.0.0.1:1: skipped") for note in looked.notes)
        made = await ensure_image(client, definition, workspace, [place(shared.host, "env")], settings)
        assert not made.built
        with pytest.raises(RegistryUnavailable):
            await find(client, definition, gone, [workspace])
        basic = RegistryPlace(shared.host, "env", "Basic")
        assert any("Basic tier" in note for note in (await find(client, definition, basic)).notes)


async def test_look_up_of_many_asks_once_for_each(
    proxy: Any, quick: Callable[..., RegistryClient], push_base: Any, packages: Any
) -> None:
    async with quick() as client:
        base = await push_base(client, f"{proxy.host}/many/base:1")
        tagged = str(base.reference).partition("@")[0]
        definitions = [environment(tagged, f"p{number % 10}==1.0", name=f"s{number}") for number in range(100)]
        proxy.seen.clear()
        looked = await find_all(client, definitions, place(proxy.host, "many/env"))
    assert len(looked) == 100
    assert len({one.key for one in looked}) == 10
    assert len(proxy.seen) == 11
    assert [one.key for one in looked[:10]] == [one.key for one in looked[10:20]]


async def test_unknown_digest_of_the_base_is_said(
    registry: Any, quick: Callable[..., RegistryClient], packages: Any
) -> None:
    async with quick(tries=1) as client:
        looked = await find(client, environment("127.0.0.1:1/none:1", "beta"), place(registry.host, "unknown/env"))
    assert any("counts by its tag" in note for note in looked.notes)


async def test_a_base_with_musl_gets_its_wheels(
    registry: Any,
    quick: Callable[..., RegistryClient],
    push_base: Any,
    packages: Any,
    make_wheel: Any,
    tmp_path: Path,
) -> None:
    for libc in ("manylinux_2_17", "musllinux_1_2"):
        tag = f"cp311-cp311-{libc}_x86_64"
        make_wheel(packages, "native", files={f"native/{libc}.txt": b""}, tag=tag)
    async with quick() as client:
        files = {"usr/local/bin/python3.11": b"", "lib/ld-musl-x86_64.so.1": b""}
        base = await push_base(client, f"{registry.host}/musl/base:1", files)
        settings = BuildSettings(cache=tmp_path / "cache")
        definition = environment(base.reference, "native")
        made = await ensure_image(client, definition, place(registry.host, "musl/env"), settings=settings)
        found = await files_of(client, made.image)
    assert f"{SITE}/native/musllinux_1_2.txt" in found
    assert f"{SITE}/native/manylinux_2_17.txt" not in found


async def test_user_managed_base_gets_no_environment(
    registry: Any, quick: Callable[..., RegistryClient], push_base: Any, tmp_path: Path
) -> None:
    async with quick() as client:
        base = await push_base(client, f"{registry.host}/managed/base:1")
        definition = environment(base.reference, python={"userManagedDependencies": True})
        settings = BuildSettings(cache=tmp_path / "cache")
        made = await ensure_image(client, definition, place(registry.host, "managed/env"), settings=settings)
        image = await fetch_image(client, made.image, Platform())
    assert len(image.layers) == 1
    assert "PATH=/usr/bin:/bin" in image.config["config"]["Env"]
    assert image.config["config"]["User"] == "10001:10001"


async def test_package_without_a_wheel(
    registry: Any, quick: Callable[..., RegistryClient], push_base: Any, packages: Any, tmp_path: Path
) -> None:
    async with quick() as client:
        base = await push_base(client, f"{registry.host}/missing/base:1")
        settings = BuildSettings(cache=tmp_path / "cache")
        lines: list[str] = []
        with pytest.raises(
            BuildFailed, match=r"(?s)end of its log:.*nowhere-to-be-found.*no index has it, or one wants a login"
        ):
            await ensure_image(
                client,
                environment(base.reference, "nowhere-to-be-found"),
                place(registry.host, "missing/env"),
                settings=settings,
                progress=lines.append,
            )
        assert lines, "the log went to the user as it came"


async def test_an_environment_without_uv(
    registry: Any,
    quick: Callable[..., RegistryClient],
    push_base: Any,
    packages: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A distribution that took the program out."""
    monkeypatch.setattr("uv.find_uv_bin", Mock(side_effect=FileNotFoundError))
    async with quick() as client:
        base = await push_base(client, f"{registry.host}/none/base:1")
        settings = BuildSettings(cache=tmp_path / "cache")
        with pytest.raises(BuildFailed, match=r"chosen by uv, whose program is missing: install it again"):
            await ensure_image(
                client, environment(base.reference, "beta"), place(registry.host, "none/env"), settings=settings
            )


async def test_base_without_python(
    registry: Any, quick: Callable[..., RegistryClient], push_base: Any, packages: Any, tmp_path: Path
) -> None:
    async with quick() as client:
        base = await push_base(client, f"{registry.host}/nopython/base:1")
        definition = environment(base.reference, "beta", python={"condaDependencies": {"dependencies": ["python=3.9"]}})
        settings = BuildSettings(cache=tmp_path / "cache")
        with pytest.raises(BuildFailed, match=r"has no Python 3\.9"):
            await ensure_image(client, definition, place(registry.host, "nopython/env"), settings=settings)


async def test_packages_for_another_interpreter(
    registry: Any,
    quick: Callable[..., RegistryClient],
    push_base: Any,
    packages: Any,
    make_wheel: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Markers are judged for the image's Python and machine, not for this one."""
    make_wheel(packages, "only-old")
    make_wheel(packages, "delta", requires=("only-old; python_version < '3.10'", "missing; python_version >= '3.10'"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    async with quick() as client:
        base = await push_base(client, f"{registry.host}/other/base:1", {"usr/bin/python3.9": b""})
        definition = environment(
            base.reference, "delta", python={"condaDependencies": {"dependencies": ["python=3.9"]}}
        )
        settings = BuildSettings(cache=tmp_path / "cache")
        made = await ensure_image(client, definition, place(registry.host, "other/env"), settings=settings)
        files = await files_of(client, made.image)
    assert f"{SITE.replace('3.11', '3.9')}/only_old/__init__.py" in files
