"""Blob Storage behind a private certificate authority: refused without it, reached with it, here and in pods."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bench.servers import of_tests

from aks_inference_runtime.api.content import file_digests
from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.api.models import ModelFacts
from aks_inference_runtime.models.azure import CA_FILE, azure_errors, container_client
from aks_inference_runtime.models.errors import StoreUnavailable
from aks_inference_runtime.models.stores import Upload, open_store
from aks_inference_runtime.models.stores.store import StoredFile
from testbed.authority import Authority


class Private:
    """Azurite with a certificate of our own authority."""

    def __init__(self, plain: Any, authority: Path) -> None:
        self.authority = authority
        self.account: str = plain.account
        self.connection_string: str = plain.connection_string.replace("http", "https")


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Private]:
    folder = tmp_path_factory.mktemp("private-azurite")
    authority = Authority(folder)
    certificate, key = authority.issue("azurite", "azurite", hosts=["127.0.0.1"])
    models = of_tests("models")
    program = models.install_azurite()
    if isinstance(program, str):
        pytest.skip(program)
    port = models.free_ports(1)[0]
    secure = [*program, "--cert", str(certificate), "--key", str(key)]
    running = models.Azurite(models.start_azurite(secure, folder, port), port, folder, secure)
    try:
        yield Private(running, authority.path)
    finally:
        running.kill()


@pytest.fixture
def known(private: Private, monkeypatch: pytest.MonkeyPatch) -> Private:
    """Its connection string, and no authority yet."""
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", private.connection_string)
    for name in (CA_FILE, "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    return private


def test_an_authority_that_nobody_knows_is_refused(known: Private) -> None:
    client = container_client(known.account, "models", retries=0)
    with pytest.raises(StoreUnavailable, match=r"(?i)certificate"), azure_errors("az://models"):
        client.create_container()


@pytest.mark.parametrize("variable", [CA_FILE, "SSL_CERT_FILE"])
async def test_a_store_with_its_own_authority(
    variable: str, known: Private, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round trip, also by the init container of a pod, whose Secret has the authority as `ca.crt`."""
    monkeypatch.setenv(variable, str(known.authority))
    container = f"c{uuid.uuid4().hex[:12]}"
    container_client(known.account, container).create_container()
    store = open_store(f"az://{known.account}/{container}/models")
    file = tmp_path / "model.bin"
    file.write_bytes(os.urandom(100_000))
    stored = {"model.bin": StoredFile(file, file_digests({"m": file})["m"], 100_000)}
    record = await store.put(Upload("net", stored, ModelFacts()))
    await store.fetch(record, tmp_path / "back")
    assert (tmp_path / "back" / "model.bin").read_bytes() == file.read_bytes()

    access = tmp_path / "access"
    access.mkdir()
    (access / "connection-string").write_text(known.connection_string)
    (access / "ca.crt").write_bytes(known.authority.read_bytes())
    model = {"name": "net", "version": 1, "store": store.address, "digest": record.digest}
    settings = {"models": [model], "appRoot": str(tmp_path / "app"), "credentials": str(access)}
    told = (variable, "AZURE_STORAGE_CONNECTION_STRING")
    bare = {name: value for name, value in os.environ.items() if name not in told}
    done = subprocess.run(
        [sys.executable, "-m", "aks_inference_runtime.models.delivery", json.dumps(settings)],
        env=bare,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    delivered = tmp_path / "app" / "azureml-models" / "net" / "1" / "model.bin"
    assert delivered.read_bytes() == file.read_bytes()


def test_a_file_that_holds_no_authorities(known: Private, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    for path in (tmp_path / "empty.pem", tmp_path / "missing.pem"):
        monkeypatch.setenv(CA_FILE, str(path))
        with pytest.raises(InvalidInput, match="holds no certificates in PEM form"):
            container_client(known.account, "models")
