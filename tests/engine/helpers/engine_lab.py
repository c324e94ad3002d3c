"""Stacks whose provider is the one in `lab/`, over the real protocol."""

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEAD = """
import pulumi

class Thing(pulumi.CustomResource):
    made: pulumi.Output[str]
    def __init__(self, name, opts=None, /, **inputs):
        super().__init__("lab:index:Thing", name, {"made": None, **inputs}, opts)

class Lab(pulumi.ProviderResource):
    def __init__(self, name, opts=None, /, **config):
        super().__init__("lab", name, config, opts)

class Remote(pulumi.ComponentResource):
    made: pulumi.Output[str]
    value: pulumi.Output[str]
    def __init__(self, kind, name, opts=None, /, **inputs):
        super().__init__(f"lab:index:{kind}", name, {"made": None, "value": None, **inputs}, opts, remote=True)

class Box(pulumi.ComponentResource):
    def __init__(self, name, opts=None, /):
        super().__init__("lab:index:Box", name, {}, opts)
"""


class Lab:
    """A stack whose provider is the one in `lab/`, and what is seen of it."""

    def __init__(self, workspace: Any) -> None:
        self.workspace = workspace
        self.cloud: Path = workspace.folder / "cloud"
        self.log: Path = workspace.folder / "log"
        self.cloud.mkdir()
        workspace.environment |= {"LAB_CLOUD": str(self.cloud), "LAB_LOG": str(self.log)}
        source = Path(__file__).resolve().parents[1] / "lab"
        project = {
            "name": "tested",
            "runtime": "python",
            "plugins": {"providers": [{"name": "lab", "path": str(source)}]},
        }
        (workspace.project / "Pulumi.yaml").write_text(json.dumps(project))

    def program(self, text: str) -> None:
        (self.workspace.project / "__main__.py").write_text(HEAD + textwrap.dedent(text))

    def run(self, command: str, *flags: str, code: int = 0, **environment: str) -> "Seen":
        self.log.write_text("")
        how = ("preview", "--json") if command == "preview" else (command, "--json", "--yes", "--skip-preview")
        done = self.workspace.run(*how, "--non-interactive", "--stack", "dev", *flags, **environment)
        assert done.returncode == code, done.stdout + done.stderr
        return Seen(done.stdout, self.log.read_text().splitlines())

    def up(self, text: str, *flags: str, code: int = 0, **environment: str) -> "Seen":
        self.program(text)
        return self.run("up", *flags, code=code, **environment)

    def state(self) -> dict[str, Any]:
        return dict(self.workspace.export("--show-secrets")["deployment"])

    def resources(self) -> dict[str, dict[str, Any]]:
        return {r["urn"].rpartition("::")[2]: r for r in self.state().get("resources", [])}

    def pending(self) -> list[tuple[str, str]]:
        found = self.state().get("pending_operations", [])
        return sorted((o["type"], o["resource"]["urn"].rpartition("::")[2]) for o in found)


class Seen:
    """The events of a run by name, its messages, and the calls to the provider."""

    def __init__(self, stdout: str, calls: list[str]) -> None:
        self.calls = calls
        self.ops: dict[str, list[str]] = {}
        self.ended: dict[str, list[str]] = {}
        self.messages: list[str] = []
        self.changes: dict[str, int] = {}
        for event in self._events(stdout):
            for kind, found in (("resourcePreEvent", self.ops), ("resOutputsEvent", self.ended)):
                if kind in event:
                    metadata = event[kind]["metadata"]
                    found.setdefault(metadata["urn"].rpartition("::")[2], []).append(metadata["op"])
            if "diagnosticEvent" in event:
                self.messages.append(event["diagnosticEvent"]["message"])
            if "summaryEvent" in event:
                self.changes = event["summaryEvent"]["resourceChanges"]

    def _events(self, stdout: str) -> Iterator[dict[str, Any]]:
        if stdout.startswith("{\n"):
            digest = json.loads(stdout)
            self.changes = digest.get("changeSummary", {})
            self.messages = [d["message"] for d in digest.get("diagnostics", [])]
            for step in digest.get("steps", []):
                self.ops.setdefault(step["urn"].rpartition("::")[2], []).append(step["op"])
            return
        yield from (json.loads(line) for line in stdout.splitlines())

    def said(self, text: str) -> bool:
        return any(text in message for message in self.messages)
