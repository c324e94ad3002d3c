"""`aks-inference doctor --job` in a cluster: its Jobs run on a real node, in namespaces as the runtime has them."""

import json
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

from aks_inference_provider.cli.doctor import run
from aks_inference_runtime.doctor import Target
from aks_inference_runtime.doctor_job import Place, jobs
from testbed import node as bed_node

pytestmark = pytest.mark.long

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
PHASES, WITHOUT = ("router start",), "pods get no token"


class Answers(BaseHTTPRequestHandler):
    """As a stranger is answered."""

    def do_HEAD(self) -> None:
        self.send_response(403)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the test's output."""


@pytest.fixture
def answering() -> Iterator[int]:
    """The port of a web server that pods reach."""
    server = ThreadingHTTPServer((bed_node.address(), 0), Answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def places(node) -> Iterator[tuple[str, str]]:
    """Namespaces: one as the runtime's, one without labels."""
    names = tuple(f"{kind}-{uuid.uuid4().hex[:8]}" for kind in ("runtime", "nodes"))
    for name, labels in zip(names, (RESTRICTED, {}), strict=True):
        answer = node.api.create("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
        assert answer.status == 201, answer.message
    yield names
    for name in names:
        node.api.delete(f"/api/v1/namespaces/{name}")


def ran(node: Any, until: Any, listed: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """What became of each Job, and what it said."""
    found = {}
    for item in listed["items"]:
        where = f"namespaces/{item['metadata']['namespace']}"
        root = f"/api/v1/{where}/configmaps" if item["kind"] == "ConfigMap" else f"/apis/batch/v1/{where}/jobs"
        answer = node.api.create(root, item, fieldValidation="Strict")
        assert answer.status == 201, answer.message
    for item in listed["items"]:
        name, where = item["metadata"]["name"], f"namespaces/{item['metadata']['namespace']}"
        if item["kind"] != "Job":
            continue
        ended: list[str] = []

        def over(path: str = f"/apis/batch/v1/{where}/jobs/{name}", ended: list[str] = ended) -> bool:
            conditions = node.api.get(path).body["status"].get("conditions") or ()
            ended[:] = [one["type"] for one in conditions if one["status"] == "True"]
            return bool({"Complete", "Failed"} & {*ended})

        until(over, 200)
        (pod,) = node.api.get(f"/api/v1/{where}/pods", labelSelector=f"job-name={name}").body["items"]
        log = node.api.get(f"/api/v1/{where}/pods/{pod['metadata']['name']}/log").body["message"]
        found[name.rsplit("-", 1)[1]] = ("Complete" if "Complete" in ended else "Failed", log)
    return found


def test_reached_and_not_reached(node, until, places, answering):
    runtime, nodes = places
    api = urlsplit(node.api.server)
    assert api.hostname is not None
    assert api.port is not None
    there = [
        Target(bed_node.address(), answering, "HTTP", PHASES, WITHOUT),
        Target(api.hostname, api.port, "TCP", PHASES, WITHOUT),
        Target("*.for-firewalls.example", 443, "HTTPS", PHASES, WITHOUT),
    ]
    # The API server's own authority is nobody whom a pod trusts.
    closed = [Target(api.hostname, api.port, "HTTPS", PHASES, WITHOUT), Target("none.invalid", 443, "HTTPS")]
    found = ran(
        node,
        until,
        jobs(
            [
                Place("nodes", nodes, tuple(there), host_network=True),
                Place("pods", runtime, tuple(there)),
                Place("services", runtime, (*there, *closed)),
            ],
            node.image,
        ),
    )
    for network in ("nodes", "pods"):
        ended, log = found[network]
        assert ended == "Complete", log
        assert "HTTP 403" in log
        assert log.splitlines()[-1] == "2 hosts: all reached"
    ended, log = found["services"]
    assert ended == "Failed"
    tls, name = [line for line in log.splitlines() if line.startswith("FAIL")]
    assert "TLS: " in tls
    assert "breaks: router start (pods get no token)" in tls
    assert "none.invalid:443  name: " in name
    assert "let the machine's DNS server answer" in name
    assert log.splitlines()[-1] == "4 hosts: 2 cannot be reached"


def test_the_command_as_it_is_printed(node, until, places, tmp_path, capsys):
    """Azure's hosts: reached or not, each is told, and the Job ends as the lines say."""
    runtime, nodes = places
    file = tmp_path / "cluster.yaml"
    file.write_text("component: AksInferenceCluster\nargs: {location: westeurope}\n")
    command = ["--job", "--image", node.image, "--namespace", runtime, "--node-namespace", nodes]
    assert run([str(file), *command]) == 0
    listed = json.loads(capsys.readouterr().out)
    found = ran(node, until, listed)
    assert set(found) == {"nodes", "pods"}
    for item in listed["items"][::2]:
        targets = [Target(**each) for each in json.loads(item["data"]["targets.json"])]
        ended, log = found[item["metadata"]["name"].rsplit("-", 1)[1]]
        told = log.splitlines()
        asked = [target for target in targets if target.can_be_checked]
        assert [line.split()[1] for line in told[:-1]] == [f"{one.host}:{one.port}" for one in asked]
        assert (ended == "Failed") == any(line.startswith("FAIL") for line in told)
        assert all("; breaks: " in line for line in told if line.startswith("FAIL"))
