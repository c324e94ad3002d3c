"""cert-manager with an authority for ACME beside a real node, and Azure's DNS as far as a leaf domain shows it.

cert-manager's controllers, Pebble and its name server are processes of this machine; the pods that answer challenges
run on the node.
"""

import json
import os
import ssl
import tarfile
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from testbed import build, image
from testbed.api import Api
from testbed.authority import Authority
from testbed.processes import BedError, Running, free_ports, wait_until

SOLVER = "docker.io/test-bed/acmesolver:1"
NEEDED = (*build.CERT_MANAGER, *build.ACME)
AZURES_NODES = "kubernetes.azure.com/agentpool"
_DNS_LABEL = "service.beta.kubernetes.io/azure-dns-label-name"
_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class Acme:
    """`valid_s`: how long what is issued is good for; cert-manager renews when a third of it is left."""

    def __init__(self, folder: Path, kubeconfig: Path, valid_s: int) -> None:
        folder.mkdir()
        self._folder, self._kubeconfig, self._valid_s = folder, kubeconfig, valid_s
        self._authority = Authority(folder)
        names, told, listens, manages = free_ports(4)
        self._names, self._told = f"127.0.0.1:{names}", f"http://127.0.0.1:{told}"
        self._listens, self._manages = f"127.0.0.1:{listens}", f"127.0.0.1:{manages}"
        self.directory = f"https://{self._listens}/dir"
        self.running: list[Running] = []

    def start(self) -> None:
        """Raises BedError."""
        self._run(
            "pebble-challtestsrv",
            {},
            f"-dnsserver={self._names}",
            f"-management={self._told.removeprefix('http://')}",
            *(f"-{name}=" for name in ("http01", "https01", "tlsalpn01", "doh", "defaultIPv4", "defaultIPv6")),
        )
        certificate, key = self._authority.issue("pebble", "pebble", hosts=["127.0.0.1"])
        config = self._folder / "pebble.json"
        told = {
            "listenAddress": self._listens,
            "managementListenAddress": self._manages,
            "certificate": str(certificate),
            "privateKey": str(key),
            "httpPort": 80,
            "tlsPort": 443,
            "keyAlgorithm": "ecdsa",
            "profiles": {"default": {"description": "short", "validityPeriod": self._valid_s}},
        }
        config.write_text(json.dumps({"pebble": told}))
        # Every order proves the name anew, as one of Let's Encrypt does after 30 days, and nobody waits by chance.
        pebble = {"PEBBLE_AUTHZREUSE": "0", "PEBBLE_VA_NOSLEEP": "1"}
        self._run("pebble", pebble, f"-config={config}", f"-dnsserver={self._names}")
        wait_until("the authority answers", self._answers, self.running)
        self._run(
            "controller",
            # Go's, in place of the system's: who the authority's own address is trusted by.
            {"SSL_CERT_FILE": str(self._authority.path), "SSL_CERT_DIR": str(self._folder)},
            f"-kubeconfig={self._kubeconfig}",
            f"-solver-image={SOLVER}",
            f"-nameservers={self._names}",
        )

    def stop(self) -> None:
        """Ends everything."""
        for running in reversed(self.running):
            running.end()
        self.running.clear()

    def name(self, host: str, address: str) -> None:
        """A record in the DNS."""
        body = json.dumps({"host": host, "addresses": [address]}).encode()
        with urllib.request.urlopen(f"{self._told}/add-a", body, timeout=10):  # noqa: S310 - of this machine
            pass

    def root(self) -> str:
        """What issues is trusted by, in PEM form."""
        return self._get("/roots/0")

    def log(self, name: str) -> str:
        """Of one of the processes."""
        return (self._folder / f"{name}.log").read_text(errors="replace")

    def _get(self, path: str) -> str:
        context = ssl.create_default_context(cafile=str(self._authority.path))
        with urllib.request.urlopen(f"https://{self._manages}{path}", context=context, timeout=10) as answer:
            return str(answer.read().decode())

    def _answers(self) -> bool:
        try:
            return bool(self.root())
        except OSError:
            return False

    def _run(self, name: str, environment: dict[str, str], *arguments: str) -> None:
        program = build.path(name)
        if program is None:
            raise BedError(f"{name} is not built: python -m testbed.build")
        env = {**os.environ, **environment}
        self.running.append(Running(name, [program, *arguments], self._folder / f"{name}.log", env=env))


def solver_image(folder: Path) -> Path:
    """An archive with the image of the pods that answer challenges."""
    program, layer = build.path("acmesolver"), folder / "acmesolver-layer.tar"
    assert program is not None
    with tarfile.open(layer, "w") as tar:
        entry = tar.gettarinfo(str(program), "acmesolver")
        entry.mode, entry.uid, entry.gid = 0o755, 0, 0
        with program.open("rb") as file:
            tar.addfile(entry, file)
    configuration = {"Entrypoint": ["/acmesolver"], "User": "1000:1000"}
    return image.archive(folder / "acmesolver.tar", {SOLVER: ([layer], configuration)})


@contextmanager
def defined(api: Api, until: Callable[..., None]) -> Iterator[None]:
    """cert-manager's definitions are there until the block ends."""
    definitions = [one for one in yaml.safe_load_all(build.cert_manager_definitions().read_text()) if one]
    paths = [f"{_DEFINITIONS}/{one['metadata']['name']}" for one in definitions]

    def established(path: str) -> bool:
        conditions = api.get(path).body.get("status", {}).get("conditions") or ()
        return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)

    try:
        for path, one in zip(paths, definitions, strict=True):
            answer = api.apply(path, one)
            assert answer.status in (200, 201), answer.message
        until(lambda: all(map(established, paths)))
        yield
    finally:
        for path in paths:
            api.delete(path)


class LeafDomains(threading.Thread):
    """Load balancers of a namespace get an address, and the Azure name that their annotation asks for, as in Azure.

    The name leads to the Service's address in the cluster: the balancer's leads nowhere. Nodes of the stand-in, where
    nothing runs, take no pods.
    """

    def __init__(self, api: Api, namespace: str, acme: Acme, region: str) -> None:
        super().__init__(daemon=True)
        self.api, self.acme, self.region = api, acme, region
        self.path = f"/api/v1/namespaces/{namespace}/services"
        self.over = threading.Event()
        self.addresses: dict[str, str] = {}
        """By name."""

    def run(self) -> None:
        while not self.over.wait(0.3):
            for item in self.api.get("/api/v1/nodes", labelSelector=AZURES_NODES).body.get("items") or ():
                if not item["spec"].get("unschedulable"):
                    self.api.merge(f"/api/v1/nodes/{item['metadata']['name']}", {"spec": {"unschedulable": True}})
            for item in self.api.get(self.path).body.get("items") or ():
                if item["spec"]["type"] == "LoadBalancer":
                    self._balance(item)

    def _balance(self, item: dict[str, Any]) -> None:
        if not item["status"].get("loadBalancer"):
            status = {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}}
            self.api.merge(f"{self.path}/{item['metadata']['name']}/status", {"status": status})
        label = (item["metadata"].get("annotations") or {}).get(_DNS_LABEL)
        if label is not None:
            host, address = f"{label}.{self.region}.cloudapp.azure.com", item["spec"]["clusterIP"]
            if self.addresses.get(host) != address:
                self.acme.name(host, address)
                self.addresses[host] = address
