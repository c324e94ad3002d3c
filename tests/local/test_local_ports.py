"""Whose port it is."""

import re
from pathlib import Path
from typing import Any

import pytest

from aks_inference_runtime.api.client import LocalSettings, destroy, launch
from aks_inference_runtime.api.errors import Conflict


async def test_a_port_of_another_local_cluster_is_named_as_such(local: Any, tmp_path: Path) -> None:
    await local.launch()
    other = LocalSettings(name="other", state_directory=str(tmp_path / "other"), port=local.settings.port)
    try:
        says = rf"another local cluster of yours, whose state is in {re.escape(str(local.state))}; give another port"
        with pytest.raises(Conflict, match=says) as caught:
            await launch(other)
        assert "end it" not in str(caught.value)
        assert not (tmp_path / "other").exists()
    finally:
        await destroy(tmp_path / "other")
