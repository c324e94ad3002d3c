"""The same scenarios on the stand-in and on Azure itself, where credentials are given.

On Azure they cost money and take about an hour together: `AKS_INFERENCE_LIVE_AZURE=1`, `ARM_*` credentials of a
subscription for tests, `ARM_LOCATION_NAME` (default: westeurope), and pulumi-resource-azure-native on PATH. What a
scenario made is destroyed at its end, also where it failed.
"""

import contextlib
import os
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

LIVE = "AKS_INFERENCE_LIVE_AZURE"
NEEDED = ("ARM_CLIENT_ID", "ARM_TENANT_ID", "ARM_SUBSCRIPTION_ID")
LONGEST_S = 3600
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "aks" / "__main__.py"
SMALL = 'cluster_purpose="DevTest", tier="Free", system_pool=dict(vm_size="Standard_D2s_v5")'
OVERLAY = 'network=dict(plugin="azure", plugin_mode="overlay", pod_cidr="10.244.0.0/16")'
EXPORT = 'pulumi.export("id", cluster.cluster_id)\n'

pytestmark = pytest.mark.long


@dataclass
class Place:
    """Where the stacks are applied. Stacks are destroyed in the opposite order of their making."""

    make: Callable[[str], Any]
    environment: dict[str, str]
    live: bool
    stacks: list[Any] = field(default_factory=list)

    def stack(self, name: str) -> Any:
        """A project with a stack of its own."""
        made = self.make(f"{name}{uuid.uuid4().hex[:6]}")
        made.environment |= self.environment
        if self.live:
            # The real plugin, not the stand-in before it.
            made.environment["PATH"] = os.environ["PATH"]
            made.patience_s = LONGEST_S
        self.stacks.append(made)
        return made


def live_reason() -> str | None:
    """Why it does not run on Azure."""
    if LIVE not in os.environ:
        return f"no Azure: {LIVE}=1 with {', '.join(NEEDED)} runs it there (it costs)"
    missing = [name for name in NEEDED if name not in os.environ]
    return f"{LIVE} is set, and not: {', '.join(missing)}" if missing else None


@pytest.fixture(params=["stand-in", "azure"])
def place(request: pytest.FixtureRequest, make_stack: Callable[[str], Any], azure: Any) -> Iterator[Place]:
    from standin_http import ArmServer

    with contextlib.ExitStack() as held:
        if request.param == "azure":
            if reason := live_reason():
                pytest.skip(reason)
            given = {key: value for key, value in os.environ.items() if key.startswith(("ARM_", "AZURE_"))}
            found = Place(make_stack, given, live=True)
        else:
            server = held.enter_context(ArmServer(azure))
            found = Place(make_stack, server.environment, live=False)
        try:
            yield found
        finally:
            for stack in reversed(found.stacks):
                stack.destroy()


def test_made_changed_refused(place: Place) -> None:
    stack = place.stack("life")
    stack.program(OVERLAY, SMALL, 'vm_size="Standard_D2s_v5"')
    stack.up()
    assert set(stack.steps()) == {"same"}
    stack.program(OVERLAY, SMALL, 'vm_size="Standard_D2s_v5"', "agent_count=2")
    assert "replace" not in stack.steps()
    stack.up()
    stack.program(OVERLAY.replace("244", "245"), SMALL, 'vm_size="Standard_D2s_v5"', "agent_count=2")
    assert "network.podCidr changes from" in stack.preview(code=1)


def test_another_size_is_another_pool(place: Place) -> None:
    stack = place.stack("size")
    stack.program(OVERLAY, SMALL, 'vm_size="Standard_D2s_v5"')
    stack.up()
    stack.program(OVERLAY, SMALL, 'vm_size="Standard_D4s_v5"')
    said = stack.up()
    pool = r"AgentPool prod-infer\w+ "
    made, gone = re.search(pool + "created", said), re.search(pool + "deleting", said)
    assert made is not None
    assert gone is not None
    assert made.end() < gone.start()
    assert set(stack.steps()) == {"same"}


def test_attached_by_one_stack_only(place: Place) -> None:
    owner, first, second = place.stack("owner"), place.stack("first"), place.stack("second")
    owner.program(OVERLAY, SMALL, 'vm_size="Standard_D2s_v5"')
    (owner.project / "__main__.py").write_text((owner.project / "__main__.py").read_text() + EXPORT)
    owner.up()
    held = f'resource_id="{owner.run("stack", "output", "id").strip()}", cluster_purpose="DevTest"'
    first.program(held)
    first.up()
    assert set(first.steps()) == {"same"}
    second.program(held)
    assert "is attached already, by first" in second.preview(code=1)
    first.destroy()
    second.up()


def test_the_example(place: Place) -> None:
    stack = place.stack("example")
    (stack.project / "__main__.py").write_text(EXAMPLE.read_text())
    stack.up()
    assert set(stack.steps()) == {"same"}


def test_what_azure_refuses_is_told_and_leaves_nothing_behind(place: Place) -> None:
    """A size that no table and no region has: a warning here, refused there."""
    if not place.live:
        pytest.skip("the stand-in takes sizes that it does not know")
    stack = place.stack("refused")
    stack.program(OVERLAY, SMALL, 'vm_size="Standard_D2s_v99"', "vcpus_per_node=2")
    assert "Standard_D2s_v99" in stack.up(code=1)
