"""Reading definitions: the shapes that are taken, and all that is wrong with one at once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.images.environment import curated
from aks_inference_runtime.images.environment.containerfile import build_files, conda_file, requirements_file
from aks_inference_runtime.images.environment.key import image_key
from aks_inference_runtime.images.environment.read import read_environment, read_file, read_inference_config
from aks_inference_runtime.images.reference import ImageReference, repository_of


def test_serialised_object_of_the_sdk() -> None:
    """All parts that azureml-core writes, mostly empty."""
    raw = {
        "name": "mine",
        "version": None,
        "environmentVariables": {"EXAMPLE_ENV_VAR": "EXAMPLE_VALUE"},
        "python": {
            "userManagedDependencies": False,
            "interpreterPath": "python",
            "condaDependenciesFile": None,
            "baseCondaEnvironment": None,
            "condaDependencies": {
                "name": "project_environment",
                "channels": ["anaconda", "conda-forge"],
                "dependencies": ["python=3.10.18", {"pip": ["azureml-defaults"]}],
            },
        },
        "docker": {
            "enabled": False,
            "baseImage": "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:20251130.v1",
            "baseDockerfile": None,
            "buildContext": None,
            "sharedVolumes": True,
            "shmSize": "2g",
            "arguments": [],
            "baseImageRegistry": {"address": None, "username": None, "password": None, "registryIdentity": None},
            "platform": {"os": "Linux", "architecture": "amd64"},
        },
        "spark": {"repositories": [], "packages": [], "precachePackages": True},
        "databricks": {"mavenLibraries": [], "pypiLibraries": []},
        "r": None,
        "inferencingStackVersion": "latest",
        "assetId": None,
    }
    definition = read_environment(raw, Path())
    assert definition.pip == ("azureml-defaults",)
    assert definition.conda.dependencies == ("python =3.10.18",)
    assert str(definition.base).startswith("mcr.microsoft.com/azureml/openmpi")
    assert definition.environment_variables == (("EXAMPLE_ENV_VAR", "EXAMPLE_VALUE"),)


def test_the_same_environment_from_every_shape(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("# two packages\nscikit-learn==1.9.1 \\\n\n-r more.txt\n")
    (tmp_path / "more.txt").write_text("Joblib # comment\n-r requirements.txt\n")
    (tmp_path / "conda.yml").write_text("name: x\ndependencies:\n  - pip\n  - pip: [-r requirements.txt]\n")
    python = {"condaDependenciesFile": "conda.yml"}
    files = {
        "environment.json": {"name": "a", "python": python},
        "inferenceconfig.json": {"entryScript": "score.py", "sourceDirectory": ".", "environment": {"python": python}},
        "old.json": {"entryScript": "score.py", "sourceDirectory": ".", "runtime": "python", "condaFile": "conda.yml"},
    }
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    # What a service runs has the scoring server beside.
    definitions = {name: read_file(tmp_path / name) for name in [*files, "requirements.txt", "conda.yml"]}
    keys = {name: image_key(curated.with_server(definition)) for name, definition in definitions.items()}
    assert len(set(keys.values())) == 1, keys


def test_all_problems_at_once_with_the_callers_words(tmp_path: Path) -> None:
    raw = {
        "python": {
            "condaDependencies": {"dependencies": [7, "numpy=>=1 x y z", {"pip": ["not a requirement!", "-e ."]}]},
            "interpeterPath": "x",
        },
        "docker": {
            "base_image": "UPPER/case:1",
            "platform": {"architecture": "mips"},
            "baseImageRegistry": {"address": "a"},
        },
        "spark": {"packages": [{"group": "g"}]},
        "pipPackages": ["--extra-index-url https://user:secret@example/simple", "ok==1"],
    }
    with pytest.raises(InvalidInput) as caught:
        read_environment(raw, tmp_path)
    text = str(caught.value)
    for part in (
        "environment.python.condaDependencies.dependencies[0]: 7 is neither",
        "environment.python.condaDependencies.dependencies[1]: 'numpy=>=1 x y z'",
        "environment.python.condaDependencies.dependencies[2].pip[0]: 'not a requirement!' is not a requirement",
        "environment.python.condaDependencies.dependencies[2].pip[1]: '-e' is an option",
        "environment.python.interpeterPath: is not known here",
        "environment.docker.base_image: 'UPPER/case:1' is not",
        "environment.docker.platform.architecture: 'mips'",
        "environment.docker.baseImageRegistry: lacks username, password",
        "environment.spark: asks for packages",
        "environment.pipPackages[0]: '--extra-index-url' carries credentials",
    ):
        assert part in text
    assert len(text.splitlines()) == 10
    assert "secret" not in text


ONE_PROBLEM = [
    ({"docker": {"baseImage": "a", "baseDockerfile": "FROM a"}}, "gives baseImage and baseDockerfile"),
    ({"docker": {"baseDockerfile": "missing.Dockerfile"}}, "neither the text of a Dockerfile nor a file"),
    ({"docker": {"buildContext": {"location": "missing"}}}, "has no file Dockerfile"),
    ({"docker": {"buildContext": {"locationType": "ftp", "location": "x"}}}, "not a kind of location"),
    ({"docker": {"platform": {"os": "Windows"}}}, "write Linux"),
    ({"docker": "python"}, "must be an object"),
    ({"python": {"userManagedDependencies": "yes"}}, "must be true or false"),
    ({"python": {"baseCondaEnvironment": "base"}}, "list the packages"),
    ({"python": {"condaDependenciesFile": "none.yml"}}, "cannot be read"),
    ({"python": {"condaDependenciesFile": "a", "condaDependencies": {"dependencies": ["x"]}}}, "keep one of the two"),
    ({"python": {"condaDependencies": {"dependencies": ["python=3.10", "python=3.11"]}}}, "names Python 2 times"),
    ({"environmentVariables": {"A=B": "1"}}, "not the name of a variable"),
    ({"environmentVariables": {"A": None}}, "is not a text"),
    ({"name": "AzureML-Unknown"}, "choose one of AzureML-LightGBM, AzureML-Minimal"),
    ({"name": "AzureML-Minimal", "pipPackages": ["x"]}, "clone it under another name"),
    ({"pipPackages": ["x @ https://user:secret@example/x.whl"]}, "carries credentials"),
    ({"pipPackages": ["-r none.txt"]}, "cannot be read"),
    ({"pipPackages": "numpy"}, "must be a list"),
    ({"pipPackages": ["a==1", "A!=1.0"]}, "asks for a!=1.0 and a==1, and no version is both; keep one of them"),
    (
        {"cloneOf": "AzureML-ScikitLearn", "pipPackages": ["scikit-learn<1.9"]},
        "asks for scikit-learn<1.9 and scikit-learn==1.9.1, and no version is both; keep one of them, or list all",
    ),
    ({"r": {"rVersion": "3.5.2"}}, "environment.r: asks for R, which an image of Python does not have; leave it out"),
    ({"r": {"cranPackages": [{"name": "caret"}]}}, "environment.r: asks for R"),
    ({"pipPackages": ["-i https://a.example", "--index-url https://b.example"]}, "names 2 indexes by --index-url"),
    (
        {
            "pipPackages": ["--index-url https://a.example", "x"],
            "python": {"condaDependencies": {"dependencies": [{"pip": ["--index-url https://b.example"]}]}},
        },
        "keep one, and give the others as --extra-index-url",
    ),
    (
        {"python": {"condaDependencies": {"dependencies": [
            {"pip": ["--index-url https://a.example"]}, "numpy", {"pip": ["-i https://b.example/"]}]}}},
        "python.condaDependencies.dependencies: names 2 indexes by --index-url (https://a.example, https://b.example)",
    ),
]  # fmt: skip


def test_an_index_that_is_named_twice_is_said_once(tmp_path: Path) -> None:
    """Of the list that names it twice, not of all lists together again; the same one in two lists is one."""
    twice = ["-i https://a.example", "--index-url https://b.example"]
    conda = {"dependencies": [{"pip": twice}, {"pip": ["-i https://c.example"]}]}
    with pytest.raises(InvalidInput) as error:
        read_environment({"pipPackages": ["-i https://d.example"], "python": {"condaDependencies": conda}}, tmp_path)
    assert str(error.value).count("by --index-url") == 1
    conda = {"dependencies": [{"pip": twice[:1]}, {"pip": ["--index-url https://a.example/", "numpy"]}]}
    definition = read_environment({"pipPackages": twice[:1], "python": {"condaDependencies": conda}}, tmp_path)
    assert definition.pip_options == ("--index-url https://a.example",)


def test_a_serialised_environment_without_r_is_taken(tmp_path: Path) -> None:
    assert read_environment({"r": {"rVersion": None, "userManaged": False, "cranPackages": []}}, tmp_path)
    assert read_environment({"r": None}, tmp_path)


def test_the_index_stands_before_the_further_ones(tmp_path: Path) -> None:
    """pip forgets those that stand before it."""
    lines = ["--extra-index-url https://a.example", "--pre", "numpy", "-i https://z.example"]
    in_order = ("--index-url https://z.example", "--extra-index-url https://a.example", "--pre")
    conda = {"dependencies": [{"pip": lines[3:]}]}
    for raw in ({"pipPackages": lines}, {"pipPackages": lines[:3], "python": {"condaDependencies": conda}}):
        definition = read_environment(raw, tmp_path)
        assert definition.pip_options == in_order
        listed = tmp_path / "listed.txt"
        listed.write_text(requirements_file(definition))
        assert _indexes_of_pip(listed) == "https://z.example https://a.example"


def _indexes_of_pip(listed: Path) -> str:
    """What pip itself makes of the file."""
    program = """
import sys
from pip._internal.index.package_finder import PackageFinder
from pip._internal.index.collector import LinkCollector
from pip._internal.models.search_scope import SearchScope
from pip._internal.models.selection_prefs import SelectionPreferences
from pip._internal.network.session import PipSession
from pip._internal.req.req_file import parse_requirements
session = PipSession()
scope = SearchScope.create([], ["https://default.example"], no_index=False)
finder = PackageFinder.create(LinkCollector(session, scope), SelectionPreferences(allow_yanked=False))
list(parse_requirements(sys.argv[1], session, finder=finder))
print(*finder.index_urls)
"""
    done = subprocess.run([sys.executable, "-c", program, str(listed)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(("raw", "said"), ONE_PROBLEM)
def test_problem(tmp_path: Path, raw: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_environment(raw, tmp_path)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"), [("a.json", "{"), ("a.json", "[]"), ("a.yml", "a: ["), ("a.yml", "- a"), ("b.txt", None)]
)
def test_file_that_is_none(tmp_path: Path, name: str, text: str | None) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InvalidInput, match=name):
        read_file(tmp_path / name)


def test_unknown_key_of_an_inference_configuration(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="entryscript: is not known here"):
        read_inference_config({"entryscript": "x"}, tmp_path)


def test_curated_environments_and_clones(tmp_path: Path) -> None:
    for name in curated.NAMES:
        definition = read_environment({"name": name}, tmp_path)
        assert any(one.startswith("azureml-inference-server-http") for one in definition.pip)
        clone = curated.clone(definition, "mine")
        assert image_key(clone) == image_key(definition)
    more = read_environment({"name": "mine", "cloneOf": "AzureML-Minimal", "pipPackages": ["pandas"]}, tmp_path)
    minimal = read_environment({"name": "AzureML-Minimal"}, tmp_path)
    assert set(more.pip) == {*minimal.pip, "pandas"}
    assert more.conda == minimal.conda
    with pytest.raises(InvalidInput, match="reserved"):
        curated.clone(minimal, "AzureML-Mine")


def test_login_of_a_private_base_stays_out_of_everything(tmp_path: Path) -> None:
    registry = {"address": "https://r.example/", "username": "u", "password": "secret"}
    raw = {"docker": {"baseImage": "r.example/a:1", "baseImageRegistry": registry}, "pipPackages": ["joblib"]}
    definition = read_environment(raw, tmp_path)
    assert definition.base_login is not None
    assert (definition.base_login.address, definition.base_login.password) == ("r.example", "secret")
    assert "secret" not in repr(definition)
    assert "secret" not in build_files(definition).containerfile
    without = read_environment({**raw, "docker": {"baseImage": "r.example/a:1"}}, tmp_path)
    assert image_key(definition) == image_key(without)


def test_build_file_for_conda(tmp_path: Path) -> None:
    conda = {"channels": ["conda-forge"], "dependencies": ["numpy=1.21", "python=3.10", {"pip": ["joblib"]}]}
    definition = read_environment({"python": {"condaDependencies": conda}}, tmp_path)
    made = build_files(definition, {"docker.io/condaforge/miniforge3:25.3.0-3": "sha256:" + "a" * 64})
    lines = made.containerfile.splitlines()
    assert lines[0].startswith("FROM --platform=linux/amd64 docker.io/condaforge/miniforge3:25.3.0-3@sha256:aaaa")
    assert lines[-1] == "USER 10001:10001"
    assert json.loads(made.files[".aks-inference/environment.yml"]) == {
        "channels": ["conda-forge"],
        "dependencies": ["numpy =1.21", "python =3.10", "pip", {"pip": ["joblib"]}],
    }


FAKE_CONDA = """#!/bin/sh
echo "${{0##*/}} $*" >> {log}
"""


@pytest.mark.parametrize(
    ("tools", "dependencies", "expected"),
    [
        (["conda"], ["numpy"], ["conda env create", "conda clean"]),
        (["conda", "mamba"], ["numpy"], ["mamba env create", "mamba clean"]),
        (["micromamba", "conda"], ["numpy"], ["micromamba create", "micromamba clean"]),
        (["python3.11"], ["python=3.11"], ["python3.11 -m venv"]),
        ([], ["numpy"], None),
        (["python3.10"], ["python=3.11"], None),
    ],
)
def test_conda_step_takes_what_the_base_has(
    tmp_path: Path, tools: list[str], dependencies: list[str], expected: list[str] | None
) -> None:
    """The shell line of the build file, run with programs that only write down how they were called."""
    for tool in tools:
        (tmp_path / tool).write_text(FAKE_CONDA.format(log=tmp_path / "log"))
        (tmp_path / tool).chmod(0o755)
    docker = {"baseImage": "registry.example/base:1"}
    raw = {"docker": docker, "python": {"condaDependencies": {"dependencies": dependencies}}}
    (line,) = [
        one for one in build_files(read_environment(raw, tmp_path)).containerfile.splitlines() if one[:4] == "RUN "
    ]
    script = line.removeprefix("RUN ").replace("/opt/aks-inference/environment/bin/python", ":")
    done = subprocess.run(
        ["/bin/sh", "-c", script], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    if expected is None:
        assert done.returncode != 0
        return
    assert done.returncode == 0, done.stderr
    called = (tmp_path / "log").read_text().splitlines()
    assert [one.partition(" --")[0].partition(" /")[0] for one in called] == expected


def test_build_file_for_pip_steps_and_dockerfile(tmp_path: Path) -> None:
    plain = build_files(read_environment({"pipPackages": ["joblib", "--pre"]}, tmp_path))
    assert plain.files == {".aks-inference/requirements.txt": "--pre\njoblib\n"}
    assert "-m venv" in plain.containerfile
    custom = {"docker": {"baseDockerfile": "FROM debian:12\nRUN true"}, "python": {"userManagedDependencies": True}}
    made = build_files(read_environment(custom, tmp_path))
    assert made.files == {}
    assert made.containerfile.startswith("FROM debian:12\nRUN true\nUSER 0:0\n")


def test_conda_without_channels_does_not_ask_the_defaults(tmp_path: Path) -> None:
    definition = read_environment({"python": {"condaDependencies": {"dependencies": ["numpy"]}}}, tmp_path)
    assert json.loads(conda_file(definition))["channels"] == ["conda-forge"]


REFERENCES = [
    ("python", "docker.io/library/python:latest"),
    ("python:3.11", "docker.io/library/python:3.11"),
    ("index.docker.io/a/b", "docker.io/a/b:latest"),
    ("localhost/a", "localhost/a:latest"),
    ("localhost:5000/a/b:1", "localhost:5000/a/b:1"),
    ("r.example/a@sha256:" + "0" * 64, "r.example/a@sha256:" + "0" * 64),
    ("r.example/a:1@sha256:" + "0" * 64, "r.example/a:1@sha256:" + "0" * 64),
    ("[::1]:5000/a", "[::1]:5000/a:latest"),
]


@pytest.mark.parametrize(("text", "full"), REFERENCES)
def test_reference(text: str, full: str) -> None:
    assert str(ImageReference.parse(text)) == full
    assert ImageReference.parse(full) == ImageReference.parse(text)


@pytest.mark.parametrize(
    "text", ["", "A/b", "a:", "a:b c", "a@sha256:12", "a//b", "http://a/b", "../a", "r.example/a?b=c", "a@"]
)
def test_no_reference(text: str) -> None:
    with pytest.raises(InvalidInput, match="not the name of an image"):
        ImageReference.parse(text)


def test_registry_and_repository() -> None:
    assert repository_of("https://r.example/", "d") == ("r.example", "d")
    assert repository_of("r.example/a/b", "d") == ("r.example", "a/b")
    for wrong in ("ftp://r.example", "r.example/A", ""):
        with pytest.raises(InvalidInput):
            repository_of(wrong, "d")
