"""Models as images that pods mount, in a real registry: the files and nothing else, whatever becomes of the facts."""

import io
import tarfile
import uuid
from pathlib import Path
from typing import Any

import pytest

from aks_inference_provider.progress import EngineLog, Progress
from aks_inference_provider.resources.base import Operation, State, Urn
from aks_inference_provider.resources.stored_models import StoredModels
from aks_inference_runtime.api.content import file_digests
from aks_inference_runtime.api.models import ModelFacts
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry import RegistryClient
from aks_inference_runtime.models.stores import Upload, open_store
from aks_inference_runtime.models.stores.store import StoredFile

URN = Urn.parse("urn:pulumi:dev::shop::aks-inference:index:StoredModels::fraud-blue-models")
OPERATION = Operation(URN, Progress(EngineLog(""), URN.text))
FILES = {"model.bin": b"weights", "a b/ümlaut.txt": b"with a name"}


@pytest.fixture
async def store(oci_registry: Any, tmp_path: Path, own_cache: Path) -> str:
    address = f"oci://{oci_registry.host}/mounted-{uuid.uuid4().hex[:12]}"
    await put(address, tmp_path, ModelFacts())
    return address


async def put(address: str, folder: Path, facts: ModelFacts) -> None:
    paths = {}
    for number, (name, content) in enumerate(FILES.items()):
        paths[name] = folder / f"file-{number}"
        paths[name].write_bytes(content)
    digests = file_digests(paths)
    files = {name: StoredFile(path, digests[name], len(FILES[name])) for name, path in paths.items()}
    await open_store(address).put(Upload("net", files, facts))


def wanted(store: str) -> dict[str, Any]:
    return {"store": store, "models": ["net:1"], "user": "endpoint fraud, version blue", "mounted": True}


async def make(store: str) -> State:
    checked = await StoredModels().check(URN, {}, wanted(store))
    assert checked.failures == []
    made = await StoredModels().create(OPERATION, wanted(store))
    return State(made.id, wanted(store), {**wanted(store), **made.computed})


async def unpacked(image: str, architecture: str) -> dict[str, bytes]:
    """What a node of an architecture mounts."""
    reference = ImageReference.parse(image)
    async with RegistryClient() as client:
        index = await client.manifest(reference)
        assert index is not None
        (chosen,) = [
            one["digest"] for one in index.data["manifests"] if one["platform"]["architecture"] == architecture
        ]
        manifest = await client.manifest(reference.at(chosen))
        assert manifest is not None
        found = {}
        for layer in manifest.parts("layers"):
            content = await client.read_blob(reference, layer, 10**6)
            with tarfile.open(fileobj=io.BytesIO(content)) as tar:
                for member in tar:
                    file = tar.extractfile(member)
                    assert file is not None
                    assert member.mode == 0o644
                    found[member.name] = file.read()
        return found


async def test_the_image_holds_the_files(store: str) -> None:
    state = await make(store)
    (image,) = state.outputs["images"]
    assert image.startswith(f"{store.removeprefix('oci://')}/net:files-v1@sha256:")
    assert await unpacked(image, "amd64") == FILES
    assert await unpacked(image, "arm64") == FILES


async def test_facts_change_and_the_image_stays(store: str, tmp_path: Path) -> None:
    first = await make(store)
    await put(store, tmp_path, ModelFacts(tags={"stage": "production"}))
    (record,) = await open_store(store).versions("net")
    assert record.tags == {"stage": "production"}
    assert (await make(store)).outputs["images"] == first.outputs["images"]


async def test_a_deleted_version_leaves_no_image(store: str) -> None:
    state = await make(store)
    await StoredModels().delete(OPERATION, state)
    await open_store(store).delete("net", 1)
    async with RegistryClient() as client:
        assert await client.head(ImageReference.parse(state.outputs["images"][0])) is None


async def test_only_registries_can_be_mounted(tmp_path: Path) -> None:
    checked = await StoredModels().check(URN, {}, wanted(str(tmp_path)))
    assert [(one.path, "is no registry" in one.reason) for one in checked.failures] == [("mounted", True)]


async def test_mounting_is_another_choice(store: str) -> None:
    state = await make(store)
    fetched = {name: value for name, value in wanted(store).items() if name != "mounted"}
    diff = await StoredModels().diff(state, fetched)
    assert all(one.replaces for one in diff.properties.values())
    assert set(diff.properties) == {"mounted"}
    plain = await StoredModels().create(OPERATION, fetched)
    assert plain.computed["images"] == []
