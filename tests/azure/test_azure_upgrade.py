"""State that the first version of the component recorded is taken over without a replacement."""

import json
import shutil
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent / "recorded"
SUBNET = (
    "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/net"
    "/providers/Microsoft.Network/virtualNetworks/main/subnets/nodes"
)
PROGRAM = f"""
from aks_inference import AksInferenceCluster
RANGES = dict(service_cidr="10.0.0.0/16", dns_service_ip="10.0.0.10")
AksInferenceCluster("plain", agent_count=3)
AksInferenceCluster("inner", vm_size="Standard_D4s_v5", network=dict(plugin="azure", subnet_id="{SUBNET}", **RANGES))
AksInferenceCluster("names", vm_size="Standard_D4s_v5", vnet_resourcegroup_name="net", vnet_name="main",
                    subnet_name="nodes", **RANGES)
"""


def test_the_first_versions_state_is_taken_over(stack: Any, azure: Any, tmp_path: Path) -> None:
    shutil.copy(RECORDED / "first-version.azure.json", tmp_path / "azure" / "state.json")
    (stack.project / "__main__.py").write_text(PROGRAM)
    stack.run("stack", "import", "--file", str(RECORDED / "first-version.state.json"))
    before = len(azure.log())
    text = stack.run("preview", "--json")
    steps = json.loads(text[text.index("{") :])["steps"]
    kinds = {step["op"] for step in steps}
    assert kinds <= {"same", "create", "update"}, kinds
    stack.up()
    written = azure.log()[before:]
    assert not [line for line in written if line.startswith("DELETE")]
    assert not [line for line in written if "agentPools" in line]
    assert set(stack.steps()) == {"same"}
