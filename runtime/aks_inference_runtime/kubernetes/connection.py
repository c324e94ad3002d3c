"""Where the API server is and who we are there: the pod's own account, or a kubeconfig.

Written here and not taken from a client library: the controllers need list, watch, patch and a rotated token. The kept
libraries bring thousands of generated model classes (kubernetes_asyncio: 30 MB of code) or parse every object whole
(lightkube), which 10,000 pods do not leave room for.
"""

import base64
import os
import ssl
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from aks_inference_runtime.api.errors import InvalidInput

LogIn = Callable[[Mapping[str, Any], Mapping[str, Any]], Mapping[str, Any]]
"""From the section `exec` of a user, and the cluster's, what the user's section would say."""
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True)
class Connection:
    """How to reach the API server."""

    server: str
    tls: ssl.SSLContext | None
    token_file: Path | None = None
    """Read again for every connection: the kubelet rotates it."""
    token: str | None = field(default=None, repr=False)

    def headers(self) -> dict[str, str]:
        """Of a request now."""
        token = self.token_file.read_text().strip() if self.token_file is not None else self.token
        return {"authorization": f"Bearer {token}"} if token else {}


def find(environment: Mapping[str, str] = os.environ) -> Connection:
    """In a pod its service account, else the file that KUBECONFIG names. Raises InvalidInput."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT")
    if host and port and (ACCOUNT / "token").exists():
        where = f"[{host}]" if ":" in host else host
        tls = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
        return Connection(f"https://{where}:{port}", tls, token_file=ACCOUNT / "token")
    if named := environment.get("KUBECONFIG"):
        return from_kubeconfig(Path(named))
    raise InvalidInput("no API server: neither a pod's service account nor the variable KUBECONFIG is there")


def from_kubeconfig(path: Path, context_name: str | None = None, log_in: LogIn | None = None) -> Connection:
    """A context of a kubeconfig with a token or a client certificate. Raises InvalidInput.

    Args:
        path: Required. The file.
        context_name: Optional. Default: its current context.
        log_in: Optional. Makes a user's section of one that logs in by a program. Default: such users are refused.
    """
    try:
        document = yaml.safe_load(path.read_text())
        names = [entry["name"] for entry in document["contexts"]]
        if context_name is not None and context_name not in names:
            raise InvalidInput(f"{path} has no context {context_name!r} (there are: {', '.join(names)})")
        context = _named(document["contexts"], context_name or document["current-context"])["context"]
        cluster = _named(document["clusters"], context["cluster"])["cluster"]
        user = _named(document["users"], context["user"])["user"]
        server = str(cluster["server"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, StopIteration) as error:
        raise InvalidInput(f"{path}: not a kubeconfig with a current context: {error!r}") from None
    if "exec" in user and log_in is not None:
        user = log_in(user["exec"], cluster)
    if "exec" in user or "auth-provider" in user:
        raise InvalidInput(f"{path}: the user logs in by a program; the runtime takes a token or a client certificate")
    token_file = Path(user["tokenFile"]) if "tokenFile" in user else None
    tls = _tls(path.parent, cluster, user) if server.startswith("https:") else None
    return Connection(server.rstrip("/"), tls, token_file, user.get("token"))


def _tls(folder: Path, cluster: Mapping[str, Any], user: Mapping[str, Any]) -> ssl.SSLContext:
    authority = _bytes(folder, cluster, "certificate-authority")
    tls = ssl.create_default_context(cadata=authority.decode() if authority else None)
    if cluster.get("insecure-skip-tls-verify"):
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    certificate, key = _bytes(folder, user, "client-certificate"), _bytes(folder, user, "client-key")
    if certificate and key:
        # The module ssl reads certificates from files only.
        with tempfile.NamedTemporaryFile(prefix="aks-inference-", suffix=".pem") as file:
            file.write(certificate + b"\n" + key)
            file.flush()
            tls.load_cert_chain(file.name)
    return tls


def _bytes(folder: Path, section: Mapping[str, Any], name: str) -> bytes | None:
    if data := section.get(f"{name}-data"):
        return base64.b64decode(data)
    return (folder / section[name]).read_bytes() if section.get(name) else None


def _named(items: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(item for item in items if item["name"] == name)
