"""Changes through `up` while requests are served: keys, versions, ports, a killed supervisor."""

import asyncio
import os
import signal
import socket
from typing import Any

import aiohttp
import pytest

from aks_inference_runtime.api.supervisor import ModelRegistration
from aks_inference_runtime.local.keeper import end_keepers


@pytest.mark.long
async def test_both_keys_are_rotated_without_a_failed_request(system: Any) -> None:
    try:
        async with system.load(2, "secondary-one") as load:
            await load.more(20)
            system.config("primary", "primary-two", "--secret")
            said = await system.up_async()
            assert "primary-two" not in said
            await load.more(20)
            assert [(await system.score(key=key)).status for key in ("primary-two", "primary-one")] == [200, 401]
            load.key = "primary-two"
            await load.more(20)
            system.config("secondary", "secondary-two", "--secret")
            await system.up_async()
            await load.more(20)
            assert (await system.score(key="secondary-two")).status == 200
            assert (await system.score(key="secondary-one")).status == 401
        assert load.failed == {}
    finally:
        system.config("primary", "primary-one", "--secret")
        system.config("secondary", "secondary-one", "--secret")


async def test_the_same_program_again_changes_nothing(system: Any) -> None:
    status, pids = await system.status(), sorted(system.replica_pids())
    assert set((await asyncio.to_thread(system.preview))["changeSummary"]) == {"same"}
    text = await asyncio.to_thread(system.run, "up", "--yes", "--skip-preview", "--expect-no-changes")
    assert "unchanged" in text
    after = await system.status()
    assert (after.generation, sorted(system.replica_pids())) == (status.generation, pids)


async def test_versions_come_move_and_go_without_a_failed_request(system: Any) -> None:
    """B comes at 50 %, becomes the default, A goes: nobody notices (I4)."""
    stages = [
        [("ver-a", 100, True)],
        [("ver-a", 50, True), ("ver-b", 50, False)],
        [("ver-a", 0, False), ("ver-b", 40, True)],
        [("ver-b", 100, True)],
    ]

    def program(stage: list[tuple[str, int, bool]]) -> str:
        versions = ", ".join(
            f"{{'version_name': {name!r}, 'traffic_percentile': {share}, 'is_default': {default},"
            f" 'max_request_wait_time': 5000, **common}}"
            for name, share, default in stage
        )
        return f"ControlledRolloutEndpoint('roll', target=cluster, versions=[{versions}], primary_key='roll-key')\n"

    system.write(program(stages[0]))
    await system.up_async()
    async with system.load(2, "roll-key", "roll") as load:
        for stage in stages:
            system.write(program(stage))
            await system.up_async()
            load.versions.clear()
            await load.more(60)
            # One request of each client may have begun before.
            expected = {name for name, share, default in stage if share or default}
            assert {name for name, count in load.versions.items() if count > 2} == expected
    assert load.failed == {}
    view = await system.client.get_endpoint("roll")
    assert [v.name for v in view.endpoint.spec.versions] == ["ver-b"]


async def test_a_killed_supervisor_comes_back_with_the_next_up(system: Any) -> None:
    pid, replicas = (await system.client.info()).pid, sorted(system.replica_pids())
    async with system.load(2, "primary-one") as load:
        # Else it comes back by itself; and one that runs would start its keeper anew.
        os.kill(pid, signal.SIGSTOP)
        end_keepers(system.state)
        os.kill(pid, signal.SIGKILL)
        await load.more(20)
        preview = await asyncio.to_thread(system.preview)
        changes = {s["urn"].rsplit("::", 1)[-1]: s["op"] for s in preview["steps"] if s["op"] != "same"}
        assert changes == {"local": "update"}
        await system.up_async()
        await load.more(20)
    assert load.failed == {}
    assert (await system.client.info()).pid != pid
    assert sorted(system.replica_pids()) == replicas, "what served goes on"
    assert set((await asyncio.to_thread(system.preview))["changeSummary"]) == {"same"}


async def test_a_local_deploymentconfig_gives_a_port_of_its_own(system: Any, unused_port: int) -> None:
    system.write(
        f"own = ModelWebService('own', target=cluster, primary_key='own-key-1',"
        f" deployment_config={{'computeType': 'local', 'port': {unused_port}}}, **common)\n"
        "pulumi.export('ownUri', own.scoring_uri)\n"
    )
    await system.up_async()
    uri = f"http://127.0.0.1:{unused_port}/score"
    assert uri in await asyncio.to_thread(system.run, "stack", "output", "ownUri")
    async with aiohttp.ClientSession() as session:
        for key, expected in (("own-key-1", 200), ("other", 401)):
            async with session.post(uri, json={}, headers={"authorization": f"Bearer {key}"}) as answer:
                assert answer.status == expected


async def test_a_second_stack_on_the_same_port_is_refused(system: Any, new_system: Any) -> None:
    holder = (await system.client.info()).port
    other = await asyncio.to_thread(new_system, "other", port=holder)
    other.write()
    for command in (("preview",), ("up", "--yes", "--skip-preview")):
        said = await asyncio.to_thread(other.run, *command, code=None)
        assert f"{holder} on 127.0.0.1 is that of another local cluster of yours" in said
        assert "give another port" in said
    assert (await system.score()).status == 200
    assert not (other.state / "supervisor.json").exists()


@pytest.mark.long
async def test_a_renamed_cluster_is_told_of_aliases_which_replace_it(system: Any) -> None:
    program = system.project / "__main__.py"
    state = f'"{system.state}"'
    text = program.read_text().replace('config.require("state")', state.replace("/state", "/state-of-renamed"))
    program.write_text(text.replace('LocalInferenceCluster("local"', 'LocalInferenceCluster("renamed"'))
    said = await asyncio.to_thread(system.run, "preview", code=None)
    alias = 'aliases=[pulumi.Alias(name="local")]'
    assert f'if it is this cluster under its former name "local", give this one the resource option {alias}' in said
    with_alias = f'LocalInferenceCluster("renamed", opts=pulumi.ResourceOptions({alias})'
    program.write_text(text.replace('LocalInferenceCluster("local"', with_alias))
    steps = (await asyncio.to_thread(system.preview))["steps"]
    runtime = {step["op"] for step in steps if "LocalRuntime::" in step["urn"]}
    assert "create" not in runtime
    assert any("replace" in op for op in runtime)
    assert (await system.score()).status == 200


@pytest.mark.long
async def test_what_a_killed_up_left_is_put_right_by_the_next(system: Any) -> None:
    slow = system.script("torn", "import time\ndef init():\n    time.sleep(2)\ndef run(data):\n    return 1\n")

    def program(replicas: int) -> str:
        return f"ModelWebService('torn', target=cluster, inference_config={slow}, num_replicas={replicas})\n"

    async def declared() -> int:
        (version,) = (await system.client.get_endpoint("torn")).endpoint.spec.versions
        return int(version.scaling.num_replicas)

    system.write(program(1))
    await system.up_async()
    key = await system.key("torn")
    system.write(program(2))
    process = system.start("up", "--yes", "--skip-preview")
    try:
        async with asyncio.timeout(60):
            while await declared() != 2:
                await asyncio.sleep(0.02)
    finally:
        process.kill()
        await asyncio.to_thread(process.communicate, timeout=60)
    system.write(program(1))
    steps = (await asyncio.to_thread(system.preview))["steps"]
    change = next(step for step in steps if step["urn"].endswith("LocalEndpoint::torn"))
    assert change["op"] == "update"
    assert list(change["detailedDiff"]) == ["endpoint.spec.versions[0].scaling.numReplicas"]
    said = await asyncio.to_thread(system.run, "preview")
    assert "the supervisor has another endpoint.spec.versions[0].scaling.numReplicas" in said
    await system.up_async()
    assert await declared() == 1
    assert await system.key("torn") == key
    assert set((await asyncio.to_thread(system.preview))["changeSummary"]) == {"same"}


@pytest.mark.long
async def test_the_preview_tells_of_a_supervisor_that_hangs(system: Any) -> None:
    pid = (await system.client.info()).pid
    os.kill(pid, signal.SIGSTOP)
    try:
        said = await asyncio.to_thread(system.run, "preview", "--diff")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert f"(pid {pid}) runs, but did not answer" in said
    assert f"kill -CONT {pid}" in said
    assert "true => true" not in said
    assert "+ running" in said
    assert set((await asyncio.to_thread(system.preview))["changeSummary"]) == {"same"}


async def test_a_port_of_a_stranger_is_refused_before_the_cluster_is_touched(system: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        system.config("port", str(port))
        try:
            said = await asyncio.to_thread(system.run, "preview", code=None)
            assert f"{port} on 127.0.0.1 is in use by process {os.getpid()}" in said
            assert f"{port} on 127.0.0.1 is in use" in await asyncio.to_thread(
                system.run, "up", "--yes", "--skip-preview", code=None
            )
        finally:
            system.config("port", str(system.port))
    assert (await system.score()).status == 200


async def test_models_that_do_not_exist_are_told_with_all_other_mistakes(system: Any) -> None:
    await system.client.put_model(ModelRegistration(name="ridge", source_path=str(system.project / "weights.bin")))
    system.write(
        "ModelWebService('lost', target=cluster, models=['wieghts:1'], num_replicas=-1, inference_config=inference)\n"
        "models = [model, 'weights:9', 'ridge:1', 'ridge:2']\n"
        "version = {'version_name': 'ver-a', 'inference_config': inference, 'models': models}\n"
        "ControlledRolloutEndpoint('moved', target=cluster, versions=[version])\n"
    )
    said = await asyncio.to_thread(system.run, "preview", code=1)
    assert "3 errors; nothing was changed" in said
    assert "num_replicas = -1" in said
    wrong = (
        "models[0] = \"wieghts:1\": no model 'wieghts' is stored on the target (did you mean weights?); mend the name"
    )
    assert wrong in said
    assert 'versions[0].models[3] = "ridge:2": no model ridge:2 is stored on the target (there is ridge:1)' in said
    assert "<nil>" not in said
