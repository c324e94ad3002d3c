"""Stores and what lies between: a registry that fails, breaks off and lies; large files full of holes."""

import asyncio
import os
import resource
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from bench.servers import of_tests

from aks_inference_runtime.api.content import file_digests, model_files
from aks_inference_runtime.api.errors import AksInferenceError
from aks_inference_runtime.api.models import ModelFacts
from aks_inference_runtime.images.registry.backoff import Backoff
from aks_inference_runtime.images.registry.transport import TransportOptions
from aks_inference_runtime.models.stores import Upload, open_store
from aks_inference_runtime.models.stores.store import StoredFile

pytestmark = pytest.mark.long
MB = 1024 * 1024
SPARSE = 5 * 1024 * MB
QUICK = TransportOptions(backoff=Backoff(first_s=0.01, longest_s=0.05), chunk_bytes=MB)


def upload(source: Path) -> Upload:
    files = model_files(source)
    digests = file_digests(files)
    return Upload("net", {n: StoredFile(p, digests[n], p.stat().st_size) for n, p in files.items()}, ModelFacts())


@pytest.fixture
async def proxy(oci_registry: Any) -> AsyncIterator[Any]:
    """Before the registry."""
    images = of_tests("images")
    made = images.Proxy(oci_registry.host)
    async with images.serve(made.handle) as made.host:
        yield made


SENDING = {
    "500": ("POST", "500"),
    "429": ("POST", "429"),
    "503 in a chunk": ("PATCH", "503"),
    "reset in a chunk": ("PATCH", "cut-request:300000"),
    "answer of a chunk lost": ("PATCH", "lose-answer"),
    "answer of closing lost": ("PUT", "lose-answer"),
}
FETCHING = {"503": "503", "reset in the middle of a layer": "cut-answer:1000000", "reset at once": "cut-answer:0"}


def twice(method: str, action: str) -> Any:
    """The first two requests of a kind meet it."""
    seen = Counter[str]()

    def fault(request: web.Request) -> object:
        if request.method != method or "/blobs/" not in request.path:
            return None
        seen[method] += 1
        if seen[method] > 2:
            return None
        return web.Response(status=int(action), headers={"Retry-After": "0"}) if action.isdigit() else action

    return fault


async def test_a_registry_that_fails_and_breaks_off(proxy: Any, tmp_path: Path, own_cache: Path) -> None:
    source = tmp_path / "net"
    source.mkdir()
    for number, (name, (method, action)) in enumerate(SENDING.items(), 1):
        (source / "a b ü 漢").write_bytes(os.urandom(2 * MB + 17))
        store = open_store(f"oci://{proxy.host}/faults-{uuid.uuid4().hex[:8]}", options=QUICK)
        proxy.fault = twice(method, action)
        record = await store.put(upload(source))
        for broken, how in FETCHING.items():
            proxy.fault = twice("GET", how)
            out = tmp_path / f"out-{number}-{how}"
            await store.fetch(record, out)
            assert file_digests(model_files(out / "net")) == file_digests(model_files(source)), (name, broken)


async def test_wrong_bytes_of_a_registry_are_not_a_model(proxy: Any, tmp_path: Path, own_cache: Path) -> None:
    source = tmp_path / "net"
    source.mkdir()
    (source / "weights").write_bytes(os.urandom(MB))
    store = open_store(f"oci://{proxy.host}/wrong-{uuid.uuid4().hex[:8]}", options=QUICK)
    record = await store.put(upload(source))
    proxy.fault = lambda request: "corrupt" if request.method == "GET" and "/blobs/" in request.path else None
    with pytest.raises(AksInferenceError) as caught:
        await store.fetch(record, tmp_path / "out")
    assert "sha256:" in str(caught.value)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", ["blob", "oci"])
async def test_a_file_full_of_holes(kind: str, tmp_path: Path, own_cache: Path, request: pytest.FixtureRequest) -> None:
    """Sent in pieces, so the memory stays small; what is fetched has its holes again."""
    source = tmp_path / "net"
    source.mkdir()
    with (source / "sparse").open("wb") as file:
        file.write(b"begin")
        file.seek(SPARSE // 2)
        file.write(b"middle")
        file.truncate(SPARSE)
    if kind == "blob":
        azurite = request.getfixturevalue("azurite")
        azurite.container("large")
        address = f"az://{azurite.account}/large/{uuid.uuid4().hex[:8]}"
    else:
        address = f"oci://{request.getfixturevalue('oci_registry').host}/large-{uuid.uuid4().hex[:8]}"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    store, wanted = open_store(address), await asyncio.to_thread(upload, source)
    sent, got_by = [0], [0]
    record = await store.put(wanted, lambda done, _total: sent.append(done))
    await store.fetch(record, tmp_path / "out", lambda done, _total: got_by.append(done))
    for told in (sent, got_by):
        assert told == sorted(told)
        assert (told[0], told[-1]) == (0, SPARSE)
        assert max(after - before for before, after in pairwise(told)) < SPARSE // 4, "told on the way"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    got = tmp_path / "out" / "net" / "sparse"
    assert (record.size_bytes, got.stat().st_size) == (SPARSE, SPARSE)
    assert await asyncio.to_thread(file_digests, {"net/sparse": got}) == record.files
    assert got.stat().st_blocks * 512 < 64 * MB, "its holes are there"
    assert grown * 1024 < 256 * MB, "never the whole file in memory"
    await store.delete("net", 1)
