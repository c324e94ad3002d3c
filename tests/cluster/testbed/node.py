"""A real node on this machine: containerd with runc, a kubelet, pods on a bridge. Linux, root, Debian's packages.

`containerd runc containernetworking-plugins` come from Debian, the kubelet from Go modules. Images are kept in
containerd's own store in the cache, since importing takes the longest.
"""

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TextIO

import yaml

from testbed import build, image, left_over
from testbed.control_plane import ControlPlane
from testbed.processes import BedError, Running, free_ports, wait_until

NAME = "bed-node"
_BRIDGE = "bed0"
_SUBNET = "10.88.0.0/24"
_CNI_PLUGINS = Path("/usr/lib/cni")
_NETWORK = f"""{{
  "cniVersion": "0.4.0", "name": "bed",
  "plugins": [
    {{"type": "bridge", "bridge": "{_BRIDGE}", "isGateway": true, "ipMasq": true, "hairpinMode": true,
      "ipam": {{"type": "host-local", "ranges": [[{{"subnet": "{_SUBNET}"}}]], "routes": [{{"dst": "0.0.0.0/0"}}],
               "dataDir": "@STATE@"}}}},
    {{"type": "loopback"}}
  ]
}}"""

_UNDO = (
    ["ip", "link", "delete", _BRIDGE],
    ["nft", "delete", "table", "ip", "kube-proxy"],
    ["nft", "delete", "table", "ip6", "kube-proxy"],
)
"""On the machine, beside processes and mounts."""


def machine_lock() -> Path:
    """Who holds it has this machine's one node."""
    return build.folder() / "containerd" / "lock"


def missing() -> list[str]:
    """What a node needs and this machine has not."""
    found = [name for name in ("containerd", "runc", "ctr", "nft", "debootstrap") if shutil.which(name) is None]
    if not (_CNI_PLUGINS / "bridge").exists():
        found.append("containernetworking-plugins")
    if os.geteuid() != 0:
        found.append("root")
    return found + build.missing(build.NODE)


class Node:
    """A node of a control plane, with its feature gates.

    `newer`: with a containerd that is built here, and a store of its own, in place of Debian's."""

    def __init__(self, plane: ControlPlane, *, newer: bool = False) -> None:
        self._plane, self._newer = plane, newer
        # Sockets below it: their paths end at 108 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="bed-"))
        self._store = build.folder() / ("containerd-newer" if newer else "containerd")
        self._lock: TextIO | None = None
        self._note: Path | None = None
        self.running: list[Running] = []
        self._kubelet_command: tuple[str | Path, ...] = ()

    @property
    def socket(self) -> Path:
        """containerd's."""
        return self.folder / "containerd.sock"

    def start(self) -> None:
        """With the images of `image`. Raises BedError."""
        # One lock whichever containerd it is.
        for folder in (self._store, machine_lock().parent):
            folder.mkdir(parents=True, exist_ok=True)
        lock = machine_lock().open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise BedError("another node runs on this machine") from None
        self._lock = lock
        self._note = left_over.note(self.folder, *_UNDO)
        self._containerd()
        if not self.has(image.PAUSE):
            self.load(image.pause(self.folder))
        self.load(image.application(self.folder))
        self._kubelet()
        self._proxy()

    def stop(self) -> None:
        """Ends everything, what containers are left included."""
        for running in reversed(self.running):
            if running.name == "containerd":
                self._end_containers()
            running.end()
        self.running.clear()
        # The machine's, not this folder's: without the lock they are another node's.
        if self._lock is not None:
            for command in _UNDO:
                subprocess.run(command, capture_output=True, check=False)
        left_over.unmount_below(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._note is not None:
            self._note.unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()

    def has(self, image: str) -> bool:
        """Whether an image is in the store."""
        listed = self.ctr("images", "list", "--quiet")
        return image in listed.split()

    def load(self, archive: Path) -> None:
        """Imports images."""
        self.ctr("images", "import", str(archive))

    def ctr(self, *arguments: str) -> str:
        """containerd's own client."""
        done = subprocess.run(
            [self._program("ctr"), "--address", str(self.socket), "--namespace", "k8s.io", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        if done.returncode:
            raise BedError(f"ctr {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def _run(self, name: str, *command: str | Path) -> Running:
        running = Running(name, command, self.folder / f"{name}.log")
        self.running.append(running)
        return running

    def _containerd(self) -> None:
        network = self.folder / "net.d"
        network.mkdir()
        (network / "bed.conflist").write_text(_NETWORK.replace("@STATE@", str(self.folder / "addresses")))
        config = self.folder / "containerd.toml"
        shim = f'\n    runtime_path = "{self._program("containerd-shim-runc-v2")}"' if self._newer else ""
        config.write_text(f"""
version = 2
root = "{self._store}"
state = "{self.folder / "run"}"
[grpc]
  address = "{self.socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{self._store / "opt"}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image.PAUSE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{_CNI_PLUGINS}"
    conf_dir = "{network}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"{shim}
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
""")
        self._run("containerd", self._program("containerd"), "--config", config)
        wait_until("containerd answers", self._answers, self.running)

    def _program(self, name: str) -> str:
        """Ours, or Debian's."""
        built = build.path(name) if self._newer else None
        return name if built is None else str(built)

    def _answers(self) -> bool:
        try:
            self.ctr("version")
        except BedError:
            return False
        return True

    def _kubelet(self) -> None:
        plane = self._plane
        kubeconfig = plane.write_kubeconfig(
            self.folder / "kubelet.kubeconfig", NAME, f"system:node:{NAME}", ("system:nodes",)
        )
        port, health = free_ports(2)
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": address(),
            "port": port,
            "healthzPort": health,
            "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": str(plane.authority.path)}},
            "authorization": {"mode": "Webhook"},
            "containerRuntimeEndpoint": f"unix://{self.socket}",
            "cgroupDriver": "cgroupfs",
            "failSwapOn": False,
            "enforceNodeAllocatable": [],
            "localStorageCapacityIsolation": False,
            "evictionHard": {"memory.available": "1Mi"},
            "imageGCHighThresholdPercent": 100,
            "makeIPTablesUtilChains": False,
            "serializeImagePulls": False,
            "staticPodPath": "",
            "podLogsDir": str(self.folder / "logs"),
            "volumePluginDir": str(self.folder / "plugins"),
            "featureGates": dict.fromkeys(plane.gates, True),
        }
        path = self.folder / "kubelet.yaml"
        path.write_text(yaml.safe_dump(config))
        program = build.path("kubelet")
        assert program is not None
        self._kubelet_command = (
            program,
            f"--config={path}",
            f"--kubeconfig={kubeconfig}",
            f"--root-dir={self.folder / 'kubelet'}",
            f"--hostname-override={NAME}",
            f"--node-ip={address()}",
        )
        self.start_kubelet()

    def start_kubelet(self) -> None:
        """The one of this node, again as it was. It ends with the thread that calls this."""
        self._run("kubelet", *self._kubelet_command)

    @property
    def kubelet(self) -> Running:
        """The one that runs."""
        (found,) = (one for one in self.running if one.name == "kubelet")
        return found

    def kill_kubelet(self) -> None:
        """Its pods go on."""
        kubelet = self.kubelet
        kubelet.process.kill()
        kubelet.process.wait()
        self.running.remove(kubelet)

    def _proxy(self) -> None:
        """ClusterIPs, the API server's among them: pods call it by that."""
        health, metrics = free_ports(2)
        config = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clientConnection": {"kubeconfig": str(self._plane.kubeconfig)},
            "hostnameOverride": NAME,
            "conntrack": {"maxPerCore": 0, "min": 0},
            "healthzBindAddress": f"127.0.0.1:{health}",
            "metricsBindAddress": f"127.0.0.1:{metrics}",
        }
        path = self.folder / "kube-proxy.yaml"
        path.write_text(yaml.safe_dump(config))
        program = build.path("kube-proxy")
        assert program is not None
        self._run("kube-proxy", program, f"--config={path}")

    def _end_containers(self) -> None:
        """What the kubelet has left: shims outlive containerd."""
        deadline = time.monotonic() + 20
        with contextlib.suppress(BedError):
            while (left := self.ctr("tasks", "list", "--quiet").split()) and time.monotonic() < deadline:
                for task in left:
                    with contextlib.suppress(BedError):
                        self.ctr("tasks", "kill", "--all", "--signal", "SIGKILL", task)
                time.sleep(0.2)
                for task in left:
                    with contextlib.suppress(BedError):
                        self.ctr("tasks", "delete", "--force", task)
            for container in self.ctr("containers", "list", "--quiet").split():
                with contextlib.suppress(BedError):
                    self.ctr("containers", "delete", container)


def address() -> str:
    """Of this machine: a node has no loopback address, and pods reach the API server by it."""
    done = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=False)
    addresses = done.stdout.split()
    if not addresses:
        raise BedError("this machine has no address of its own")
    return addresses[0]
