"""StoredModels: what a version uses is looked up, and protected until the next choice has been made."""

import asyncio
import threading
import uuid
from pathlib import Path
from typing import Any

import pytest

from aks_inference_provider.progress import EngineLog, Progress
from aks_inference_provider.resources import stored_models
from aks_inference_provider.resources.base import Operation, State, Urn
from aks_inference_provider.resources.stored_models import StoredModels, mark
from aks_inference_provider.wire import UNKNOWN
from aks_inference_runtime.api.content import file_digests
from aks_inference_runtime.api.errors import Conflict, NotFound
from aks_inference_runtime.api.models import ModelFacts
from aks_inference_runtime.models.stores import Upload, open_store
from aks_inference_runtime.models.stores.folder import FolderStore
from aks_inference_runtime.models.stores.store import StoredFile

URN = Urn.parse("urn:pulumi:dev::shop::aks-inference:index:StoredModels::fraud-blue-models")
OPERATION = Operation(URN, Progress(EngineLog(""), URN.text))
USER = "endpoint fraud, version blue"


@pytest.fixture(params=["folder", "blob", "oci"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, own_cache: Path) -> str:
    """Has net:1 and net:2."""
    unique = uuid.uuid4().hex[:12]
    if request.param == "folder":
        address = str(tmp_path / "store")
    elif request.param == "blob":
        azurite = request.getfixturevalue("azurite")
        azurite.container("stored")
        address = f"az://{azurite.account}/stored/{unique}"
    else:
        address = f"oci://{request.getfixturevalue('oci_registry').host}/stored-{unique}"
    file = tmp_path / "m"
    for content in ("one", "two"):
        file.write_text(content)
        stored = {"m": StoredFile(file, file_digests({"m": file})["m"], 3)}
        await open_store(address).put(Upload("net", stored, ModelFacts()))
    return address


def wanted(store: str, *models: str) -> dict[str, Any]:
    return {"store": store, "models": list(models), "user": USER}


async def make(inputs: dict[str, Any]) -> State:
    resource = StoredModels()
    checked = await resource.check(URN, {}, inputs)
    assert checked.failures == []
    made = await resource.create(OPERATION, inputs)
    return State(made.id, inputs, {**inputs, **made.computed})


async def test_protected_while_it_is_used_also_while_it_is_exchanged(store: str) -> None:
    resource, kept = StoredModels(), open_store(store)
    first = await make(wanted(store, "net:1"))
    (record, _) = await kept.versions("net")
    assert first.outputs["digests"] == [record.digest]
    with pytest.raises(Conflict, match=r"net:1 is used by endpoint fraud, version blue of shop/dev \("):
        await kept.delete("net", 1)
    later = wanted(store, "net:1", "net:2")
    diff = await resource.diff(first, later)
    assert diff.properties
    assert all(each.replaces for each in diff.properties.values())
    assert not diff.delete_before_replace, "what replaces it protects first"
    second = await make(later)
    await resource.delete(OPERATION, first)
    assert len(await kept.users("net", 1)) == 1, "the first one's end does not end the second one's protection"
    await resource.delete(OPERATION, second)
    await resource.delete(OPERATION, second)
    assert await kept.users("net", 1) == []
    await kept.delete("net", 1)


async def test_the_same_again_is_the_same(store: str) -> None:
    first = await make(wanted(store, "net:2"))
    assert (await make(wanted(store, "net:2"))).outputs == first.outputs
    assert len(await open_store(store).users("net", 2)) == 1
    assert not (await StoredModels().diff(first, wanted(store, "net:2"))).properties


async def test_what_is_not_there_is_refused_before_anything_is_done(store: str) -> None:
    checked = await StoredModels().check(URN, {}, wanted(store, "net:2", "net:9", "nett:1", UNKNOWN))
    assert [failure.path for failure in checked.failures] == ["models[1]", "models[2]"]
    assert "no model net:9 in" in checked.failures[0].reason
    assert "versions of net: 1, 2" in checked.failures[0].reason
    with pytest.raises(NotFound):
        await StoredModels().create(OPERATION, wanted(store, "net:2", "net:9"))
    assert await open_store(store).users("net", 2) == [], "nothing stays protected"


async def test_a_protection_under_way_is_waited_for_and_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One model is missing while another is about to be marked by a thread, which nothing stops."""
    address, file = str(tmp_path / "store"), tmp_path / "m"
    file.write_text("one")
    await open_store(address).put(
        Upload("net", {"m": StoredFile(file, file_digests({"m": file})["m"], 3)}, ModelFacts())
    )
    marking, released, marked = threading.Event(), threading.Event(), threading.Event()

    def late(self: FolderStore, *of: Any) -> None:
        marking.set()
        # Let go of before, it would stay.
        released.wait(1)
        mark_file(self, *of)
        marked.set()

    async def missing(store: Any, name: str, version: int) -> Any:
        if version == 9:
            await asyncio.to_thread(marking.wait)
        return await found(store, name, version)

    async def release(self: FolderStore, *of: Any) -> None:
        await let_go(self, *of)
        released.set()

    found, let_go, mark_file = stored_models.find_version, FolderStore.release, FolderStore._mark
    monkeypatch.setattr(FolderStore, "_mark", late)
    monkeypatch.setattr(FolderStore, "release", release)
    monkeypatch.setattr(stored_models, "find_version", missing)
    with pytest.raises(NotFound):
        await StoredModels().create(OPERATION, wanted(address, "net:1", "net:9"))
    assert await asyncio.to_thread(marked.wait, 30)
    assert await open_store(address).users("net", 1) == []


async def test_gone_when_a_model_is(store: str) -> None:
    state = await make(wanted(store, "net:1"))
    assert await StoredModels().read(OPERATION, state) is state
    kept = open_store(store)
    await kept.release("net", 1, state.id)
    await kept.delete("net", 1)
    assert await StoredModels().read(OPERATION, state) is None


@pytest.mark.parametrize(
    ("inputs", "path"),
    [
        ({"store": "s3://x", "models": ["net:1"], "user": "u"}, "store"),
        ({"store": "/s", "models": ["net"], "user": "u"}, "models[0]"),
        ({"store": "/s", "models": ["net:0"], "user": "u"}, "models[0]"),
        ({"models": [], "user": "u"}, "store"),
        ({"store": "oci://127.0.0.1:9", "models": ["net:1"], "user": "u"}, None),
    ],
)
async def test_what_is_refused(
    inputs: dict[str, Any], path: str | None, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that does not answer refuses nothing: it may when it is applied."""
    monkeypatch.setattr("aks_inference_provider.resources.stored_models.LOOK_S", 0.5)
    checked = await StoredModels().check(URN, {}, inputs)
    assert [failure.path for failure in checked.failures] == ([path] if path else [])


async def test_a_preview_knows_what_stays() -> None:
    inputs = wanted("/s", "net:1")
    assert StoredModels().preview(inputs, None) == {"digests": UNKNOWN, "images": UNKNOWN, "mark": UNKNOWN}
    state = State("m", inputs, {**inputs, "digests": ["d"], "mark": "m"})
    assert StoredModels().preview(inputs, state) == {"digests": ["d"], "images": [], "mark": "m"}
    assert (await StoredModels().check(URN, inputs, inputs)).failures == [], "not looked up again"


def test_another_choice_has_another_mark() -> None:
    marks = {mark(URN, wanted("/s", *models)) for models in (("a:1",), ("a:2",), ("a:1", "a:2"), ("a:2", "a:1"))}
    assert len(marks) == 3
    assert mark(URN._replace(text="other"), wanted("/s", "a:1")) not in marks


async def test_what_is_wrong_often_is_told_once(store: str) -> None:
    checked = await StoredModels().check(URN, {}, wanted(store, "none", *["net:9"] * 1_001, "none"))
    assert [(one.path, one.reason) for one in checked.failures] == [
        ("models[0]", "'none' is no model id `name:version` (2 times)")
    ]
    checked = await StoredModels().check(URN, {}, wanted(store, "net:1", *["net:9"] * 1_001))
    (failure,) = checked.failures
    assert failure.path == "models[1]"
    assert failure.reason.endswith(" (1,001 times)")
