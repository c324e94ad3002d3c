"""A registry (Debian's docker-registry) that pods of the node can reach: with TLS and a login."""

import base64
import json
import shutil
import socket
from pathlib import Path

import yaml

from testbed import node
from testbed.authority import Authority
from testbed.processes import BedError, Running, free_ports, wait_until

USER, PASSWORD = "puller", "open-sesame"
HTPASSWD = f"{USER}:$2b$04$cXjAVAvo7CwJwZblEzGBLu78o9GDKqtJfVOHcqirgakiHyCDCWtEO\n"
"""bcrypt of the password: the only form that the registry takes."""


class Registry:
    """Listens at the node's address; `folder` also has `config.json` and `ca.crt` for its clients."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("docker-registry") or shutil.which("registry")
        if program is None:
            raise BedError("no registry program: install Debian's docker-registry")
        self.folder = folder
        address = node.address()
        (port,) = free_ports(1)
        self.host = f"{address}:{port}"
        authority = Authority(folder)
        certificate, key = authority.issue("registry", "registry", hosts=[address])
        (folder / "htpasswd").write_text(HTPASSWD)
        config = {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "auth": {"htpasswd": {"realm": "test-bed", "path": str(folder / "htpasswd")}},
            "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}, "delete": {"enabled": True}},
            "http": {"addr": self.host, "tls": {"certificate": str(certificate), "key": str(key)}},
        }
        (folder / "registry.yml").write_text(yaml.safe_dump(config))
        (folder / "config.json").write_text(self.logins)
        self._running = Running("registry", (program, "serve", folder / "registry.yml"), folder / "registry.log")
        wait_until("the registry listens", lambda: _listens(address, port), [self._running])

    @property
    def logins(self) -> str:
        """As `docker login` writes them."""
        auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        return json.dumps({"auths": {self.host: {"auth": auth}}})

    @property
    def environment(self) -> dict[str, str]:
        """For clients on this machine."""
        return {"DOCKER_CONFIG": str(self.folder), "SSL_CERT_FILE": str(self.folder / "ca.crt")}

    def secret(self, name: str, **more: str) -> dict[str, object]:
        """A Secret with access to it, and with further files."""
        data = {".dockerconfigjson": self.logins, "ca.crt": (self.folder / "ca.crt").read_text(), **more}
        encoded = {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}
        return {"metadata": {"name": name}, "type": "kubernetes.io/dockerconfigjson", "data": encoded}

    def stop(self) -> None:
        """Ends it."""
        self._running.end()


def _listens(address: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0
