"""How a finding reads: path, value, rule, mend, in the caller's casing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aks_inference.component import input_error
from aks_inference.findings import (
    Casing,
    Finding,
    Verbatim,
    did_you_mean,
    in_file,
    placed,
    show_path,
    show_value,
    under,
)
from aks_inference.program import ComponentFindings, summary
from aks_inference.values import Flag, Labels, Number, Spec, Text, Whole, read


@pytest.mark.parametrize(
    ("path", "snake", "camel"),
    [
        (("versions", 1, "traffic_percentile"), "versions[1].traffic_percentile", "versions[1].trafficPercentile"),
        (("tags", "my-key"), "tags.my-key", "tags.my-key"),
        ((Verbatim("cpu_core"),), "cpu_core", "cpu_core"),
        (("environment_variables", "MY_VAR"), "environment_variables.MY_VAR", "environmentVariables.MY_VAR"),
        ((), "(the component)", "(the component)"),
    ],
)
def test_paths(path: tuple[str | int, ...], snake: str, camel: str) -> None:
    assert show_path(path, Casing.SNAKE) == snake
    assert show_path(path, Casing.CAMEL) == camel


def test_texts() -> None:
    finding = Finding(("cpu_cores_limit",), "is below @cpu_cores 2 (me@example.org)", "raise @cpu_cores_limit", 1)
    assert finding.text(Casing.SNAKE) == (
        "cpu_cores_limit = 1: is below cpu_cores 2 (me@example.org); raise cpu_cores_limit"
    )
    assert finding.text(Casing.CAMEL).startswith("cpuCoresLimit = 1: is below cpuCores 2 (me@example.org); raise cpuC")
    assert finding.reason(Casing.CAMEL).startswith("1: is below cpuCores 2")
    assert next(under(("versions", 0), [finding])).location(Casing.CAMEL) == "versions[0].cpuCoresLimit"
    place = "d.json: containerResourceRequirements.cpuLimit"
    assert next(placed({"cpu_cores_limit": place}, "deployment_config", [finding])).location(Casing.SNAKE) == place
    found = next(in_file("i.json", "inference_config", [finding]))
    assert found.text(Casing.SNAKE).startswith("i.json: cpuCoresLimit = 1: is below cpuCo")
    (detail,) = input_error("ModelWebService", "svc", [found]).errors or []
    assert detail["property_path"] == "inferenceConfig"
    assert detail["reason"].startswith("i.json: cpuCoresLimit: 1: is below cpuCores 2")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(object(), "an object"), ("a\u200b\u202eb", '"a\\u200b\\u202eb"'), (b"x", "a bytes"), (3.0, "3")],
)
def test_values(value: object, shown: str) -> None:
    assert show_value(value) == shown


def test_one_text_for_a_program() -> None:
    one = ComponentFindings("ModelWebService", "svc", (Finding(("a",), "is wrong", "mend it"),))
    other = ComponentFindings("RegisteredModel", "m", (Finding(("b",), "is wrong", ""),))
    assert summary([one], {}).splitlines()[0] == "1 error; nothing was changed"
    assert summary([one, other, one], {}).splitlines() == [
        "3 errors; nothing was changed",
        'ModelWebService "svc":',
        "  a: is wrong; mend it",
        "  a: is wrong; mend it",
        'RegisteredModel "m":',
        "  b: is wrong",
    ]


@pytest.mark.parametrize(
    ("wrong", "mend"),
    [("cpu_core", "did you mean `@cpu_cores`?"), ("cpuCores", "did you mean `@cpu_cores`?"), ("zzz", "known are @cpu")],
)
def test_did_you_mean(wrong: str, mend: str) -> None:
    assert did_you_mean(wrong, ["cpu_cores", "memory_gb"]).startswith(mend)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text() | st.binary(), st.lists))
def test_any_value_can_be_shown(value: object) -> None:
    assert len(show_value(value)) <= 80


@pytest.mark.parametrize("value", [10**400, -(10**400)])
def test_a_number_beyond_all_numbers(value: int) -> None:
    (found,) = read(Sample, {"number": value}).findings
    assert found.text(Casing.SNAKE).endswith("…: is beyond all numbers; give a number")


class Sample(Spec):
    whole: Whole | None = None
    number: Number | None = None
    flag: Flag | None = None
    text: Text | None = None
    labels: Labels


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*Sample.model_fields, "other", "Whole"]), ANYTHING))
def test_whatever_is_given_is_read_or_found(given_: dict[str, object]) -> None:
    """Never a crash: each argument is in the spec, or in a finding, or was not given."""
    got = read(Sample, given_)
    found = {str(finding.path[0]) for finding in got.findings}
    for name, value in given_.items():
        if value is None:
            continue
        right = name in Sample.model_fields and name not in got.broken
        assert right != (name in found)
        if right:
            # A large whole number comes near enough.
            assert getattr(got.spec, name) == (float(value) if isinstance(value, int) and name == "number" else value)
    for finding in got.findings:
        assert finding.text(Casing.SNAKE)
