"""Each example for Azure twice: applied, and again without a change. Where Azure itself is given, there, too."""

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = [Path(__file__).resolve().parents[2] / "examples" / "aks"]
LIVE = "AKS_INFERENCE_LIVE_AZURE"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_twice(example: Path, stack: Any, azure: Any) -> None:
    shutil.copy(example / "__main__.py", stack.project)
    stack.up()
    before = azure.log()
    assert set(stack.steps()) == {"same"}
    stack.up()
    assert azure.log() == before


@pytest.mark.long
@pytest.mark.skipif(
    LIVE not in os.environ,
    reason=f"no Azure: {LIVE}=1, ARM_* credentials and pulumi-resource-azure-native on PATH run it there (it costs)",
)
def test_on_azure_itself(make_stack: Callable[[str], Any]) -> None:
    stack = make_stack(f"live{uuid.uuid4().hex[:8]}")
    stack.environment |= {key: value for key, value in os.environ.items() if key.startswith(("ARM_", "AZURE_"))}
    stack.environment["PATH"] = os.environ["PATH"]  # the real plugin, not the stand-in
    stack.patience_s = 3600
    size = 'vm_size="Standard_D2s_v5", cluster_purpose="DevTest"'
    network = 'network=dict(plugin="azure", plugin_mode="overlay", pod_cidr="10.244.0.0/16")'
    try:
        stack.program(network, size)
        stack.up()
        assert set(stack.steps()) == {"same"}
        stack.program(network, size, "agent_count=2")
        stack.up()
        stack.program(network.replace("244", "245"), size, "agent_count=2")
        assert "network.podCidr changes from" in stack.preview(code=1)
    finally:
        stack.destroy()
