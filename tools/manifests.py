"""Writes deploy/: what InferenceRuntime declares, for those who apply it with other tools; `--check` only compares.

The image's name stands in for the one that you built.
"""

import json
import sys
from pathlib import Path

import yaml

from aks_inference.inference_runtime.access import accounts, policies
from aks_inference.inference_runtime.monitoring import dashboard, monitoring, rules
from aks_inference.inference_runtime.spec import plan_runtime
from aks_inference.inference_runtime.workloads import foundation, priority, workloads

FOLDER = Path(__file__).resolve().parents[1] / "deploy"
IMAGE = "aks-inference-runtime:latest"


def contents() -> dict[str, str]:
    """File name → text."""
    plan, findings = plan_runtime("runtime", {"image": IMAGE})
    if plan is None:
        raise SystemExit(f"the defaults are refused: {findings}")
    space, definition = foundation(plan)
    objects = [space, *accounts(plan), *policies(plan), priority(plan), *workloads(plan), *monitoring(plan.namespace)]
    return {
        "crd.yaml": yaml.safe_dump(definition, sort_keys=False, width=110),
        "runtime.yaml": yaml.safe_dump_all(objects, sort_keys=False, width=110),
        "grafana-dashboard.json": json.dumps(dashboard(), indent=1, sort_keys=True) + "\n",
        "alerts.yaml": yaml.safe_dump(rules(), sort_keys=False, width=110),
    }


def main(arguments: list[str]) -> int:
    """Exit status 1 where a file is not what it would be written as."""
    stale = []
    for name, text in contents().items():
        path = FOLDER / name
        if path.exists() and path.read_text() == text:
            continue
        stale.append(name)
        if "--check" not in arguments:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    if "--check" in arguments and stale:
        print(f"deploy/ is stale: {', '.join(stale)}; run `python tools/manifests.py`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
