"""What the components cost: a stack of 100 services, beside the same resources declared bare.

Three programs declare the same cluster, model and 100 endpoints with the same inputs: `components` with the package's
components; `bare` the same tree of resources with nothing but Pulumi's own classes, so that the ratio to it is what the
package's code costs; `flat` without the nodes of the tree, so that the ratio to it has the price of Pulumi's component
resources in it, too. Whole commands are timed (engine, program and plugin), in turns, so that whatever else the machine
does falls on all.

    ./bench/run preview [--json] [--quick] [--services N]
"""

import argparse
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from bench.harness import machine, save, versions

ROOT = Path(__file__).resolve().parents[1]
ENGINE = Path(sys.executable).parent / "embedded-engine"
QUIET = ROOT / "bench" / "quiet_supervisor.py"
SERVICES = 100
ROUNDS, QUICK_ROUNDS = 9, 2
TO_REACH = 1.3
"""At most, for both ratios."""

COMPONENTS = """
import pulumi
from aks_inference import LocalInferenceCluster, ModelWebService, RegisteredModel

config = pulumi.Config()
cluster = LocalInferenceCluster("local", port=config.require_int("port"), state_directory=config.require("state"))
model = RegisteredModel("m", target=cluster, model_path="model.bin")
inference = {"entry_script": "score.py", "source_directory": "source"}
for index in range(config.require_int("services")):
    # Scaled to zero: no machine need hold the replicas.
    ModelWebService(
        f"svc-{index}",
        target=cluster,
        models=[model],
        inference_config=inference,
        autoscale_enabled=True,
        autoscale_min_replicas=0,
        scale_to_zero=True,
    )
"""

PLAIN = """
import json
from pathlib import Path

import pulumi

config = pulumi.Config()
pinned = pulumi.ResourceOptions(version=config.require("version"))
inputs = json.loads(Path("inputs.json").read_text())
tree = config.require_bool("tree")


def declare(kind, name, outputs, parent, **late):
    options = pulumi.ResourceOptions.merge(pinned, pulumi.ResourceOptions(parent=parent))
    props = {**dict.fromkeys(outputs), **inputs[kind][name], **late}
    made = pulumi.CustomResource(f"aks-inference:index:{kind}", name, props, options)
    if parent:
        parent.register_outputs({key: pulumi.get(made, key) for key in outputs})
    return made


def group(kind, name, **late):
    if not tree:
        return None
    return pulumi.ComponentResource(f"aks-inference:index:{kind}", name, {**inputs[kind][name], **late})


parent = group("LocalInferenceCluster", "local")
runtime = declare("LocalRuntime", "local", ("target", "url", "stateDirectory"), parent)
target = pulumi.get(runtime, "target")
parent = group("RegisteredModel", "m", target=target)
model = declare("Model", "m", ("version", "modelId"), parent, target=target)
reference = {"name": "m", "version": pulumi.get(model, "version")}
for name, endpoint in inputs["LocalEndpoint"].items():
    for each in endpoint["endpoint"]["spec"]["versions"]:
        each["models"] = [reference]
    parent = group("ModelWebService", name, target=target, models=[pulumi.get(model, "modelId")])
    outputs = ("scoringUri", "swaggerUri", "primaryKey", "secondaryKey", "state")
    declare("LocalEndpoint", name, outputs, parent, target=target)
"""

KINDS = ("LocalInferenceCluster", "RegisteredModel", "ModelWebService", "LocalRuntime", "Model", "LocalEndpoint")
CHECKED = ("files", "digest", "running")
"""Inputs that the plugin's Check adds."""
PROGRAMS = {"components": COMPONENTS, "bare": PLAIN, "flat": PLAIN}


class Failed(Exception):
    """A command failed; the text is what it said."""


class Cost(NamedTuple):
    """Of one command: time by the clock, and of processors (all its processes), seconds."""

    clock: float
    processor: float


@dataclass(frozen=True)
class Stack:
    """A project with one program and a stack."""

    folder: Path
    environment: Mapping[str, str]
    settings: Mapping[str, str]

    def run(self, *arguments: str) -> str:
        """One command of the engine; its stdout."""
        done = subprocess.run(
            [str(ENGINE), *arguments, "--non-interactive"],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Failed(f"{' '.join(arguments)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def cost(self, *arguments: str) -> Cost:
        """What a command takes."""
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        self.run(*arguments)
        seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
        return Cost(seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


@contextmanager
def make_stack(name: str, program: str, settings: Mapping[str, str]) -> Iterator[Stack]:
    """A stack on a supervisor of its own that runs nothing; both gone at the end."""
    work = Path(tempfile.mkdtemp(prefix="bench-"))
    folder = work / name
    (folder / "source").mkdir(parents=True)
    (folder / "source" / "score.py").write_text("def init():\n    pass\n\n\ndef run(data):\n    return data\n")
    (folder / "model.bin").write_bytes(b"x" * 1_000_000)
    (folder / "__main__.py").write_text(program)
    project = {
        "name": name,
        "runtime": {"name": "python", "options": {"toolchain": "pip", "virtualenv": sys.prefix}},
        "plugins": {"providers": [{"name": "aks-inference", "path": str(ROOT / "provider")}]},
    }
    (folder / "Pulumi.yaml").write_text(json.dumps(project))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PULUMI_")} | {
        "PULUMI_BACKEND_URL": f"file://{work}",
        "PULUMI_HOME": str(work / "home"),
        "PULUMI_CONFIG_PASSPHRASE": "bench",
    }
    stack = Stack(folder, environment, {**settings, "state": str(work / "runtime")})
    supervisor = subprocess.Popen(
        [sys.executable, str(QUIET), stack.settings["state"], settings["port"]], stdout=subprocess.PIPE, text=True
    )
    try:
        if supervisor.stdout is None or supervisor.stdout.readline().strip() != "ready":
            raise Failed("the quiet supervisor did not start")
        stack.run("stack", "init", "dev")
        for key, value in stack.settings.items():
            stack.run("config", "set", key, value)
        yield stack
    finally:
        supervisor.terminate()
        supervisor.wait()
        shutil.rmtree(work)


def declared_inputs(preview: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Type → name → inputs of a preview's resources, as their program gave them."""
    found: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    for step in preview["steps"]:
        state = step.get("newState") or {}
        kind = str(state.get("type", "")).removeprefix("aks-inference:index:")
        if kind in found:
            inputs = {key: value for key, value in state.get("inputs", {}).items() if key not in CHECKED}
            found[kind][state["urn"].rsplit("::", 1)[-1]] = inputs
    return found


def in_turns(rounds: int, stacks: Mapping[str, Stack], *command: str) -> dict[str, Cost]:
    """What a command takes, by stack: the least of the rounds, since what else the machine does only adds."""
    costs: dict[str, list[Cost]] = {name: [] for name in stacks}
    for _ in range(rounds):
        for name, stack in stacks.items():
            costs[name].append(stack.cost(*command))
    return {
        name: Cost(round(min(c.clock for c in each), 3), round(min(c.processor for c in each), 3))
        for name, each in costs.items()
    }


def free_port() -> int:
    """A port that nobody has."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def measure(services: int = SERVICES, quick: bool = False) -> dict[str, Any]:
    """Runs the comparison. Keys: `preview_vs_bare`, `unchanged_up_vs_bare` (ratios), seconds, machine, versions."""
    rounds = QUICK_ROUNDS if quick else ROUNDS
    described = machine()
    settings = {"services": str(services), "version": version("pulumi-aks-inference")}
    # The quick run has no time for the third.
    programs = {name: program for name, program in PROGRAMS.items() if not (quick and name == "flat")}
    with ExitStack() as made:
        stacks = {
            name: made.enter_context(
                make_stack(name, program, {**settings, "port": str(free_port()), "tree": str(name == "bare").lower()})
            )
            for name, program in programs.items()
        }
        inputs = declared_inputs(json.loads(stacks["components"].run("preview", "--json")))
        for stack in stacks.values():
            own = {"port": int(stack.settings["port"]), "stateDirectory": stack.settings["state"]}
            for kind in ("LocalInferenceCluster", "LocalRuntime"):
                inputs[kind]["local"] |= own
            (stack.folder / "inputs.json").write_text(json.dumps(inputs))
        previews = in_turns(rounds, stacks, "preview", "--json")
        up = ("up", "--yes", "--skip-preview")
        for stack in stacks.values():
            stack.run(*up)
        ups = in_turns(rounds, stacks, *up)
        for stack in stacks.values():
            unchanged(stack)
    return {
        "preview_vs_bare": ratio(previews, "bare"),
        "unchanged_up_vs_bare": ratio(ups, "bare"),
        "preview_vs_flat": ratio(previews, "flat"),
        "unchanged_up_vs_flat": ratio(ups, "flat"),
        "seconds": {
            measured: {name: cost._asdict() for name, cost in costs.items()}
            for measured, costs in (("preview", previews), ("unchanged_up", ups))
        },
        "to_reach": TO_REACH,
        "services": services,
        "rounds": rounds,
        "machine": described,
        "versions": versions("pulumi", "pulumi-aks-inference", "pydantic", "grpcio"),
    }


def unchanged(stack: Stack) -> None:
    """Raises Failed when the ups that were timed had anything to do."""
    summary = json.loads(stack.run("preview", "--json"))["changeSummary"]
    if set(summary) != {"same"}:
        raise Failed(f"an unchanged stack changed: {summary}")


def ratio(costs: Mapping[str, Cost], beside: str) -> float | None:
    """Components over another, by the clock; None where that was not measured."""
    return round(costs["components"].clock / costs[beside].clock, 3) if beside in costs else None


def table(result: Mapping[str, Any]) -> str:
    """For people."""
    head = f"{result['services']} services, fastest of {result['rounds']} rounds"
    beside = [name for name in PROGRAMS if name != "components" and name in result["seconds"]["preview"]]
    lines = [f"{head:<38}{'components':>12}" + "".join(f"{name:>10}{'ratio':>8}" for name in beside)]
    for measured in ("preview", "unchanged_up"):
        for kind in Cost._fields:
            seconds = {name: cost[kind] for name, cost in result["seconds"][measured].items()}
            ours, label = seconds["components"], f"{measured.replace('_', ' ')}, {kind} time"
            cells = "".join(f"{seconds[name]:>8.2f} s{ours / seconds[name]:>8.2f}" for name in beside)
            lines.append(f"{label:<38}{ours:>10.2f} s{cells}")
    return "\n".join([*lines, f"to reach by the clock: components at most {result['to_reach']} × bare"])


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--services", type=int, default=SERVICES)
    arguments = parser.parse_args()
    try:
        result = measure(arguments.services, arguments.quick)
    except Failed as error:
        sys.exit(str(error))
    if not arguments.quick and arguments.services == SERVICES:
        save("preview", result)
    print(json.dumps(result) if arguments.json else table(result))


if __name__ == "__main__":
    main()
