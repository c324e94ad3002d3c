"""Azure's stand-in (tests/azure) with a real API server behind its clusters."""

import base64
import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
STANDIN = ROOT / "tests" / "azure" / "standin"
DATA = Path(os.environ.get("AKS_INFERENCE_DATA", ROOT.parent / "shared" / "data"))
TODAY = "2026-11-21"


class AzureBed:
    """Its folder, the commands that stand in for Azure's, and what it was asked."""

    def __init__(self, folder: Path, kubeconfig: Path) -> None:
        self.folder, self._bin = folder / "azure", folder / "bin"
        self.folder.mkdir()
        self._bin.mkdir()
        self.configure(kubeconfig=str(kubeconfig))
        self._command("pulumi-resource-azure-native", f'exec "{sys.executable}" "{STANDIN}/standin_provider.py" "$@"')
        self._kubeconfig = kubeconfig

    def configure(self, **settings: Any) -> None:
        """The stand-in's settings."""
        path = self.folder / "settings.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**known, **settings}))

    @property
    def environment(self) -> dict[str, str]:
        """For whoever applies a stack."""
        kept = {name: "" for name in os.environ if name.startswith(("ARM_", "AZURE_"))}
        return kept | {
            "PATH": f"{self._bin}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "tests" / "cluster"),
            "STANDIN_FOLDER": str(self.folder),
            "STANDIN_DATA": str(DATA),
            "STANDIN_TODAY": TODAY,
        }

    def log(self) -> list[str]:
        """What was written, in order: `PUT <type> <name>`."""
        return list(json.loads((self.folder / "state.json").read_text())["log"])

    def cluster_id(self) -> str:
        """Of its only cluster."""
        resources = json.loads((self.folder / "state.json").read_text())["resources"]
        (found,) = [one["id"] for one in resources.values() if one["type"].endswith("/managedClusters")]
        return str(found)

    def sign_in(self) -> Path:
        """A kubelogin that prints the credentials of the API server's kubeconfig; answers where it tells its calls."""
        user = json.loads(self._kubeconfig.read_text())["users"][0]["user"]
        pem = {name: base64.b64decode(user[f"{name}-data"]).decode() for name in ("client-certificate", "client-key")}
        status = {"clientCertificateData": pem["client-certificate"], "clientKeyData": pem["client-key"]}
        version = "client.authentication.k8s.io/v1beta1"
        answer = self.folder / "credential.json"
        answer.touch(mode=0o600)
        answer.write_text(json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status}))
        calls = self.folder / "kubelogin.calls"
        self._command("kubelogin", f'echo "$@" >> "{calls}"\ncat "{answer}"')
        return calls

    def _command(self, name: str, text: str) -> None:
        path = self._bin / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
