"""The pure parts and the stores, one by one."""

import itertools
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aks_inference_runtime.api.endpoint import Code, EndpointVersion, ModelReference, Resources
from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.api.status import ServiceState
from aks_inference_runtime.api.supervisor import SupervisorRecord
from aks_inference_runtime.local.capacity import Machine, room, why_not
from aks_inference_runtime.local.install import run
from aks_inference_runtime.local.replica import inherited
from aks_inference_runtime.local.states import endpoint_state, version_state
from aks_inference_runtime.local.template import rollout, template_of
from aks_inference_runtime.scoring.requirements import SERVER_REQUIREMENT, canonical, environment_hash
from aks_inference_runtime.scoring.server import command, model_directory, variables

CODE = Code(source_directory="/home/me/source", entry_script="app/score.py", digest="sha256:1")


def version(**settings: Any) -> EndpointVersion:
    return EndpointVersion.model_validate({"name": "ver-a", "is_default": True, "code": CODE} | settings)


# --- environments


async def test_a_build_tells_the_steps_of_uv_and_not_each_of_its_lines() -> None:
    lines = ["Using Python 3.11.7 environment at: /x", "Resolved 3 packages in 0.4s", "Downloading scipy (33.7MiB)"]
    lines += ["   Building mine @ file:///src", "      Built mine @ file:///src", "Prepared 3 packages in 2s"]
    lines += ["Installed 3 packages in 9ms", " + scipy==1.17.1"]
    said: list[str] = []
    tail = await run([sys.executable, "-c", "import sys; print(*sys.argv[1:], sep='\\n')", *lines], said.append)
    assert said == ["installs 3 packages", "fetches scipy (33.7MiB)", "builds mine"]
    assert tail == [line.strip() for line in lines]


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
        (
            ["--extra-index-url https://a.example", "--pre", "--index-url https://b.example"],
            ("--index-url https://b.example", "--extra-index-url https://a.example", "--pre", SERVER_REQUIREMENT),
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


def test_the_socket_is_short_whatever_the_state_directory() -> None:
    record = SupervisorRecord.model_validate(
        {"settings": {"name": "n", "stateDirectory": "/" + "x" * 300}, "runDirectory": "/tmp/aks-inf-12345678"}
    )
    assert len(str(record.socket)) < 108


# --- models
