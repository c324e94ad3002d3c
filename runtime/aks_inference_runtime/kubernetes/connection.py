"""Where the API server is and who we are there: the pod's own account, or a kubeconfig.

Written here and not taken from a client library: the controllers need list, watch, patch and a rotated token. The kept
libraries bring thousands of generated model classes (kubernetes_asyncio: 30 MB of code) or parse every object whole
(lightkube), which 10,000 pods do not leave room for.
"""

import base64
import os
import ssl
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.kubernetes.kubeconfig import chosen, of_environment
from aks_inference_runtime.proxies import machine_proxy

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
    proxy: str | None = field(default=None, repr=False)
    """It may hold a login."""
    server_name: str | None = None
    """For which the server's certificate is; None: for its host."""
    namespace: str | None = None
    """Of the kubeconfig's context."""
    renew: "Callable[[], Connection] | None" = field(default=None, repr=False, compare=False)
    """Logs in anew, of who logs in by a program: for when the API server no longer takes what that gave."""

    def headers(self) -> dict[str, str]:
        """Of a request now."""
        token = self.token_file.read_text().strip() if self.token_file is not None else self.token
        return {"authorization": f"Bearer {token}"} if token else {}


def find(environment: Mapping[str, str] = os.environ) -> Connection:
    """In a pod its service account, else the files that KUBECONFIG names. Raises InvalidInput."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT")
    if host and port and (ACCOUNT / "token").exists():
        where = f"[{host}]" if ":" in host else host
        tls = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
        # Never by a proxy of the environment: it is the cluster's own address.
        return Connection(f"https://{where}:{port}", tls, token_file=ACCOUNT / "token")
    if environment.get("KUBECONFIG"):
        return from_kubeconfig(of_environment(environment))
    raise InvalidInput("no API server: neither a pod's service account nor the variable KUBECONFIG is there")


def from_kubeconfig(
    paths: Path | Sequence[Path], context_name: str | None = None, log_in: LogIn | None = None
) -> Connection:
    """A context of a kubeconfig with a token or a client certificate. Raises InvalidInput.

    Args:
        paths: Required. The file; of several the first that has a thing counts for it.
        context_name: Optional. Default: its current context.
        log_in: Optional. Makes a user's section of one that logs in by a program. Default: such users are refused.
    """
    files = [paths] if isinstance(paths, Path) else list(paths)
    shown = ", ".join(map(str, files))
    cluster, user, namespace = chosen(files, context_name)
    server = str(cluster["server"]).rstrip("/")

    def made() -> Connection:
        given = user if log_in is None or "exec" not in user else log_in(user["exec"], cluster)
        if "exec" in given or "auth-provider" in given:
            raise InvalidInput(
                f"{shown}: the user logs in by a program; the runtime takes a token or a client certificate"
            )
        return Connection(
            server,
            _tls(shown, cluster, given) if server.startswith("https:") else None,
            Path(given["tokenFile"]) if given.get("tokenFile") else None,
            given.get("token"),
            _proxy(shown, server, cluster.get("proxy-url")),
            cluster.get("tls-server-name") or None,
            namespace,
            None if given is user else made,
        )

    return made()


def _proxy(shown: str, server: str, given: str | None) -> str | None:
    """The kubeconfig's, else the machine's."""
    proxy = given or machine_proxy(server)
    if proxy and (kind := urlsplit(proxy).scheme) not in {"http", "https"}:
        raise InvalidInput(
            f"{shown}: the proxy of {server} speaks {kind or 'nothing that is named'}; http and https can be used "
            f"({'`proxy-url`' if given else 'HTTPS_PROXY, NO_PROXY'})"
        )
    return proxy


def _tls(shown: str, cluster: Mapping[str, Any], user: Mapping[str, Any]) -> ssl.SSLContext:
    authority = _bytes(shown, cluster, "certificate-authority")
    certificate, key = _bytes(shown, user, "client-certificate"), _bytes(shown, user, "client-key")
    if (certificate is None) != (key is None):
        given, lacks = ("client-certificate", "client-key")[:: 1 if key is None else -1]
        raise InvalidInput(f"{shown}: the user has a {given} and no {lacks}: give both, or neither")
    names = "certificate-authority"
    try:
        tls = ssl.create_default_context(cadata=authority.decode("ascii") if authority else None)
        if cluster.get("insecure-skip-tls-verify"):
            tls.check_hostname = False
            tls.verify_mode = ssl.CERT_NONE
        if certificate and key:
            names = "client-certificate and client-key"
            # The module ssl reads certificates from files only.
            with tempfile.NamedTemporaryFile(prefix="aks-inference-", suffix=".pem") as file:
                file.write(certificate + b"\n" + key)
                file.flush()
                tls.load_cert_chain(file.name)
    except (ssl.SSLError, ValueError) as error:
        raise InvalidInput(
            f"{shown}: {names}: {error}; PEM is needed, and a certificate's own key: get the kubeconfig anew"
        ) from None
    return tls


def _bytes(shown: str, section: Mapping[str, Any], name: str) -> bytes | None:
    try:
        if data := section.get(f"{name}-data"):
            return base64.b64decode(data)
        return Path(section[name]).read_bytes() if section.get(name) else None
    except OSError as error:
        raise InvalidInput(
            f"{shown}: {name}: {section[name]}: {error.strerror}; a file in PEM is needed there, or its content as "
            f"`{name}-data`: get the kubeconfig anew"
        ) from None
    except ValueError as error:
        raise InvalidInput(f"{shown}: {name}-data: {error}; PEM in base64 is needed: get the kubeconfig anew") from None
