"""What users do wrong and what breaks under them.

For each input that the product must survive the tests that cover it. Those of this module see the whole system, the
others its parts, with more cases. A test holds this table true.

=============================================  ====================================================================
entry script that does not exist               test_scripts_that_cannot_work_are_refused_at_preview
                                               tests/unit/test_rules_code.py::test_files
entry script that does not parse               test_scripts_that_cannot_work_are_refused_at_preview
                                               tests/unit/test_rules_code.py::test_what_the_server_would_refuse
                                               tests/local/test_local_refusals.py::test_a_script_that_cannot_start_fails_with_its_log
entry script without run                       test_scripts_that_cannot_work_are_refused_at_preview
                                               tests/unit/test_rules_code.py::test_what_the_server_would_refuse
entry script that throws in init               test_a_script_that_throws_in_init_fails_alone_with_its_log
                                               tests/local/test_supervisor.py::test_a_bad_new_version_leaves_the_old_one_serving
                                               tests/local/test_local_lifecycle.py::test_nothing_of_a_failed_version_reaches_a_request
model path missing or outside                  test_model_paths_that_are_missing_or_lead_outside
                                               tests/unit/test_rules_model.py::test_a_broken_rule
                                               tests/unit/test_rules_model.py::test_a_link_that_leads_outside_of_the_model
                                               tests/local/test_local_stored.py::test_bad_models
port in use                                    test_a_port_in_use_is_named_with_its_holder
                                               tests/system/test_changes.py::test_a_second_stack_on_the_same_port_is_refused
                                               tests/local/test_local_refusals.py::test_a_port_in_use_is_named_with_its_holder
model server that never gets healthy           test_a_server_that_never_gets_healthy_is_given_up
                                               tests/local/test_local_refusals.py::test_a_server_that_never_gets_healthy_is_given_up
replica killed under load                      test_a_replica_killed_under_load
                                               tests/local/test_local_cluster.py::test_a_replica_killed_under_load_is_replaced
                                               tests/router/test_router_faults.py::test_a_killed_replica_under_load
router killed under load                       test_the_router_killed_under_load
                                               tests/router/test_router_faults.py::test_haproxy_killed_under_load
                                               tests/router/test_router_faults.py::test_a_killed_haproxy_starts_with_reduced_caps
full disk, the engine's state                  test_full_disks
                                               tests/engine/test_engine_runs.py::test_a_disk_that_is_full_in_the_middle_leaves_the_last_state_whole
                                               tests/engine/test_engine_backend.py::test_a_disk_that_fails_leaves_the_old_state_whole
full disk, the supervisor's state              test_full_disks
                                               tests/local/test_local_cluster.py::test_a_full_disk_is_told_and_changes_nothing
damaged or newer state of the engine           test_a_damaged_or_newer_state_of_the_engine
                                               tests/engine/test_engine_runs.py::test_a_damaged_or_newer_state_is_not_touched
                                               tests/engine/test_engine_backend.py::test_a_state_that_cannot_be_read_is_refused
damaged or newer state of the supervisor       test_a_damaged_or_newer_state_of_the_supervisor
                                               tests/local/test_local_refusals.py::test_a_damaged_or_newer_state_file_is_refused_and_nothing_destroyed
two ups at once                                test_two_ups_at_once
                                               tests/engine/test_engine_runs.py::test_of_two_at_once_one_is_refused
                                               tests/engine/test_engine_locks.py::test_of_many_at_once_exactly_one_wins
Ctrl-C in the middle of an apply               test_ctrl_c_in_the_middle_of_an_apply
                                               tests/engine/test_engine_runs.py::test_a_stopped_run_keeps_what_it_made
                                               tests/quickstart/test_quickstart.py::test_ctrl_c_in_the_middle_leaves_nothing
names at every limit                           test_names_at_every_limit
                                               tests/unit/test_rules_service.py::test_names_of_services
                                               tests/unit/test_rules_model.py::test_names
names beyond every limit                       test_names_beyond_every_limit
                                               tests/local/test_local_refusals.py::test_bad_declarations_are_refused_at_once
                                               tests/engine/test_engine_backend.py::test_names_that_are_none
body of 101 MB, with and without its length    tests/system/test_bad_traffic.py::test_a_body_of_101_megabytes
                                               tests/router/test_router_answers.py::test_bodies_above_the_limit
client that leaves while its request runs      tests/system/test_bad_traffic.py::test_leaving_while_a_request_runs
                                               tests/router/test_router_answers.py::test_a_client_that_leaves_keeps_its_slot
                                               tests/router/test_router_faults.py::test_leaving_clients_under_load
client that leaves while its request waits     tests/system/test_bad_traffic.py::test_leaving_while_requests_wait
                                               tests/router/test_router_faults.py::test_leaving_clients_under_load
slow clients that hold connections             tests/system/test_bad_traffic.py::test_a_slow_loris
                                               tests/router/test_router_answers.py::test_slow_clients_get_408
10,000 wrong keys                              tests/system/test_bad_traffic.py::test_ten_thousand_wrong_keys
                                               tests/router/test_router_faults.py::test_ten_thousand_wrong_keys
=============================================  ====================================================================
"""

import ast
import asyncio
import contextlib
import os
import re
import signal
import socket
from pathlib import Path
from typing import Any

import psutil
import pytest
from small_disks import SmallDisks

from aks_inference_runtime.api.status import ServiceState

ROOT = Path(__file__).resolve().parents[2]


def test_every_test_of_the_table_exists() -> None:
    table = re.findall(r"^.{47}(?:(tests/\S+)::)?(test_\w+)$", __doc__ or "", re.M)
    inputs = [line for line in (__doc__ or "").splitlines() if re.match(r"\w.*  +tests?[_/]", line)]
    assert len(inputs) >= 22
    assert len(table) > 50
    for file, name in table:
        tree = ast.parse((ROOT / file if file else Path(__file__)).read_text())
        assert name in {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}


# --- what is refused at preview


def refused(system: Any, *said: str) -> None:
    """Neither preview nor up does anything; all is said at once."""
    before = system.declared()
    for command in (("preview",), ("up", "--yes", "--skip-preview")):
        text = system.run(*command, code=1)
        for part in (*said, "nothing was changed"):
            assert part in text, f"{part!r} is not in\n{text}"
    assert system.declared() == before


async def test_scripts_that_cannot_work_are_refused_at_preview(system: Any) -> None:
    scripts = {
        "gone": "{'entry_script': 'none.py', 'source_directory': 'source'}",
        "torn": system.script("torn", "def run(data:\n"),
        "runless": system.script("runless", "def init():\n    pass\n"),
    }
    system.write("".join(f"ModelWebService({n!r}, target=cluster, inference_config={c})\n" for n, c in scripts.items()))
    await asyncio.to_thread(
        refused, system, "3 errors", "none.py", "does not exist", "does not parse: line 1", "has no function run()"
    )
    assert [view.status.name for view in await system.client.endpoints()] == ["steady"]
    assert (await system.score()).status == 200


async def test_model_paths_that_are_missing_or_lead_outside(system: Any) -> None:
    folder = system.project / "folder"
    folder.mkdir()
    (folder / "secret").symlink_to("/etc/passwd")
    system.write(
        "RegisteredModel('gone', target=cluster, model_path='nowhere.bin')\n"
        "RegisteredModel('outside', target=cluster, model_path='source', child_paths=['../weights.bin'])\n"
        "RegisteredModel('linked', target=cluster, model_path='folder')\n"
    )
    await asyncio.to_thread(
        refused, system, "nowhere.bin", "lies outside of model_path", "leads outside of the model (/etc/passwd)"
    )
    assert [model.name for model in await system.client.models()] == ["weights"]


async def test_names_beyond_every_limit(system: Any) -> None:
    system.write(
        f"RegisteredModel('m', target=cluster, model_path='weights.bin', model_name={'m' * 256!r})\n"
        "RegisteredModel('n', target=cluster, model_path='weights.bin', model_name='no/slash')\n"
        + "".join(
            f"ModelWebService('s{number}', target=cluster, service_name={name!r}, **common)\n"
            for number, name in enumerate(["ab", "a" * 33, "Upper", "1st", "end-", "line\n"])
        )
        + "ControlledRolloutEndpoint('r', target=cluster, endpoint_name='x' * 33,"
        " versions=[{'version_name': 'v' * 33, **common}])\n"
    )
    await asyncio.to_thread(refused, system, "10 errors", "1 to 255 characters", "3 to 32 characters", "line\\n")


# --- what fails while it is applied


async def test_names_at_every_limit(system: Any) -> None:
    longest = "a" + "-" * 30 + "9"
    system.write(
        f"long = RegisteredModel('long', target=cluster, model_path='weights.bin', model_name={'M' * 255!r})\n"
        f"ControlledRolloutEndpoint('r', target=cluster, endpoint_name={longest!r}, primary_key='long-key',"
        f" versions=[{{'version_name': {longest!r}, **common, 'models': [long]}}])\n"
        "ModelWebService('abc', target=cluster, primary_key='long-key', **common)\n"
    )
    await system.up_async()
    assert (await system.client.get_model("M" * 255, 1)).version == 1
    for name in (longest, "abc"):
        assert (await system.score(name=name, key="long-key")).status == 200
    assert any([line async for line in system.client.logs(longest)])


async def test_a_script_that_throws_in_init_fails_alone_with_its_log(system: Any) -> None:
    broken = system.script(
        "broken", "def init():\n    raise RuntimeError('no weights here')\ndef run(data):\n    pass\n"
    )
    system.write(
        f"ModelWebService('broken', target=cluster, inference_config={broken}, num_replicas=1)\n"
        "ModelWebService('beside', target=cluster, primary_key='long-key', **common)\n"
    )
    async with system.load(1, "primary-one") as load:
        # The log of the script holds its traceback, which is what its author needs.
        said = await asyncio.to_thread(system.run, "up", "--yes", "--skip-preview", code=1, script_fails=True)
    assert "RuntimeError: no weights here" in said
    assert load.failed == {}
    assert (await system.status("broken")).state is ServiceState.FAILED
    await asyncio.to_thread(system.run, "up", "--yes", "--skip-preview", code=1, script_fails=True)
    assert (await system.score(name="beside", key="long-key")).status == 200
    # Mended, the next up is enough.
    system.script("broken", "def init():\n    pass\ndef run(data):\n    return 1\n")
    await system.up_async()
    assert (await system.status("broken")).state is ServiceState.HEALTHY


async def test_a_server_that_never_gets_healthy_is_given_up(system: Any) -> None:
    stuck = system.script("stuck", "import time\ndef init():\n    time.sleep(600)\ndef run(data):\n    pass\n")
    system.write(
        f"ModelWebService('stuck', target=cluster, inference_config={stuck}, num_replicas=1,"
        " initial_delay_seconds=1, period_seconds=1, failure_threshold=1)\n"
    )
    said = await system.up_async(code=1)
    assert "never healthy within 2 s" in said
    assert (await system.score()).status == 200


async def test_a_port_in_use_is_named_with_its_holder(system: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        system.write(
            f"ModelWebService('own', target=cluster, deployment_config={{'computeType': 'local', 'port': {port}}},"
            " **common)\n"
        )
        said = await system.up_async(code=1)
        assert f"port {port} on 127.0.0.1 is in use by process {os.getpid()}" in said
    assert (await system.score()).status == 200
    await system.up_async()
    assert (await system.status("own")).state is ServiceState.HEALTHY


async def test_two_ups_at_once(system: Any) -> None:
    system.write("ModelWebService('extra', target=cluster, **common)\n")
    first = system.start("up", "--yes", "--skip-preview")
    locks = system.backend / ".pulumi" / "locks"
    async with asyncio.timeout(30):
        while not list(locks.rglob("*.json")):
            await asyncio.sleep(0.01)
    said = await asyncio.to_thread(system.run, "up", "--yes", "--skip-preview", code=255)
    assert f"(pid {first.pid})" in said
    out, err = await asyncio.to_thread(first.communicate, timeout=120)
    assert first.returncode == 0, out + err
    assert (await system.status("extra")).state is ServiceState.HEALTHY


@pytest.mark.long
async def test_ctrl_c_in_the_middle_of_an_apply(system: Any) -> None:
    slow = system.script("slow", "import time\ndef init():\n    time.sleep(4)\ndef run(data):\n    return 1\n")
    system.write(
        f"ModelWebService('slow', target=cluster, inference_config={slow}, num_replicas=1, primary_key='long-key')\n"
    )
    process = system.start("up", "--yes", "--skip-preview")
    async with asyncio.timeout(60):
        while "slow" not in [view.status.name for view in await system.client.endpoints()]:
            await asyncio.sleep(0.02)
    # As a terminal sends it: to everything that runs in its foreground, the program and the plugin too.
    os.killpg(process.pid, signal.SIGINT)
    out, err = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode not in (0, None), out + err
    assert "Traceback" not in out + err
    assert not list((system.backend / ".pulumi" / "locks").rglob("*.json"))
    state = system.state_file.read_text()
    assert "::slow" in state, "nothing that was begun is lost"
    assert (await system.score()).status == 200
    await system.up_async()
    assert (await system.score(name="slow", key="long-key")).status == 200
    assert (await system.status("slow")).generation == 1, "the same endpoint, not declared again"
    assert set((await asyncio.to_thread(system.preview))["changeSummary"]) == {"same"}


# --- what breaks while it serves


async def test_a_replica_killed_under_load(system: Any) -> None:
    before = system.replica_pids()
    async with system.load(4, "primary-one") as load:
        await load.more(50)
        os.kill(before[0], signal.SIGKILL)
        async with asyncio.timeout(30):
            while before[0] in system.replica_pids():
                await asyncio.sleep(0.05)
        await system.until(lambda s: s.versions[0].replicas_ready == 2)
        await load.more(50)
    assert set(load.failed) <= {(502, "replica-lost")}
    assert sum(load.failed.values()) <= 1, "what ran there"


async def test_the_router_killed_under_load(system: Any) -> None:
    def router() -> psutil.Process:
        (run,) = system.run_directories()
        (found,) = [
            p for p in system.processes([run]) if "haproxy" in p.name() and f"{run}/router/p0.cfg" in p.cmdline()
        ]
        return found

    async with system.load(4, "primary-one") as load:
        await load.more(50)
        before = await asyncio.to_thread(router)
        before.kill()
        await load.more(200)
        assert (await asyncio.to_thread(router)).pid != before.pid
    # What was on its way through it, and attempts while nobody listened.
    assert {status for status, _ in load.failed} <= {"reset"}
    assert (await system.score(key="wrong")).status == 401


# --- what is kept on disk


@pytest.mark.parametrize(
    "damage", ["", '{"version": 3, "checkpoint": {"latest": ', '{"version": 99, "checkpoint": {}}'], ids=str
)
async def test_a_damaged_or_newer_state_of_the_engine(system: Any, damage: str) -> None:
    good = system.state_file.read_bytes()
    system.state_file.write_text(damage)
    try:
        for command in (["up", "--yes", "--skip-preview"], ["destroy", "--yes", "--skip-preview"]):
            said = await asyncio.to_thread(system.run, *command, code=255)
            assert str(system.state_file) in said
            assert system.state_file.read_text() == damage
        assert (await system.score()).status == 200
    finally:
        system.state_file.write_bytes(good)


@pytest.mark.long
@pytest.mark.parametrize(
    ("which", "damage", "says"),
    [
        ("supervisor.json", "{", "is damaged"),
        ("endpoints/steady.json", '{"recordVersion": 99}', "newer version"),
    ],
)
async def test_a_damaged_or_newer_state_of_the_supervisor(system: Any, which: str, damage: str, says: str) -> None:
    pid, replicas = (await system.client.info()).pid, sorted(system.replica_pids())
    file = system.state / which
    good = file.read_bytes()
    async with system.load(1, "primary-one") as load:
        os.kill(pid, signal.SIGKILL)
        file.write_text(damage)
        try:
            said = await system.up_async(code=1)
            assert says in said
            assert str(file) in said
            assert "nothing was changed" in said
            assert file.read_text() == damage
        finally:
            file.write_bytes(good)
        await load.more(10)
        await system.up_async()
    assert load.failed == {}
    assert sorted(system.replica_pids()) == replicas


@pytest.fixture
def small_disks(tmp_path: Path) -> Any:
    """Mounts a file system of 1 MB on a folder."""
    disks = SmallDisks()

    def mount(folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True)
        disks.mount(folder, 1024)

    try:
        yield mount
    finally:
        disks.unmount()


@pytest.mark.long
async def test_full_disks(tmp_path: Path, small_disks: Any, new_system: Any) -> None:
    """The engine's state on one, the supervisor's on another."""
    for name in ("backend", "state"):
        small_disks(tmp_path / "other" / name)
    system = await asyncio.to_thread(new_system, "other")
    system.steady = "ModelWebService('steady', target=cluster, primary_key='primary-one', **common)\n"
    system.write()
    await system.up_async()
    before = system.declared()
    for folder in (system.backend, system.state):
        system.write("ModelWebService('more', target=cluster, primary_key='long-key', **common)\n")
        filler = folder / "filler"
        fill(filler)
        said = await asyncio.to_thread(system.run, "up", "--yes", "--skip-preview", code=None)
        assert re.search("disk is full|no room is left on the disk", said)
        assert (await system.score()).status == 200
        assert set(before) <= set(system.declared())
        filler.unlink()
        await system.up_async()
        assert (await system.score(name="more", key="long-key")).status == 200
        assert set((await asyncio.to_thread(system.preview))["changeSummary"]) == {"same"}
        system.write()
        await system.up_async()
    # A disk may be full of what is to be destroyed (the stack is, after the test).
    fill(system.state / "logs" / "filler")


def fill(file: Path) -> None:
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as opened:
        while True:
            opened.write(b"0" * 512)
