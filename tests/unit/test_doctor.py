"""`aks-inference doctor`: each stage that can fail, against real sockets, and what is then said."""

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from aks_inference_provider.cli.doctor import run
from aks_inference_runtime import doctor
from aks_inference_runtime.doctor import Result, Stage, Target, check, check_all, shown

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def against(handler: Handler, protocol: str = "HTTP", tls: ssl.SSLContext | None = None) -> Result:
    server = await asyncio.start_server(handler, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    try:
        return await check(Target("localhost", port, protocol, ("create or attach",), "nodes do not join"), 1.0)
    finally:
        server.close()


def says(answer: bytes) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        writer.close()

    return handle


async def test_an_answer_of_any_status_is_reached() -> None:
    result = await against(says(b"HTTP/1.1 403 Forbidden\r\n\r\n"))
    assert (result.ok, result.failed_at) == (True, None)
    assert "HTTP 403" in result.line()


async def test_a_port_that_only_takes_connections() -> None:
    assert (await against(says(b""), "TCP")).ok
    assert (await check(Target("localhost", 53, "UDP"))).ok


async def test_no_answer() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    result = await against(silent)
    assert (result.failed_at, result.detail) == (Stage.HTTP, "no answer in time")
    closed = await against(says(b""))
    assert (closed.failed_at, closed.detail) == (Stage.HTTP, "the connection was closed without an answer")
    assert (await against(says(b"SSH-2.0\r\n"))).detail == "no HTTP answer"


async def test_a_certificate_of_somebody_else(tmp_path: Path) -> None:
    result = await against(says(b"HTTP/1.1 200 OK\r\n\r\n"), "HTTPS", certificate(tmp_path))
    assert (result.ok, result.failed_at) == (False, Stage.TLS)
    assert "certificate" in result.detail
    assert result.line().startswith("FAIL")
    assert "breaks: create or attach (nodes do not join)" in result.line()


async def test_a_trusted_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = certificate(tmp_path)
    trusting = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    monkeypatch.setattr(doctor.ssl, "create_default_context", lambda: trusting)
    assert (await against(says(b"HTTP/1.1 200 OK\r\n\r\n"), "HTTPS", context)).ok


async def test_no_connection_and_no_name() -> None:
    server = await asyncio.start_server(says(b""), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    refused = await check(Target("127.0.0.1", port, "TCP"))
    assert (refused.failed_at, refused.ok) == (Stage.CONNECTION, False)
    assert f"let TCP {port} out" in refused.mend
    nameless = await check(Target("no-such-host.invalid", 443, "HTTPS"))
    assert nameless.failed_at is Stage.NAME


async def test_patterns_are_left_out_and_recommended_ones_do_not_fail(capsys: pytest.CaptureFixture[str]) -> None:
    targets = [
        Target("*.data.mcr.microsoft.com", 443, "HTTPS"),
        Target("<registry>.azurecr.io", 443, "HTTPS"),
        Target("no-such-host.invalid", 80, "HTTP", required=False),
    ]
    results = await check_all(targets)
    assert [result.target.host for result in results] == ["no-such-host.invalid"]
    assert shown(results, as_json=False) == 0
    assert capsys.readouterr().out.startswith("warn  no-such-host.invalid:80")
    assert shown([Result(Target("a", 1, "TCP"), False, Stage.NAME)], as_json=True) == 1
    assert json.loads(capsys.readouterr().out)[0]["failed_at"] == "name"


def test_the_command_lists_without_asking(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("component: AksInferenceCluster\nargs: {location: westeurope}\n")
    assert run([str(file), "--list", "--json", "--api-server", "a.hcp.westeurope.azmk8s.io"]) == 0
    hosts: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert {"mcr.microsoft.com", "a.hcp.westeurope.azmk8s.io"} <= {host["host"] for host in hosts}
    assert run([str(file), "--list", "--phase", "router start"]) == 0
    assert "from nodes" in capsys.readouterr().out
    file.write_text("component: AksInferenceCluster\nargs: {agent_count: 1}\n")
    assert run([str(file)]) == 2
    assert "aks-inference check" in capsys.readouterr().err


def certificate(folder: Path) -> ssl.SSLContext:
    """Of localhost, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


def test_jobs_for_the_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("component: AksInferenceCluster\nargs: {location: westeurope}\n")
    assert run([str(file), "--job", "--image", "registry.example/runtime:1"]) == 0
    items = json.loads(capsys.readouterr().out)["items"]
    assert [(item["kind"], item["metadata"]["name"].rsplit("-", 1)[1]) for item in items] == [
        ("ConfigMap", "nodes"), ("Job", "nodes"), ("ConfigMap", "pods"), ("Job", "pods"),
    ]  # fmt: skip
    assert [item["spec"]["template"]["spec"]["hostNetwork"] for item in items[1::2]] == [True, False]
    targets = json.loads(items[0]["data"]["targets.json"])
    assert "mcr.microsoft.com" in {target["host"] for target in targets}
    with pytest.raises(SystemExit):
        run([str(file), "--job"])


CLUSTER = (
    "component: AksInferenceCluster\nname: prod\nargs: {location: westeurope, runtime: {image: 'own.example/r:1'}}\n"
)
SERVICE = """---
component: ModelWebService
name: %s
args:
  target: prod
  namespace: %s
  image: images.example:5000/scoring:1
  inference_config: {entry_script: %s}
"""


def test_services_are_asked_for_where_they_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "score.py"
    script.write_text("def init(): pass\ndef run(data): return data\n")
    file = tmp_path / "all.yaml"
    file.write_text(CLUSTER + SERVICE % ("one", "team-a", script) + SERVICE % ("two", "team-b", script))
    assert run([str(file), "--job", "--image", "r:1", "--namespace", "runtime", "--node-namespace", "nodes"]) == 0
    items = json.loads(capsys.readouterr().out)["items"]
    placed = {(one["metadata"]["name"].rsplit("-", 1)[1], one["metadata"]["namespace"]): one for one in items[::2]}
    assert set(placed) == {("nodes", "nodes"), ("pods", "runtime"), ("services", "team-a"), ("services", "team-b")}
    hosts = {
        place: {target["host"] for target in json.loads(one["data"]["targets.json"])} for place, one in placed.items()
    }
    # Nodes pull images, also those of the services; who fetches models is a pod of a service.
    assert {"own.example", "images.example"} <= hosts["nodes", "nodes"]
    assert hosts["services", "team-a"] == hosts["services", "team-b"]
    assert any("storage account" in host for host in hosts["services", "team-a"])
    assert not any("storage account" in host for host in hosts["pods", "runtime"])


def test_an_attached_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its region is in no declaration; services name it as the declaration does."""
    script = tmp_path / "score.py"
    script.write_text("def init(): pass\ndef run(data): return data\n")
    file = tmp_path / "attached.yaml"
    attached = CLUSTER.replace("location: westeurope", "resourceGroup: rg, clusterName: shared")
    file.write_text(attached + SERVICE % ("one", "team-a", script))
    assert run([str(file), "--list"]) == 2
    assert "give --location REGION" in capsys.readouterr().err
    assert run([str(file), "--list", "--json", "--location", "northeurope"]) == 0
    hosts = {host["host"] for host in json.loads(capsys.readouterr().out)}
    assert {"mcr.microsoft.com", "own.example", "images.example"} <= hosts
    assert run([str(file), "--job", "--image", "r:1", "--location", "northeurope"]) == 0
    places = {one["metadata"]["namespace"] for one in json.loads(capsys.readouterr().out)["items"]}
    assert "team-a" in places


def test_what_a_job_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    listed = tmp_path / "targets.json"
    listed.write_text(json.dumps([{"host": "no-such-host.invalid", "port": 443, "protocol": "HTTPS", "phases": ["x"]}]))
    monkeypatch.setattr("sys.argv", ["doctor", "--file", str(listed)])
    with pytest.raises(SystemExit) as ended:
        doctor.main()
    assert ended.value.code == 1
    assert "breaks: x" in capsys.readouterr().out
