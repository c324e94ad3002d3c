"""The pure parts and the stores, one by one."""

import asyncio
import errno
import itertools
import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aks_inference_runtime.api.endpoint import Code, EndpointVersion, ModelReference, Resources
from aks_inference_runtime.api.errors import Conflict, InvalidInput, NotFound, OperationFailed
from aks_inference_runtime.api.status import ServiceState
from aks_inference_runtime.api.supervisor import ModelRegistration, SupervisorRecord
from aks_inference_runtime.local import logs
from aks_inference_runtime.local.capacity import Machine, room, why_not
from aks_inference_runtime.local.environments import EnvironmentStore
from aks_inference_runtime.local.files import write_text
from aks_inference_runtime.local.models import ModelStore
from aks_inference_runtime.local.replica import inherited
from aks_inference_runtime.local.states import endpoint_state, version_state
from aks_inference_runtime.local.template import rollout, template_of
from aks_inference_runtime.scoring.requirements import SERVER_REQUIREMENT, canonical, environment_hash
from aks_inference_runtime.scoring.server import command, model_directory, variables

CODE = Code(source_directory="/home/me/source", entry_script="app/score.py", digest="sha256:1")


def version(**settings: Any) -> EndpointVersion:
    return EndpointVersion.model_validate({"name": "ver-a", "is_default": True, "code": CODE} | settings)


# --- environments


@pytest.mark.parametrize(
    ("given_lines", "expected"),
    [
        ([], (SERVER_REQUIREMENT,)),
        (["Scikit_Learn == 1.9", "numpy>=2,<3"], (SERVER_REQUIREMENT, "numpy<3,>=2", "scikit-learn==1.9")),
        (["numpy<3,>=2", "scikit-learn==1.9"], (SERVER_REQUIREMENT, "numpy<3,>=2", "scikit-learn==1.9")),
        (["azureml-defaults>=1.0.45"], ("azureml-defaults>=1.0.45",)),
        (["AzureML.Inference_Server-HTTP==1.5.1 # pinned", "", "# no"], ("azureml-inference-server-http==1.5.1",)),
        (
            ["--pre", "x[B,a]==1 ; python_version<'4'"],
            ("--pre", SERVER_REQUIREMENT, 'x[a,b]==1 ; python_version < "4"'),
        ),
    ],
)
def test_requirements_have_one_spelling(given_lines: list[str], expected: tuple[str, ...]) -> None:
    assert canonical(given_lines) == expected


def test_all_bad_requirement_lines_are_told_at_once() -> None:
    with pytest.raises(InvalidInput) as refused:
        canonical(["numpy ==", "fine", "a b"])
    assert "'numpy =='" in str(refused.value)
    assert "'a b'" in str(refused.value)


@given(st.permutations(["numpy==2", "pandas>=1", "scipy", "x[a,b]<3"]))
def test_order_does_not_count(lines: list[str]) -> None:
    expected = environment_hash(canonical(["numpy==2", "pandas>=1", "scipy", "x[a,b]<3"]), "3.11", "linux-x86_64")
    assert environment_hash(canonical(lines), "3.11", "linux-x86_64") == expected
    assert environment_hash(canonical(lines), "3.12", "linux-x86_64") != expected


def wheel(folder: Path) -> str:
    """A requirement that installs without an index: a package with the server's name and nothing in it."""
    name = "azureml_inference_server_http-1.5.1"
    path = folder / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("nothing_at_all.py", "")
        info = f"{name}.dist-info"
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: azureml-inference-server-http\nVersion: 1.5.1\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return f"azureml-inference-server-http @ {path.as_uri()}"


async def test_two_builds_of_one_environment_happen_once(tmp_path: Path) -> None:
    told: list[str] = []
    stores = [EnvironmentStore(tmp_path / "cache") for _ in range(2)]
    requirement = wheel(tmp_path)
    first, second = await asyncio.gather(*(store.get([requirement], told.append) for store in stores))
    assert first == second
    assert first.server_version == "1.5.1"
    assert first.python.exists()
    assert sum(line.startswith("builds Python environment") for line in told) == 1
    assert any("waits for another build" in line for line in told)
    told.clear()
    assert await stores[0].get([requirement], told.append) == first
    assert told == []


async def test_a_cache_that_cannot_be_made_says_what_it_is_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    root = tmp_path / "file" / "cache"
    with pytest.raises(OperationFailed, match=r"Python environments of scoring servers .* XDG_CACHE_HOME") as caught:
        await EnvironmentStore(root).get((), lambda _: None)
    assert str(caught.value).startswith(f"{root} cannot be made: Not a directory")


async def test_a_build_that_was_cut_off_is_begun_anew(tmp_path: Path) -> None:
    store = EnvironmentStore(tmp_path / "cache")
    requirement = wheel(tmp_path)
    started = asyncio.Event()
    build = asyncio.create_task(store.get([requirement], lambda _: started.set()))
    await started.wait()
    build.cancel()
    with pytest.raises(asyncio.CancelledError):
        await build
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]
    assert (await store.get([requirement], lambda _: None)).server_version == "1.5.1"


# --- the scoring server


def test_where_models_are() -> None:
    one, two = ModelReference(name="m", version=3), ModelReference(name="n", version=1)
    assert model_directory(Path("/app"), [one]) == Path("/app/azureml-models/m/3")
    assert model_directory(Path("/app"), [one, two]) == model_directory(Path("/app"), []) == Path("/app/azureml-models")


def test_variables_of_a_replica() -> None:
    made = version(
        requests={"replica_max_concurrent_requests": 3, "scoring_timeout_ms": 700_000},
        environment={"environment_variables": {"MINE": "1", "AML_APP_ROOT": "/elsewhere"}},
        resources={"cpu_cores": 1.5},
    )
    found = variables("svc", made, Path("/app"), "1.5.1")
    expected = {
        "AML_APP_ROOT": "/app",
        "AZUREML_ENTRY_SCRIPT": "source/app/score.py",
        "AZUREML_SOURCE_DIRECTORY": "source",
        "AZUREML_MODEL_DIR": "/app/azureml-models",
        "WORKER_COUNT": "3",
        "SCORING_TIMEOUT_MS": "701000",
        "WORKER_TIMEOUT": "730",
        "OMP_NUM_THREADS": "2",
        "MINE": "1",
        "HTTP_X_MS_SERVER_VERSION": "azmlinfsrv/1.5.1",
    }
    assert found.items() >= expected.items()
    alone = made.model_copy(update={"code": Code(source_directory=None, entry_script="/a/b/s.py", digest="sha256:2")})
    assert variables("svc", alone, Path("/app"))["AZUREML_ENTRY_SCRIPT"] == "s.py"
    assert "AZUREML_SOURCE_DIRECTORY" not in variables("svc", alone, Path("/app"))


def test_the_server_has_a_worker_per_request_and_does_not_kill_long_starts_or_scores() -> None:
    arguments = command(Path("/env/bin/python"), "fd://3", version(requests={"replica_max_concurrent_requests": 4}))
    assert arguments[arguments.index("--workers") + 1] == "4"
    assert int(arguments[arguments.index("--timeout") + 1]) > 340
    assert arguments[arguments.index("--bind") + 1] == "fd://3"


def test_a_replica_gets_none_of_the_supervisors_other_variables() -> None:
    given_variables = {"PATH": "/bin", "LC_ALL": "C", "PULUMI_CONFIG_PASSPHRASE": "secret", "PIP_INDEX_URL": "u:p@h"}
    assert inherited(given_variables) == {"PATH": "/bin", "LC_ALL": "C"}


# --- templates and rollouts


@pytest.mark.parametrize(
    "same",
    [
        {"traffic_percentile": 20},
        {"is_default": False},
        {"scaling": {"autoscale_max_replicas": 3}},
        {"requests": {"max_request_wait_time": 9}},
        {"tags": {"a": "b"}},
        {"description": "x"},
        {"code": CODE.model_copy(update={"source_directory": "/elsewhere/source"})},
        {"environment": {"name": "another name"}},
    ],
)
def test_what_changes_without_new_replicas(same: dict[str, Any]) -> None:
    assert template_of(version(**same), "e") == template_of(version(), "e")


@pytest.mark.parametrize(
    "other",
    [
        {"models": [{"name": "m", "version": 2}]},
        {"code": CODE.model_copy(update={"digest": "sha256:9"})},
        {"environment": {"environment_variables": {"A": "1"}}},
        {"requests": {"replica_max_concurrent_requests": 2}},
        {"requests": {"scoring_timeout_ms": 9}},
        {"resources": {"cpu_cores": 2}},
    ],
)
def test_what_needs_new_replicas(other: dict[str, Any]) -> None:
    assert template_of(version(**other), "e") != template_of(version(), "e")
    assert template_of(version(), "other environment") != template_of(version(), "e")


@given(st.integers(0, 20), st.integers(0, 20))
def test_a_rollout_ends_and_never_has_too_few_or_too_many(wanted: int, old: int) -> None:
    new = 0
    for _ in range(100):
        new_wanted, keep = rollout(wanted, new, old)
        assert new_wanted <= wanted
        assert min(old, keep) + new >= min(old + new, wanted), "as many serve as before, or as many as wanted"
        assert min(old, keep) + new_wanted <= wanted + 1
        old, new = min(old, keep), new_wanted
        if old == 0 and new == wanted:
            return
    raise AssertionError(f"not done: {old} old, {new} new of {wanted}")


# --- states


@pytest.mark.parametrize(
    ("given_facts", "state"),
    [
        ({"failed": True, "ready": 2, "settled": False}, ServiceState.FAILED),
        ({"unschedulable": True, "settled": False}, ServiceState.UNSCHEDULABLE),
        ({"unschedulable": True, "ready": 1}, ServiceState.HEALTHY),
        ({"unschedulable": True, "ready": 1, "settled": False}, ServiceState.UNSCHEDULABLE),
        ({"settled": False}, ServiceState.TRANSITIONING),
        ({"ready": 0}, ServiceState.TRANSITIONING),
        ({"ready": 0, "troubled": True}, ServiceState.UNHEALTHY),
        ({"ready": 1, "troubled": True}, ServiceState.HEALTHY),
        ({"ready": 0, "wanted": 0, "troubled": True}, ServiceState.HEALTHY),
        ({"troubled": True, "settled": False}, ServiceState.TRANSITIONING),
        ({"unschedulable": True}, ServiceState.UNSCHEDULABLE),
        ({"ready": 0, "wanted": 0}, ServiceState.HEALTHY),
        ({"ready": 1}, ServiceState.HEALTHY),
    ],
)
def test_version_states(given_facts: dict[str, Any], state: ServiceState) -> None:
    facts = {
        "failed": False,
        "unschedulable": False,
        "ready": 0,
        "wanted": 1,
        "settled": True,
        "troubled": False,
        **given_facts,
    }
    assert version_state(**facts) is state


def test_an_endpoint_is_as_bad_as_its_worst_version() -> None:
    order = [
        ServiceState.HEALTHY,
        ServiceState.TRANSITIONING,
        ServiceState.UNHEALTHY,
        ServiceState.UNSCHEDULABLE,
        ServiceState.FAILED,
    ]
    for better, worse in itertools.combinations(order, 2):
        assert endpoint_state([better, worse, better]) is worse


# --- capacity


@pytest.mark.parametrize(
    ("used", "request_", "expected"),
    [
        ([], {}, 20),
        ([{}] * 19, {}, 1),
        ([{}] * 20, {}, 0),
        ([], {"cpu_cores": 3}, 0),
        ([], {"memory_gb": 9}, 0),
        ([{"memory_gb": 6}], {"memory_gb": 1}, 2),
        ([], {"gpu_cores": 1}, 1),
        ([{"gpu_cores": 1}], {"gpu_cores": 1}, 0),
    ],
)
def test_room(used: list[dict[str, Any]], request_: dict[str, Any], expected: int) -> None:
    total = Machine(cpu_cores=2, memory_gb=16 if not any(used) and not request_ else 8, gpu_cores=1)
    taken = [Resources(**({"memory_gb": 0.1} | one)) for one in used]
    assert room(total, taken, Resources(**({"memory_gb": 0.1} | request_))) == expected


def test_why_not_has_the_figures() -> None:
    text = why_not(Machine(2, 8, 0), [Resources(cpu_cores=1.5)], Resources(cpu_cores=1, gpu_cores=1))
    assert "asks for 1 cores" in text
    assert "2 cores 1.5 are taken" in text
    assert "1 GPU, the machine has 0" in text


# --- files


def test_a_failed_write_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_text(path, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OperationFailed, match=r"a\.json .*disk is full"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_socket_is_short_whatever_the_state_directory() -> None:
    record = SupervisorRecord.model_validate(
        {"settings": {"name": "n", "stateDirectory": "/" + "x" * 300}, "runDirectory": "/tmp/aks-inf-12345678"}
    )
    assert len(str(record.socket)) < 108


@pytest.mark.parametrize("collapse", [True, False])
def test_a_log_is_cut_and_its_writer_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collapse: bool) -> None:
    if not collapse:
        monkeypatch.setattr(logs, "_fallocate", None)
    path = tmp_path / "r.log"
    lines = [f"line {number}" for number in range(3_000)]
    with path.open("ab", buffering=0) as writer:
        writer.write("".join(f"{line}\n" for line in lines[:2_000]).encode())
        logs.rotate(path, max_bytes=1_000_000)
        assert not path.with_name("r.log.1").exists()
        logs.rotate(path, max_bytes=10_000)
        assert path.stat().st_size <= path.stat().st_blksize
        writer.write("".join(f"{line}\n" for line in lines[2_000:]).encode())
    assert logs.tail(path, 3_000) == lines, "each once, also the one that the cut goes through"
    assert logs.tail(path, 2) == lines[-2:]


def collapses(folder: Path) -> bool:
    """Whether the file system can take blocks out of a file."""
    path = folder / "probe.log"
    path.write_bytes(b"x" * 100_000)
    logs.rotate(path, max_bytes=1)
    return 0 < path.stat().st_size < 100_000


def test_no_line_is_lost_or_told_twice_however_often_it_is_cut(tmp_path: Path) -> None:
    if not collapses(tmp_path):
        pytest.skip("the file system cannot take blocks out of a file")
    path = tmp_path / "r.log"
    path.touch()
    total = 60_000
    program = (
        "import sys, time\n"
        f"for n in range({total}):\n"
        "    sys.stdout.write('line %d\\n' % n)\n"
        "    if n % 200 == 0:\n"
        "        sys.stdout.flush()\n"
        "        time.sleep(0.005)\n"
    )
    cuts = 0

    async def followed() -> list[str]:
        found = []
        paths = lambda: {"a/r": path}  # noqa: E731 - a stand-in for LogPaths
        async for line in logs.follow(paths, 0, endless=True):  # type: ignore[arg-type]
            found.append(line)
            if line == f"line {total - 1}":
                break
        return found

    async def both() -> list[str]:
        nonlocal cuts
        reading = asyncio.create_task(followed())
        await asyncio.sleep(0)  # it knows the file before the first line
        with path.open("ab") as output:
            writer = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=output)
        try:
            while not reading.done():
                before = path.stat().st_size
                # Not twice before the follower looked: the file before the last cut is kept, no older one.
                await asyncio.to_thread(logs.rotate, path, 50_000)
                cuts += path.stat().st_size < before
                await asyncio.sleep(0.25)
        finally:
            if writer.returncode is None:
                writer.kill()
            await writer.wait()
        return await reading

    found = asyncio.run(asyncio.wait_for(both(), 60))
    assert found == [f"line {number}" for number in range(total)]
    assert cuts >= 2


def test_a_log_is_cut_on_a_full_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.log"
    path.write_bytes(b"x" * 1_000)

    def full(_: object, target: Any) -> None:
        target.write(b"x")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    logs.rotate(path, max_bytes=500)
    assert path.stat().st_size == 0
    assert list(tmp_path.iterdir()) == [path]


def test_only_the_newest_logs_of_the_dead_are_kept(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"r{number}.log").write_text("x")
        os.utime(tmp_path / f"r{number}.log", (number, number))
    logs.prune(tmp_path, {"r0"})
    assert {path.stem for path in tmp_path.iterdir()} == {"r0", "r4", "r5", "r6", "r7", "r8"}


# --- models


def test_models_get_versions_by_content(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    store = ModelStore(tmp_path / "store")
    source = tmp_path / "bundle"
    (source / "sub").mkdir(parents=True)
    (source / "a.txt").write_text("a")
    (source / "sub" / "b.txt").write_text("b")

    def put(**more: Any) -> Any:
        return store.put(ModelRegistration(name="m", source_path=str(source), **more))

    first = put()
    assert sorted(first.files) == ["bundle/a.txt", "bundle/sub/b.txt"]
    assert put(tags={"new": "tag"}).version == 1
    assert store.get("m", 1).tags == {"new": "tag"}
    assert put(framework="ScikitLearn").version == 2
    (source / "a.txt").write_text("changed")
    assert put().version == 3
    (source / "a.txt").write_text("a")
    assert put().version == 1
    assert sorted(put(child_paths=("sub",)).files) == ["bundle/sub/b.txt"]
    assert [record.version for record in store.all()] == [1, 2, 3, 4]
    store.link(ModelReference(name="m", version=1), tmp_path / "app")
    assert (tmp_path / "app" / "bundle" / "a.txt").read_text() == "a"
    with pytest.raises(Conflict, match="used by one, two"):
        store.delete("m", 1, ["one", "two"])
    store.delete("m", 4, [])
    with pytest.raises(NotFound, match="versions of m: 1, 2, 3"):
        store.get("m", 4)
    assert put(properties={"p": "1"}).version == 5  # the number of a deleted version never means other files


@pytest.mark.parametrize(
    ("path", "more", "says"),
    [
        ("relative", {}, "not absolute"),
        ("/nowhere/at/all", {}, "does not exist"),
        ("FILE", {"child_paths": ("x",)}, "is a file"),
        ("EMPTY", {}, "holds no file"),
        ("FOLDER", {"child_paths": ("no", "neither")}, "'neither' does not exist"),
        ("FILE", {"framework_version": "1"}, "without framework"),
        ("LINK", {}, "link to a folder"),
    ],
)
def test_bad_models(tmp_path: Path, path: str, more: dict[str, Any], says: str) -> None:
    (tmp_path / "FILE").write_text("x")
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "FOLDER").mkdir()
    (tmp_path / "FOLDER" / "f").write_text("x")
    (tmp_path / "LINK").mkdir()
    (tmp_path / "LINK" / "to").symlink_to(tmp_path / "FOLDER")
    source = str(tmp_path / path) if path.isupper() else path
    with pytest.raises(InvalidInput, match=says):
        ModelStore(tmp_path).put(ModelRegistration(name="m", source_path=source, **more))
