"""Users of a kubeconfig who log in by a program (kubelogin for Entra ID): for people's commands, not for the runtime.

The protocol is client.authentication.k8s.io: the program prints an ExecCredential.
"""

import base64
import json
import os
import subprocess
from collections.abc import Mapping
from typing import Any

from aks_inference_runtime.api.errors import InvalidInput, OperationFailed

WAIT_S = 120.0
"""A person may have to log in meanwhile."""


def by_program(section: Mapping[str, Any], cluster: Mapping[str, Any]) -> dict[str, Any]:
    """Runs it; what a user's section would say. Raises InvalidInput where it is missing, OperationFailed."""
    command = str(section.get("command", ""))
    version = section.get("apiVersion", "client.authentication.k8s.io/v1")
    about: dict[str, Any] = {"interactive": os.isatty(0)}
    if section.get("provideClusterInfo"):
        names = ("server", "tls-server-name", "insecure-skip-tls-verify", "certificate-authority-data")
        about["cluster"] = {name: cluster[name] for name in names if name in cluster}
    request = {"apiVersion": version, "kind": "ExecCredential", "spec": about}
    given = {str(one["name"]): str(one["value"]) for one in section.get("env") or ()}
    try:
        done = subprocess.run(
            [command, *map(str, section.get("args") or ())],
            stdout=subprocess.PIPE,
            env={**os.environ, **given, "KUBERNETES_EXEC_INFO": json.dumps(request)},
            timeout=WAIT_S,
            check=False,
        )
    except FileNotFoundError:
        hint = f": {hint}" if (hint := str(section.get("installHint", "")).strip()) else ""
        raise InvalidInput(f"the kubeconfig logs in by {command!r}, which is not installed{hint}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OperationFailed(f"the kubeconfig logs in by {command!r}, which did not work: {error}") from None
    if done.returncode != 0:
        raise OperationFailed(f"{command!r}, by which the kubeconfig logs in, ended with {done.returncode}")
    try:
        status = json.loads(done.stdout)["status"]
        found = {
            "token": status.get("token"),
            "client-certificate-data": _encoded(status.get("clientCertificateData")),
            "client-key-data": _encoded(status.get("clientKeyData")),
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise OperationFailed(f"{command!r}, by which the kubeconfig logs in, printed no ExecCredential") from None
    return {name: value for name, value in found.items() if value}


def _encoded(text: str | None) -> str | None:
    return base64.b64encode(text.encode()).decode() if text else None
