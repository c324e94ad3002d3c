"""One HAProxy process and its record."""

import asyncio
import json
import os

import psutil
import pytest

from aks_inference_runtime.api.errors import OperationFailed
from aks_inference_runtime.router.binary import find_haproxy
from aks_inference_runtime.router.paths import Paths
from aks_inference_runtime.router.process import HaproxyProcess


async def test_the_record_names_one_process_only(tmp_path):
    """A reused pid is not taken for HAProxy."""
    process = HaproxyProcess(Paths(tmp_path, tmp_path), "p0", find_haproxy())
    for record in ({"pid": os.getpid(), "mark": "other"}, {"pid": "x"}, {}, [], {"pid": 2**22 + 1, "mark": "other"}):
        (tmp_path / "p0.json").write_text(json.dumps(record))
        assert not await process.attach()


async def test_one_that_was_being_started_is_ended_by_the_next_agent(tmp_path):
    """An agent may die before its process answers: it would keep the port."""
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 600\n")
    slow.chmod(0o700)
    paths = Paths(tmp_path, tmp_path)
    starting = asyncio.create_task(HaproxyProcess(paths, "p1", str(slow)).start("# none\n"))
    async with asyncio.timeout(5):
        while not paths.starting("p1").exists():
            await asyncio.sleep(0.01)
    pid = json.loads(paths.starting("p1").read_bytes())["pid"]
    assert psutil.pid_exists(pid)
    later = HaproxyProcess(paths, "p1", str(slow))
    assert not await later.attach()
    await later.stop()
    with pytest.raises(OperationFailed):
        await starting
    assert not psutil.pid_exists(pid)
