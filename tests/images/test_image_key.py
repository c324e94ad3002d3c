"""The image key: the vectors of its document, and what may not change it."""

import hashlib
import json
import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aks_inference_runtime.images.context import content_digest
from aks_inference_runtime.images.environment.key import (
    base_references,
    canonical_definition,
    canonical_steps,
    image_key,
)
from aks_inference_runtime.images.environment.model import Dockerfile, EnvironmentDefinition
from aks_inference_runtime.images.environment.read import read_environment

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "image-key.md"
VECTORS = [json.loads(text) for text in re.findall(r"^```json vector\n(.*?)^```", DOCUMENT.read_text(), re.M | re.S)]


def key(**environment: object) -> str:
    return image_key(read_environment(environment, Path()))


@pytest.mark.parametrize("vector", VECTORS)
def test_vector_of_the_document(vector: dict[str, object]) -> None:
    definition = read_environment(vector["environment"], Path())
    assert canonical_definition(definition, vector["pins"]) == vector["canonical"]
    assert image_key(definition, vector["pins"]) == vector["key"]
    assert hashlib.sha256(vector["canonical"].encode()).hexdigest() == vector["key"]


def test_there_are_vectors() -> None:
    assert len(VECTORS) >= 7


PACKAGES = [
    "scikit-learn==1.9.1",
    "joblib",
    "azure-core[aio]>=1.2,<2",
    'tomli>=2; python_version < "3.11"',
    "a.b_c~=1.0",
]


def respelt(requirement: str, draw: random.Random) -> str:
    """Another spelling of the same requirement."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name
    letters = [draw.choice([letter.upper(), letter]) for letter in name[0]]
    spelt = "".join(draw.choice("-_.") if letter in "-_." else letter for letter in letters)
    rest = requirement[len(name[0]) :].replace(",", draw.choice([",", " , "])).replace(";", draw.choice([";", " ; "]))
    return draw.choice(["", "  "]) + spelt + rest + draw.choice(["", "  # why"])


@given(
    st.randoms(use_true_random=False), st.text(max_size=20).filter(lambda one: not one.startswith(("AzureML", "Micro")))
)
def test_order_spelling_comments_and_names_do_not_count(draw: random.Random, name: str) -> None:
    written = [respelt(one, draw) for one in PACKAGES]
    draw.shuffle(written)
    split = draw.randint(0, len(written))
    environment = {
        "name": name,
        "version": str(draw.randint(1, 99)),
        "environmentVariables": {"A": name.replace("\0", "")},
        "pipPackages": written[:split],
        "python": {"condaDependencies": {"name": "any", "dependencies": ["pip", {"pip": written[split:]}]}},
    }
    assert image_key(read_environment(environment, Path())) == key(pipPackages=PACKAGES)


DIFFERENT = [
    {"pipPackages": ["joblib==1.0"]},
    {"pipPackages": ["joblib==1.1"]},
    {"pipPackages": ["joblib===1.1"]},
    {"pipPackages": ["joblib[x]==1.0"]},
    {"pipPackages": ["joblib==1.0; python_version < '3'"]},
    {"pipPackages": ["joblib==1.0", "--extra-index-url https://a.example/simple"]},
    {"pipPackages": ["joblib==1.0 --hash=sha256:" + "a" * 64]},
    {"pipPackages": ["joblib==1.0"], "docker": {"baseImage": "python:3.12"}},
    {"pipPackages": ["joblib==1.0"], "docker": {"platform": {"architecture": "arm64"}}},
    {"pipPackages": ["joblib==1.0"], "docker": {"extraDockerFileSteps": "RUN true"}},
    {"python": {"condaDependencies": {"dependencies": ["joblib=1.0"]}}},
    {"python": {"condaDependencies": {"dependencies": ["joblib==1.0"]}}},
    {"python": {"condaDependencies": {"dependencies": ["joblib=1.0"], "channels": ["a", "b"]}}},
    {"python": {"condaDependencies": {"dependencies": ["joblib=1.0"], "channels": ["b", "a"]}}},
    {"python": {"condaDependencies": {"dependencies": ["python=3.10", {"pip": ["joblib==1.0"]}]}}},
    {"docker": {"baseDockerfile": "FROM python:3.11"}},
    {"docker": {"baseDockerfile": "FROM python:3.11\nRUN true\nRUN false"}},
    {"docker": {"baseDockerfile": "FROM python:3.11\nRUN false\nRUN true"}},
    {"docker": {"baseImage": "python:3.11"}, "python": {"userManagedDependencies": True}},
]


def test_what_counts_counts() -> None:
    keys = [key(**environment) for environment in DIFFERENT]
    assert len(set(keys)) == len(DIFFERENT)


SAME = [
    (["numpy=1.21"], ["NumPy = 1.21.*"]),
    (["numpy==1.21"], ["numpy 1.21"]),
    (["numpy>=1.21,<2"], ["numpy <2 , >=1.21"]),
    (["numpy=1.21=py39_0"], ["numpy 1.21 py39_0"]),
    (["conda-forge::numpy"], ["numpy[channel='conda-forge']"]),
    (["numpy", "scipy"], ["scipy  # sorted", "numpy"]),
    (["numpy 1.8|1.8.1"], ["numpy 1.8.1 | 1.8"]),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_conda_spellings(one: list[str], other: list[str]) -> None:
    def of(dependencies: list[str]) -> str:
        return key(python={"condaDependencies": {"channels": ["conda-forge"], "dependencies": dependencies}})

    assert of(one) == of(other)


def test_build_context_counts_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python:3.11\n")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "same").write_text("1")

    def of() -> str:
        context = {"locationType": "local", "location": str(tmp_path)}
        return key(docker={"buildContext": context}, python={"userManagedDependencies": True})

    first, digest = of(), content_digest(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert of() != first, "names count too (Azure ML hashed contents alone)"
    (tmp_path / "b").rename(tmp_path / "a")
    assert (of(), content_digest(tmp_path)) == (first, digest)
    (tmp_path / ".gitignore").write_text("b\n")
    with_ignore = of()
    (tmp_path / "b").write_text("ignored")
    assert of() == with_ignore
    (tmp_path / ".gitignore").write_text("b\nDockerfile\n")
    without = of()
    (tmp_path / "Dockerfile").write_text("FROM python:3.11\nRUN true\n")
    assert of() != without, "the Dockerfile counts, ignored or not"


def test_bases_of_a_dockerfile() -> None:
    text = "ARG X\n"
    text += "FROM --platform=linux/amd64 python:3.11 AS One\nFROM $X\nFROM One\nFROM scratch\nfrom a.example/b@sha256:"
    definition = EnvironmentDefinition(base=Dockerfile(f"{text}{'1' * 64}\nFROM 0"))
    assert [str(one) for one in base_references(definition)] == [
        "docker.io/library/python:3.11",
        f"a.example/b@sha256:{'1' * 64}",
    ]


def test_steps_keep_what_is_content() -> None:
    assert (
        canonical_steps("# syntax=docker/dockerfile:1\n# gone\n\nRUN a  \r\n") == "# syntax=docker/dockerfile:1\nRUN a"
    )
    text = "RUN cat <<E\n# content\n\nE"
    assert canonical_steps(text) == text
