"""etcd, the API server and, where they are built, the controller manager and the scheduler."""

import base64
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from testbed import build
from testbed.authority import Authority
from testbed.processes import BedError, Running, free_ports, wait_until

SERVICE_RANGE = "10.96.0.0/16"
FIRST_SERVICE = "10.96.0.1"
POD_RANGE = "10.88.0.0/16"
_TRIES = 3
"""With other ports, should somebody take one in between."""


class ControlPlane:
    """A control plane in a folder of its own; `address` is where the API server listens, `gates` what it has on."""

    def __init__(self, folder: Path, address: str = "127.0.0.1", gates: Sequence[str] = ()) -> None:
        self.folder, self.address, self.gates = folder, address, tuple(gates)
        folder.mkdir(parents=True, exist_ok=True)
        self.authority = Authority(folder)
        self.running: list[Running] = []
        self.server = ""
        self.kubeconfig = folder / "admin.kubeconfig"

    def start(self, *, control: bool = True) -> None:
        """`control`: also controllers and scheduler, where they are built. Raises BedError."""
        for attempt in range(_TRIES):
            try:
                self._start_api()
                break
            except BedError:
                self.stop()
                if attempt + 1 == _TRIES:
                    raise
        if control and not build.missing(build.CONTROL):
            self._start_control()

    def stop(self) -> None:
        """In the order that loses nothing."""
        for running in reversed(self.running):
            running.end()
        self.running.clear()

    @property
    def has_controllers(self) -> bool:
        """Whether Deployments become pods that are bound to nodes."""
        return any(one.name == "kube-scheduler" for one in self.running)

    def keep_fake_nodes(self) -> None:
        """Starts kwok, which keeps the nodes that carry its annotation. Raises BedError."""
        self._run(
            "kwok",
            f"--kubeconfig={self.kubeconfig}",
            f"--config={build.kwok_stages()}",
            "--manage-all-nodes=false",
            "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
            # Its default is none, and a node without heartbeats counts as lost after 50 s.
            "--node-lease-duration-seconds=40",
            "--node-ip=127.0.0.1",
            f"--server-address=127.0.0.1:{free_ports(1)[0]}",
        )

    def healthy(self, path: str = "/readyz") -> bool:
        """Whether the API server answers 200."""
        context = ssl.create_default_context(cafile=str(self.authority.path))
        context.load_cert_chain(*self.certificate("admin"))
        try:
            with urllib.request.urlopen(f"{self.server}{path}", context=context, timeout=5) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def certificate(self, name: str) -> tuple[Path, Path]:
        """Of a user that was issued one."""
        return self.folder / f"{name}.crt", self.folder / f"{name}.key"

    def write_kubeconfig(self, path: Path, name: str, user: str, groups: tuple[str, ...]) -> Path:
        """A kubeconfig with everything inside, for a user of ours."""
        certificate, key = self.authority.issue(name, user, groups)
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test-bed",
            "contexts": [{"name": "test-bed", "context": {"cluster": "test-bed", "user": name}}],
            "clusters": [
                {
                    "name": "test-bed",
                    "cluster": {"server": self.server, "certificate-authority-data": _data(self.authority.path)},
                }
            ],
            "users": [
                {
                    "name": name,
                    "user": {"client-certificate-data": _data(certificate), "client-key-data": _data(key)},
                }
            ],
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(content))
        return path

    def _run(self, name: str, *arguments: str) -> Running:
        program = build.path(name)
        if program is None:
            raise BedError(f"{name} is not built: python -m testbed.build")
        running = Running(name, [program, *arguments], self.folder / f"{name}.log")
        self.running.append(running)
        return running

    def _start_api(self) -> None:
        client, peer, secure = free_ports(3, self.address)
        endpoint = f"http://127.0.0.1:{client}"
        self._run(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            "--unsafe-no-fsync",
            f"--listen-client-urls={endpoint}",
            f"--advertise-client-urls={endpoint}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
        )
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
        certificate, key = self.authority.issue(
            "apiserver", "kube-apiserver", hosts=[*names, "127.0.0.1", self.address, FIRST_SERVICE]
        )
        self.authority.issue("kubelet-client", "kube-apiserver-kubelet-client", ("system:masters",))
        _, account_key = self.authority.issue("accounts", "service-accounts")
        kubelet_certificate, kubelet_key = self.certificate("kubelet-client")
        self._run(
            "kube-apiserver",
            f"--etcd-servers={endpoint}",
            f"--bind-address={self.address}",
            f"--advertise-address={self.address}",
            f"--secure-port={secure}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--client-ca-file={self.authority.path}",
            f"--kubelet-client-certificate={kubelet_certificate}",
            f"--kubelet-client-key={kubelet_key}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-key-file={account_key}",
            f"--service-account-signing-key-file={account_key}",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            *([] if self.address != "127.0.0.1" else ["--endpoint-reconciler-type=none"]),
            *(f"--feature-gates={gate}=true" for gate in self.gates),
        )
        self.server = f"https://{self.address}:{secure}"
        self.write_kubeconfig(self.kubeconfig, "admin", "admin", ("system:masters",))
        wait_until("the API server is ready", self.healthy, self.running)

    def _start_control(self) -> None:
        _, account_key = self.certificate("accounts")
        config = self.kubeconfig
        manager, scheduler = free_ports(2)
        self._run(
            "kube-controller-manager",
            f"--kubeconfig={config}",
            f"--authentication-kubeconfig={config}",
            f"--authorization-kubeconfig={config}",
            f"--service-account-private-key-file={account_key}",
            f"--root-ca-file={self.authority.path}",
            f"--cluster-signing-cert-file={self.authority.path}",
            f"--cluster-signing-key-file={self.authority.key_path}",
            "--use-service-account-credentials=true",
            "--allocate-node-cidrs=true",
            f"--cluster-cidr={POD_RANGE}",
            "--bind-address=127.0.0.1",
            f"--secure-port={manager}",
            "--leader-elect=false",
        )
        self._run(
            "kube-scheduler",
            f"--kubeconfig={config}",
            f"--authentication-kubeconfig={config}",
            f"--authorization-kubeconfig={config}",
            "--bind-address=127.0.0.1",
            f"--secure-port={scheduler}",
            "--leader-elect=false",
        )


def _data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def fake_node(name: str, cpu: str = "32", memory: str = "128Gi", zone: str = "1") -> dict[str, object]:
    """A node that kwok keeps: its pods say that they run, and nothing does."""
    holds = {"cpu": cpu, "memory": memory, "pods": "500"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake", "node.alpha.kubernetes.io/ttl": "0"},
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "topology.kubernetes.io/zone": zone,
                "type": "kwok",
            },
        },
        "status": {"allocatable": holds, "capacity": holds},
    }
