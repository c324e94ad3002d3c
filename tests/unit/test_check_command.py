"""`aks-inference check`: what it says, as text and as JSON, of files of declarations."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic.alias_generators import to_camel

from aks_inference.documents.reading import COMPONENTS
from aks_inference_provider.cli.check import run

CLUSTER = """
component: AksInferenceCluster
name: scoring
args: {location: westeurope, vmSize: Standard_D4s_v5, agentCount: %d, network: {plugin: azure, pluginMode: overlay}}
"""
LOCAL = "component: LocalInferenceCluster\nname: here\nargs: {port: 8891}\n"
SERVICE = """
component: ModelWebService
name: %s
args:
  target: %s
  models: [churn]
  inference_config: {entry_script: score.py}
"""
MODEL = "component: RegisteredModel\nname: churn\nargs: {target: here, model_path: model.joblib}\n"
Check = Callable[..., tuple[int, list[dict[str, Any]]]]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "score.py").write_text("def init(): pass\ndef run(data): return data\n")
    (tmp_path / "model.joblib").write_bytes(b"weights")

    def called(*documents: str, name: str = "all.yaml") -> tuple[int, list[dict[str, Any]]]:
        (tmp_path / name).write_text("\n---\n".join(documents))
        code = run([name, "--json", "--today", "2026-11-21"])
        return code, json.loads(capsys.readouterr().out)

    return called


def test_what_is_right(check: Check) -> None:
    assert check(CLUSTER % 3, LOCAL, MODEL, SERVICE % ("one", "here"), SERVICE % ("two", "${here.target}")) == (0, [])


def test_a_broken_rule_has_all_its_fields(check: Check) -> None:
    code, (found,) = check((CLUSTER % 3).replace("pluginMode: overlay", "pluginMode: overlay, podCidr: 10.0.0.0/16"))
    assert code == 1
    assert found == {
        "file": "all.yaml",
        "component": "AksInferenceCluster",
        "severity": "error",
        "path": "network.podCidr",
        "message": '"10.0.0.0/16": overlaps serviceCidr 10.0.0.0/16',
        "mend": "write 10.1.0.0/16",
        "rule": "2.7",
        "source": "Doc concepts-network-azure-cni-overlay.md 2026-07-31",
    }


def test_warnings_alone_are_no_failure(check: Check) -> None:
    code, found = check((CLUSTER % 3).replace("D4s_v5", "D3_v2"))
    assert (code, [(one["severity"], one["rule"]) for one in found]) == (0, [("warning", "7f")])


def test_paths_are_in_the_casing_of_the_document(check: Check) -> None:
    text = (
        (CLUSTER % 2).replace("agentCount", "agent_count").replace("vmSize", "vm_size").replace("pluginM", "plugin_m")
    )
    assert [one["path"] for one in check(text)[1]] == ["agent_count"]


def test_paths_are_the_documents_where_it_mixes_both(check: Check) -> None:
    text = (
        (CLUSTER % 2)
        .replace("agentCount", "agent_count")
        .replace("pluginMode: o", "podCidr: 10.0.0.0/16, pluginMode: o")
    )
    assert [one["path"] for one in check(text)[1]] == ["agent_count", "network.podCidr"]
    assert [one["path"] for one in check(CLUSTER % 2)[1]] == ["agentCount"]


def test_references(check: Check) -> None:
    code, found = check(LOCAL, MODEL, SERVICE % ("one", "there"), MODEL)
    assert code == 1
    assert [(one["path"], one["message"].split(":")[0]) for one in found] == [
        ("target", '"there"'),
        ("name", '"churn"'),
    ]
    assert "(here)" in found[0]["mend"]


JOB = """
component: TrainingJob
name: ridge
args: {target: here, entryScript: score.py, sourceDirectory: %s%s}
"""
OF_JOB = "component: RegisteredModel\nname: ridge\nargs: {target: here, jobOutputs: '%s', modelPath: model.txt}\n"


def test_training_jobs(check: Check) -> None:
    assert check(
        LOCAL, JOB % (".", ""), OF_JOB % "${ridge.outputsPath}", OF_JOB.replace("ridge", "old") % "jobs/1"
    ) == (0, [])
    code, found = check(LOCAL, JOB % ("nowhere", ", gpuCores: 1"), OF_JOB % "${other}")
    assert code == 1
    assert {(one["component"], one["path"]) for one in found} == {
        ("TrainingJob", "sourceDirectory"),
        ("TrainingJob", "gpuCores"),
        ("RegisteredModel", "jobOutputs"),
    }
    assert "(ridge)" in found[-1]["mend"]


def test_every_component_can_be_checked() -> None:
    import aks_inference

    assert {one.__name__ for one in aks_inference.COMPONENTS} == set(COMPONENTS)


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("component: AksInferenceClustr", "component", "is no component"),
        ("args: {}", "component", "is required"),
        ("component: LocalInferenceCluster\nargs: [1]", "args", "must be an object"),
        ("component: LocalInferenceCluster\narguments: {}", "arguments", "is no key of a document"),
        ("component: LocalInferenceCluster\nname: 3", "name", "must be a text"),
        ("- 1", "", "document 1 is no object"),
        ("", "", "holds no document"),
        ("a: [", "", "is no YAML"),
        ("component: LocalInferenceCluster\nargs: {port: {}}", "port", "must be a whole number"),
        ("component: LocalInferenceCluster\nargs: {1: 2}", "args", "the key 1 is no name"),
        ("component: LocalInferenceCluster\nargs:\n  port: 1\n  port: 2", "", "port twice in one object (line 4)"),
        ((CLUSTER % 3).replace("agentCount", "agent_count: 3, agentCount"), "agentCount", "is given twice"),
    ],
)
def test_what_is_no_declaration(check: Check, text: str, path: str, message: str) -> None:
    code, (found,) = check(text)
    assert (code, found["path"], found["severity"]) == (1, path, "error")
    assert message in found["message"]


def test_keys_of_merged_objects_are_not_twice(check: Check) -> None:
    pools = "pools: [&a {name: a, vmSize: Standard_D4s_v5, count: 3}, {<<: *a, name: b}, {<<: [*a], name: c, count: 4}]"
    assert check((CLUSTER % 3).replace("vmSize: Standard_D4s_v5, agentCount: 3", pools)) == (0, [])


def test_documents_without_a_name_are_not_the_same(check: Check) -> None:
    unnamed = (CLUSTER % 3).replace("name: scoring\n", "")
    assert check(unnamed, unnamed) == (0, [])
    assert [one["path"] for one in check(CLUSTER % 3, CLUSTER % 3)[1]] == ["name"]


def test_json_files(check: Check) -> None:
    one = {"component": "LocalInferenceCluster", "args": {"port": 0}}
    code, found = check(json.dumps([one, {**one, "name": "b", "args": {}}]), name="all.json")
    assert (code, [entry["path"] for entry in found]) == (1, ["port"])
    assert "no JSON" in check("{", name="bad.json")[1][0]["message"]
    twice = '[{"component": "LocalInferenceCluster", "args": {"port": 1, "port": 2}}]'
    assert "holds port twice" in check(twice, name="twice.json")[1][0]["message"]


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["nowhere.yaml"]) == 1
    assert "nowhere.yaml: error: " in capsys.readouterr().out


def test_the_text_for_people(check: Check, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text(CLUSTER % 2)
    assert run(["c.yaml", "--today", "2026-11-21"]) == 1
    shown = capsys.readouterr()
    first, second = shown.out.splitlines()
    assert first == 'c.yaml: AksInferenceCluster "scoring":'
    assert second.startswith("  error: agentCount: agentCount 2 × Standard_D4s_v5 (4 vCPU) = 8 vCPU; FastProd needs")
    assert shown.err == "1 document: 1 error, 0 warnings\n"


HERE = {"target": "here", "inference_config": {"entry_script": "score.py"}}
FLAT = {"location": "westeurope", "vm_size": "Standard_D4s_v5"}


@pytest.mark.parametrize("spelled", [str, to_camel], ids=["snake_case", "camelCase"])
@pytest.mark.parametrize(
    ("component", "args", "mend"),
    [
        (
            "AksInferenceCluster",
            FLAT | {"agent_count": 2},
            "use agent_count ≥ 3, a larger vm_size, or cluster_purpose DevTest",
        ),
        (
            "AksInferenceCluster",
            {
                "location": "westeurope",
                "pools": [{"name": "a", "vm_size": "Standard_D4s_v5", "autoscale": True, "max_count": 3}],
            },
            "(an autoscaled pool counts with its min_count), a larger vm_size, or cluster_purpose DevTest",
        ),
        (
            "AksInferenceCluster",
            FLAT | {"pools": [{"name": "a", "vm_size": "Standard_D4s_v5"}]},
            "give vm_size or pools, not both",
        ),
        ("ModelWebService", HERE | {"autoscale_min_replicas": -1}, "use 1 or more, or 0 with scale_to_zero"),
        ("ModelWebService", HERE | {"models": ["none"]}, "or its `model_id`; files beside the script need no model"),
        (
            "ModelWebService",
            {"target": "here", "num_replicas": 1, "inference_config": 7},
            "give entry_script, source_directory and environment",
        ),
        ("RegisteredModel", {"target": "here", "job_outputs": 7, "model_name": "churn"}, "or its `outputs_path`"),
    ],
)
def test_mends_name_arguments_as_the_file_writes_them(
    check: Check, spelled: Callable[[str], str], component: str, args: dict[str, Any], mend: str
) -> None:
    def names(value: object) -> object:
        if isinstance(value, list):
            return [names(one) for one in value]
        return {spelled(key): names(one) for key, one in value.items()} if isinstance(value, dict) else value

    local = {"component": "LocalInferenceCluster", "name": "here"}
    code, found = check(
        json.dumps([local, {"component": component, "name": "made", "args": names(args)}]), name="a.json"
    )
    said = re.sub("[a-z]+(?:_[a-z]+)+", lambda match: spelled(match[0]), mend)
    assert code == 1
    assert any(said in f"{one['message']}; {one['mend']}" for one in found), found


LONG_TO_LOAD = {
    "pulumi",
    "grpc",
    "aiohttp",
    "click",
    "rich",
    "cryptography",
    "packaging",
    "concurrent",
    "aks_inference.cluster_rules.hosts",
}


def test_the_short_way_loads_neither_pulumi_nor_the_runtimes_commands(tmp_path: Path) -> None:
    with_runtime = (CLUSTER % 3).replace("pluginMode: overlay}", "pluginMode: overlay}, runtime: {image: 'r:1'}")
    (tmp_path / "c.yaml").write_text(
        "\n---\n".join([with_runtime, LOCAL, SERVICE % ("one", "scoring") + "  image: i:1"])
    )
    program = (
        "import sys; from aks_inference_provider.cli import main\n"
        "sys.argv[1:] = ['check', 'c.yaml']\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"print(sorted({LONG_TO_LOAD!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]"


BOMB = "component: RegisteredModel\nargs:\n  a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("deep.json", "[" * 200_000, "is nested deeper than 100 levels"),
        ("deep.json", '{"args": ' * 900 + "1" + "}" * 900, "is nested deeper than 100 levels"),
        ("deep.yaml", "[" * 200_000, "is nested deeper than 100 levels"),
        ("deep.yaml", "[" * 1_500 + "]" * 1_500, "is nested deeper than 100 levels"),
        ("deep.yaml", "- " * 200_000, "is nested deeper than 100 levels"),
        ("bomb.yaml", BOMB, "holds more than 1,000,000 values"),
        ("round.yaml", "component: RegisteredModel\nargs: &a {b: *a}", "is nested deeper than 100 levels"),
        ("bad.yaml", "component: [\n", "in bad.yaml, line 2"),
    ],
)
def test_files_that_cannot_be_walked_through(check: Check, name: str, text: str, told: str) -> None:
    code, (found,) = check(text, name=name)
    assert code == 1
    assert told in found["message"]
    assert "unicode string" not in found["message"]


def test_a_warning_about_a_default_says_so(check: Check) -> None:
    _, (told, _) = check("component: AksInferenceCluster\nname: scoring\nargs: {location: westeurope}")
    assert told["message"].startswith('"kubenet": the default, as none is given; AKS ends support')
    _, found = check((CLUSTER % 3).replace("D4s_v5", "D3_v2"))
    assert [one["message"].partition(": ")[2][:13] for one in found] == ["Azure retires"]
