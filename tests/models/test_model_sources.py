"""Sources of models over their real protocols, and what a preview and an apply ask of them."""

import asyncio
import gzip
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import ClientAuthenticationError

from aks_inference_runtime.api.errors import InvalidInput, NotFound
from aks_inference_runtime.images import RegistryClient
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry.backoff import Backoff
from aks_inference_runtime.images.registry.manifest import (
    EMPTY_JSON,
    OCI_EMPTY,
    OCI_LAYER_GZIP,
    Descriptor,
    image_manifest,
    sha256,
)
from aks_inference_runtime.images.registry.upload import UploadSource
from aks_inference_runtime.models.azure import CONNECTION_STRING, azure_errors, container_client
from aks_inference_runtime.models.errors import SourceUnavailable, StoreUnavailable, UnsafeArchive
from aks_inference_runtime.models.sources import SourceSettings, fetch, is_remote, parse_address, revision
from aks_inference_runtime.models.sources.https import WebOptions


async def no_wait(_seconds: float) -> None:
    await asyncio.sleep(0)


QUICK = SourceSettings(web=WebOptions(backoff=Backoff(tries=4), sleep=no_wait))


@pytest.mark.parametrize(
    ("text", "scheme", "base"),
    [
        ("https://example.org/a/b/model.pkl?version=3", "https", "model.pkl"),
        ("az://account/container/models/bert", "az", "bert"),
        ("az://account.blob.core.usgovcloudapi.net/container/m.onnx", "az", "m.onnx"),
        ("oci://registry.example/models/bert:v3", "oci", "bert"),
        ("runs:/0123abc/artifacts/model", "runs", "model"),
        ("models:/churn/3", "models", "3"),
        ("models:/churn@champion", "models", "champion"),
    ],
)
def test_addresses(text: str, scheme: str, base: str) -> None:
    assert is_remote(text)
    address = parse_address(text)
    assert (address.scheme, address.base_name) == (scheme, base)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("http://example.org/model", "use https"),
        ("https://user:word@example.org/model", "user name or password"),
        ("https://example.org/model?sig=abc", "secret in its query"),
        ("https://example.org/", "names no file"),
        ("https://exa[mple.org/model", "not an address"),
        ("az://Account/container/m", "storage account"),
        ("az://account/c/m", "not a container"),
        ("az://account/container", "whole container"),
        ("oci://Registry/UPPER:x", "not the name of an image"),
        ("runs:/abc", "artifact of a run"),
        ("runs:/abc/../../x", "leaves"),
        ("models:/churn", "not a registered model"),
        ("models:/churn@", "not a registered model"),
    ],
)
def test_wrong_addresses(text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        parse_address(text)
    assert "word" not in str(caught.value).replace("password", "")
    assert "abc" not in str(caught.value) or "runs:" in text


@pytest.mark.parametrize("text", ["model.pkl", "./https", "C:/model", "models/churn", "/runs:x"])
def test_paths_of_this_machine(text: str) -> None:
    assert not is_remote(text)


# --- https


async def test_a_file_of_the_web_is_fetched_once(files: Any, own_cache: Path) -> None:
    files.content["/m/model.bin"] = os.urandom(700_000)
    url = f"{files.url}/m/model.bin"
    first = await fetch(url, QUICK)
    again = await fetch(url, QUICK)
    assert first.path == again.path
    assert first.path.name == "model.bin"
    assert first.path.read_bytes() == files.content["/m/model.bin"]
    assert [method for method, *_ in files.seen] == ["HEAD", "GET", "HEAD"]
    files.content["/m/model.bin"] = b"other"
    assert (await fetch(url, QUICK)).path.read_bytes() == b"other"


async def test_a_download_goes_on_where_it_broke_off(files: Any, own_cache: Path) -> None:
    content = files.content["/model.bin"] = os.urandom(1_000_000)
    breaks = iter(["", "cut:300000", "503", "cut:300000"])
    files.fault = lambda _request, _count: next(breaks, "")
    told: list[tuple[int, int | None]] = []
    got = await fetch(f"{files.url}/model.bin", QUICK, lambda done, total: told.append((done, total)))
    assert got.path.read_bytes() == content
    ranges = [wanted for method, _, wanted in files.seen if method == "GET"]
    assert ranges[0] is None
    assert all(wanted is not None for wanted in ranges[1:])
    assert files.sent < 500_000  # the last piece alone came whole
    assert told[-1] == (1_000_000, 1_000_000)


async def test_a_content_that_changes_meanwhile_is_not_mixed(files: Any, own_cache: Path) -> None:
    files.content["/model.bin"] = b"a" * 1_000_000
    url = f"{files.url}/model.bin"

    def fault(_request: object, count: int) -> str:
        if count == 2:
            return "cut:300000"
        files.content["/model.bin"] = b"b" * 900_000
        return ""

    known = await revision(url, QUICK)
    files.fault = fault
    got = await fetch(url, QUICK, known=known)
    assert got.path.read_bytes() == b"b" * 900_000


@pytest.mark.parametrize(("status", "said"), [("404", "no such file"), ("401", "netrc"), ("500", "gave up after 4")])
async def test_a_web_server_that_refuses(files: Any, own_cache: Path, status: str, said: str) -> None:
    files.fault = lambda _request, _count: status
    with pytest.raises(SourceUnavailable, match=said):
        await fetch(f"{files.url}/model.bin", QUICK)


async def test_a_server_without_revisions_is_asked_each_time(files: Any, own_cache: Path) -> None:
    files.etags = False
    files.content["/model.bin"] = b"1"
    url = f"{files.url}/model.bin"
    assert (await revision(url, QUICK)).text is None
    assert (await fetch(url, QUICK)).path.read_bytes() == b"1"
    files.content["/model.bin"] = b"2"
    assert (await fetch(url, QUICK)).path.read_bytes() == b"2"


async def test_an_archive_of_the_web(files: Any, own_cache: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as made:
        made.writestr("a/weights", b"w")
    files.content["/net.zip"] = packed.getvalue()
    url = f"{files.url}/net.zip"
    as_it_is = await fetch(url, QUICK)
    assert as_it_is.path.name == "net.zip"
    unpacked = await fetch(url, SourceSettings(unpack=True, web=QUICK.web))
    assert (unpacked.path.name, (unpacked.path / "a" / "weights").read_bytes()) == ("net", b"w")


async def test_what_is_to_be_unpacked_and_cannot_be(files: Any, own_cache: Path) -> None:
    """An error names the archive as its source does."""
    settings = SourceSettings(unpack=True, web=QUICK.web)
    files.content["/page.zip"] = b"<html>not what was meant</html>"
    with pytest.raises(InvalidInput, match=r"unpack: page\.zip is neither a zip nor a tar; leave it out"):
        await fetch(f"{files.url}/page.zip", settings)
    files.content["/cut.tar.gz"] = gzip.compress(os.urandom(9_000))[:40]
    with pytest.raises(UnsafeArchive, match=r"cut\.tar\.gz: is damaged"):
        await fetch(f"{files.url}/cut.tar.gz", settings)


# --- Blob Storage


async def test_blobs(azurite: Any, own_cache: Path) -> None:
    container = azurite.container("sources")
    big = os.urandom(9 * 1024 * 1024)
    container.upload_blob("net/weights é.bin", big)
    container.upload_blob("net/conf/x.json", b"{}")
    container.upload_blob("network", b"another")
    address = f"az://{azurite.account}/sources/net"
    got = await fetch(address)
    assert sorted(p.relative_to(got.path).as_posix() for p in got.path.rglob("*") if p.is_file()) == [
        "conf/x.json",
        "weights é.bin",
    ]
    assert (got.path / "weights é.bin").read_bytes() == big
    single = await fetch(f"az://{azurite.account}/sources/network")
    assert single.path.read_bytes() == b"another"
    container.upload_blob("net/conf/x.json", b"[]", overwrite=True)
    changed = await fetch(address)
    assert (changed.path / "conf" / "x.json").read_bytes() == b"[]"
    assert changed.revision.text != got.revision.text


async def test_no_such_blob(azurite: Any, own_cache: Path) -> None:
    azurite.container("empty")
    with pytest.raises(InvalidInput, match="holds no blob"):
        await revision(f"az://{azurite.account}/empty/net")
    with pytest.raises(StoreUnavailable, match="is not there"):
        await revision(f"az://{azurite.account}/nowhere/net")


async def test_connection_strings_that_do_not_help(azurite: Any, own_cache: Path, monkeypatch: Any) -> None:
    """Without a word on them another identity would be tried, for a minute, and its failure be told."""
    address = f"az://{azurite.account}/sources/net"
    monkeypatch.setenv(CONNECTION_STRING, "nonsense")
    with pytest.raises(StoreUnavailable, match=f"^{CONNECTION_STRING} holds no connection string; copy it"):
        await revision(address)
    key = re.search(r"AccountKey=([^;]*)", azurite.connection_string)
    assert key is not None
    monkeypatch.setenv(CONNECTION_STRING, azurite.connection_string.replace(key[1], key[1].swapcase()))
    with pytest.raises(StoreUnavailable, match=f"answered 403 .*; look at {CONNECTION_STRING}, at the roles"):
        await revision(address)
    with (
        pytest.raises(StoreUnavailable, match=f"that of {CONNECTION_STRING} is of the account 'devstoreaccount1'"),
        azure_errors("az://other/c/m"),
    ):
        raise ClientAuthenticationError("no token")
    shared = "BlobEndpoint=https://other.blob.core.windows.net;SharedAccessSignature=sv=1&sig=word"
    monkeypatch.setenv(CONNECTION_STRING, shared)
    assert "sig=word" in container_client("other", "con").url


# --- OCI


async def push(host: str, name: str, layers: list[tuple[str, bytes, dict[str, str]]]) -> str:
    reference = ImageReference.parse(f"{host}/{name}")
    async with RegistryClient() as client:
        described = []
        for kind, content, annotations in layers:
            layer = Descriptor(kind, sha256(content), len(content), annotations)
            await client.push_blob(reference, layer, UploadSource.of(content))
            described.append(layer)
        config = Descriptor(OCI_EMPTY, sha256(EMPTY_JSON), 2)
        await client.push_blob(reference, config, UploadSource.of(EMPTY_JSON))
        await client.push_manifest(reference, image_manifest(config, tuple(described)))
    return f"oci://{reference}"


def folder_layer(*names: str) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
    return made.getvalue()


TITLE, UNPACK = "org.opencontainers.image.title", "io.deis.oras.content.unpack"


async def test_an_artifact_as_oras_pushes_it(oci_registry: Any, own_cache: Path) -> None:
    packed = folder_layer("conf/a", "conf/b/c")
    layers = [
        ("application/octet-stream", b"weights", {TITLE: "w.bin"}),
        (OCI_LAYER_GZIP, packed, {TITLE: "conf", UNPACK: "true"}),
    ]
    address = await push(oci_registry.host, "sources/net:1", layers)
    got = await fetch(address)
    found = {p.relative_to(got.path).as_posix() for p in got.path.rglob("*") if p.is_file()}
    assert (got.path.name, found) == ("net", {"w.bin", "conf/a", "conf/b/c"})


@pytest.mark.parametrize(
    ("layers", "kind", "said"),
    [
        ([("application/octet-stream", b"x", {TITLE: "../../evil"})], InvalidInput, "leads outside"),
        ([(OCI_LAYER_GZIP, folder_layer("../evil"), {TITLE: "d", UNPACK: "true"})], UnsafeArchive, "leads outside"),
        ([("application/octet-stream", b"x", {})], InvalidInput, "no layer with the annotation"),
    ],
)
async def test_a_bad_artifact(
    oci_registry: Any, own_cache: Path, layers: Any, kind: type[Exception], said: str, tmp_path: Path
) -> None:
    address = await push(oci_registry.host, f"sources/bad{abs(hash(said))}:1", layers)
    with pytest.raises(kind, match=said):
        await fetch(address)
    assert not list(tmp_path.rglob("evil"))


async def test_no_such_artifact(oci_registry: Any, own_cache: Path) -> None:
    with pytest.raises(NotFound, match="is not there"):
        await revision(f"oci://{oci_registry.host}/sources/none:1")


# --- MLflow

TRAIN = """
import json, mlflow, pathlib, sys, tempfile, zipfile
mlflow.set_experiment("churn")
with mlflow.start_run() as run:
    folder = pathlib.Path(tempfile.mkdtemp()) / "model"
    (folder / "inner").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(b"w" * 1000)
    (folder / "inner" / "conf.json").write_text("{}")
    mlflow.log_artifacts(str(folder), "out/model")
    with zipfile.ZipFile(folder / "net.zip", "w") as packed:
        packed.writestr("a/weights", "w")
    mlflow.log_artifact(str(folder / "net.zip"), "packed")
client = mlflow.MlflowClient()
client.create_registered_model("churn-model")
version = client.create_model_version("churn-model", f"runs:/{run.info.run_id}/out/model", run.info.run_id)
client.set_registered_model_alias("churn-model", "champion", version.version)
print(json.dumps({"run": run.info.run_id}))
"""


@pytest.fixture(scope="session")
def trained(mlflow: Any) -> str:
    return str(json.loads(mlflow.run(TRAIN))["run"])


async def test_a_run_of_mlflow(mlflow: Any, trained: str, own_cache: Path) -> None:
    settings = SourceSettings(tracking_uri=mlflow.uri, experiment="churn")
    got = await fetch(f"runs:/{trained}/out/model", settings)
    assert got.path.name == "model"
    assert (got.path / "inner" / "conf.json").read_text() == "{}"
    assert (got.revision.run_id, got.revision.experiment, got.revision.size) == (trained, "churn", 1002)
    assert got.revision.text is not None


async def test_an_archive_of_a_run_of_mlflow(mlflow: Any, trained: str, own_cache: Path) -> None:
    got = await fetch(f"runs:/{trained}/packed/net.zip", SourceSettings(tracking_uri=mlflow.uri, unpack=True))
    assert (got.path.name, (got.path / "a" / "weights").read_bytes()) == ("net", b"w")


@pytest.mark.long
async def test_a_file_of_a_run_of_mlflow(mlflow: Any, trained: str, own_cache: Path) -> None:
    settings = SourceSettings(tracking_uri=mlflow.uri)
    single = await fetch(f"runs:/{trained}/out/model/weights.bin", settings)
    assert single.path.read_bytes() == b"w" * 1000
    assert (await revision(f"runs:/{trained}/out/model/weights.bin", settings)).text == single.revision.text


# The client takes two seconds to import: what is not the usual way runs with the long tests.
@pytest.mark.parametrize(
    "which", ["@champion", pytest.param("1", marks=pytest.mark.long), pytest.param("latest", marks=pytest.mark.long)]
)
async def test_a_registered_model_of_mlflow(mlflow: Any, trained: str, own_cache: Path, which: str) -> None:
    text = f"models:/churn-model{which if which.startswith('@') else f'/{which}'}"
    got = await fetch(text, SourceSettings(tracking_uri=mlflow.uri))
    found = {p.relative_to(got.path).as_posix() for p in got.path.rglob("*") if p.is_file()}
    assert (got.path.name, found) == ("churn-model", {"weights.bin", "inner/conf.json"})
    assert got.revision.run_id == trained


@pytest.mark.parametrize(
    ("text", "experiment", "kind", "said"),
    [
        ("runs:/RUN/nothing", None, NotFound, r"has no 'nothing' \(there: out, packed\)"),
        *(
            pytest.param(*case, marks=pytest.mark.long)
            for case in (
                ("runs:/RUN/out/model", "other", InvalidInput, "belongs to the experiment 'churn'"),
                ("runs:/0123456789abcdef0123456789abcdef/x", None, NotFound, "not found"),
                ("models:/nobody/1", None, NotFound, "nobody"),
                ("models:/nobody/latest", None, NotFound, "nobody"),
            )
        ),
    ],
)
async def test_what_mlflow_does_not_have(
    mlflow: Any, trained: str, own_cache: Path, text: str, experiment: str | None, kind: type[Exception], said: str
) -> None:
    settings = SourceSettings(tracking_uri=mlflow.uri, experiment=experiment)
    with pytest.raises(kind, match=said):
        await revision(text.replace("RUN", trained), settings)


async def test_mlflow_without_a_server(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(InvalidInput, match="give tracking_uri"):
        await revision("runs:/abc/model")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(SourceUnavailable, match=r"127\.0\.0\.1"):
        await revision("runs:/abc/model", SourceSettings(tracking_uri="http://127.0.0.1:1"))


# --- the cache


async def test_two_processes_fetch_once(files: Any, own_cache: Path, tmp_path: Path) -> None:
    files.content["/model.bin"] = os.urandom(400_000)
    code = (
        "import asyncio, sys; from aks_inference_runtime.models.sources import fetch; "
        "print(asyncio.run(fetch(sys.argv[1])).path)"
    )
    command = [sys.executable, "-c", code, f"{files.url}/model.bin"]
    both = [
        await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, env={**os.environ}) for _ in range(2)
    ]
    said = {(await one.communicate())[0] for one in both}
    assert len(said) == 1
    assert [method for method, *_ in files.seen].count("GET") == 1
