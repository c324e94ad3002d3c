"""Where the API server is and who asks: a kubeconfig's text or path, the usual places, or the inside of a pod."""

import base64
import binascii
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from embedded_engine.kubernetes.errors import KubeconfigError

_POD_FOLDER = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True)
class ExecPlugin:
    """A command that prints credentials (client.authentication.k8s.io)."""

    api_version: str
    command: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    hint: str = ""


@dataclass(frozen=True)
class Connection:
    """Everything that a client needs. Texts are PEM; none of it belongs in a message."""

    server: str
    namespace: str = "default"
    authority: str | None = None
    verify: bool = True
    server_name: str | None = None
    certificate: str | None = field(default=None, repr=False)
    key: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    basic: tuple[str, str] | None = field(default=None, repr=False)
    plugin: ExecPlugin | None = None
    proxy: str | None = None


def connection(
    given: str | None, context: str | None, cluster: str | None, environment: Mapping[str, str]
) -> Connection:
    """The connection that a configuration means. `given`: a kubeconfig's text or its path. Raises KubeconfigError."""
    if given:
        if "\n" in given or given.lstrip().startswith("{"):
            return _of(_parse(given, "the kubeconfig"), None, context, cluster)
        return _of_file(Path(given).expanduser(), context, cluster)
    named = [Path(part) for part in environment.get("KUBECONFIG", "").split(os.pathsep) if part]
    for path in named or [Path.home() / ".kube" / "config"]:
        if path.exists():
            return _of_file(path, context, cluster)
    if (host := environment.get("KUBERNETES_SERVICE_HOST")) and (_POD_FOLDER / "token").exists():
        return _of_pod(host, environment.get("KUBERNETES_SERVICE_PORT", "443"))
    where = ", ".join(map(str, named)) or "~/.kube/config"
    raise KubeconfigError(f"no kubeconfig: {where} does not exist; set `kubernetes:kubeconfig` or KUBECONFIG")


def _of_pod(host: str, port: str) -> Connection:
    host = f"[{host}]" if ":" in host else host
    return Connection(
        server=f"https://{host}:{port}",
        namespace=(_POD_FOLDER / "namespace").read_text().strip(),
        authority=(_POD_FOLDER / "ca.crt").read_text(),
        token_file=_POD_FOLDER / "token",
    )


def _of_file(path: Path, context: str | None, cluster: str | None) -> Connection:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise KubeconfigError(f"the kubeconfig {path} cannot be read: {error}") from error
    return _of(_parse(text, f"the kubeconfig {path}"), path.parent, context, cluster)


def _parse(text: str, what: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # Not the error's own text: it shows a part of the file.
        raise KubeconfigError(f"{what} is not YAML") from error
    if not isinstance(content, dict) or not content.get("clusters"):
        raise KubeconfigError(f"{what} names no cluster")
    return content


def _of(config: Mapping[str, Any], folder: Path | None, context: str | None, cluster: str | None) -> Connection:
    name = context or config.get("current-context")
    chosen = _named(config, "contexts", "context", name) if name else {}
    target = _named(config, "clusters", "cluster", cluster or chosen.get("cluster"))
    user = _named(config, "users", "user", chosen["user"]) if chosen.get("user") else {}
    server = target.get("server")
    if not isinstance(server, str) or not server.startswith(("https://", "http://")):
        raise KubeconfigError(f"the kubeconfig's cluster has no server: {server!r}")
    token_file = user.get("tokenFile")
    basic = (str(user["username"]), str(user.get("password", ""))) if "username" in user else None
    return Connection(
        server=server.rstrip("/"),
        namespace=str(chosen.get("namespace") or "default"),
        authority=_data(target, "certificate-authority", folder),
        verify=not target.get("insecure-skip-tls-verify", False),
        server_name=target.get("tls-server-name"),
        certificate=_data(user, "client-certificate", folder),
        key=_data(user, "client-key", folder),
        token=user.get("token"),
        token_file=_path(token_file, folder) if token_file else None,
        basic=basic,
        plugin=_plugin(user["exec"]) if user.get("exec") else None,
        proxy=target.get("proxy-url"),
    )


def _named(config: Mapping[str, Any], kind: str, inner: str, name: object) -> dict[str, Any]:
    entries = {entry.get("name"): entry.get(inner) or {} for entry in config.get(kind) or ()}
    if name not in entries:
        known = ", ".join(sorted(map(str, entries))) or "none"
        raise KubeconfigError(f"the kubeconfig has no {inner} {name!r}; there are: {known}")
    found: dict[str, Any] = entries[name]
    return found


def _path(text: str, folder: Path | None) -> Path:
    """Relative paths are relative to the kubeconfig, as for kubectl."""
    return (folder or Path.cwd()) / text


def _data(part: Mapping[str, Any], key: str, folder: Path | None) -> str | None:
    if part.get(f"{key}-data"):
        try:
            return base64.b64decode(part[f"{key}-data"], validate=True).decode()
        except (binascii.Error, ValueError) as error:
            raise KubeconfigError(f"the kubeconfig's {key}-data is not base64") from error
    if part.get(key):
        path = _path(part[key], folder)
        try:
            return path.read_text()
        except OSError as error:
            raise KubeconfigError(f"the kubeconfig's {key} {path} cannot be read: {error.strerror}") from error
    return None


def _plugin(given: Mapping[str, Any]) -> ExecPlugin:
    if not given.get("command"):
        raise KubeconfigError("the kubeconfig's exec plugin names no command")
    return ExecPlugin(
        api_version=str(given.get("apiVersion") or "client.authentication.k8s.io/v1"),
        command=str(given["command"]),
        arguments=tuple(map(str, given.get("args") or ())),
        environment={str(e["name"]): str(e["value"]) for e in given.get("env") or ()},
        hint=str(given.get("installHint") or ""),
    )


def exec_info(plugin: ExecPlugin) -> str:
    """KUBERNETES_EXEC_INFO for a plugin."""
    return json.dumps({"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": {"interactive": False}})
