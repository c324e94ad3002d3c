"""EndpointKeys: stable over redeploys, rotated as declared state, both good while clients change over."""

import hashlib
import itertools

import pytest
from pulumi.runtime.proto import provider_pb2

from aks_inference_provider.resources.endpoint_keys import check, digests, keys

GIVEN = {"primaryKey": "primary-key-1", "secondaryKey": "secondary-key-1"}


def counted():
    numbers = itertools.count(1)
    return lambda: f"generated-{next(numbers)}"


def test_generated_once_and_kept():
    new = counted()
    first = keys({"keyVersion": 1}, {}, new)
    assert first == {"primaryKey": "generated-1", "secondaryKey": "generated-2"}
    assert keys({"keyVersion": 1}, {**first, "keyVersion": 1}, new) == first


def test_another_version_moves_the_primary_key_on():
    before = {**GIVEN, "keyVersion": 1}
    after = keys({"keyVersion": 2}, before, counted())
    assert after == {"primaryKey": "generated-1", "secondaryKey": GIVEN["primaryKey"]}
    again = keys({"keyVersion": 3}, {**after, "keyVersion": 2}, counted())
    assert again["secondaryKey"] == after["primaryKey"]


def test_given_keys_win_and_what_is_left_out_stays():
    assert keys({**GIVEN, "keyVersion": 1}, {}, counted()) == GIVEN
    other = {"primaryKey": "primary-key-2", "keyVersion": 1}
    assert keys(other, {**GIVEN, "keyVersion": 1}, counted()) == {**GIVEN, "primaryKey": "primary-key-2"}
    assert keys({"keyVersion": 1}, {**GIVEN, "keyVersion": 1}, counted()) == GIVEN


def test_the_kept_key_is_never_the_primary_one_twice():
    """Clients that change over need two: of a given key that stays in a rotation, and of one that was the second."""
    pinned = {"primaryKey": GIVEN["primaryKey"]}
    rotated = keys({**pinned, "keyVersion": 2}, {**GIVEN, "keyVersion": 1}, counted())
    assert rotated == {**pinned, "secondaryKey": "generated-1"}
    assert keys({**pinned, "keyVersion": 2}, {**rotated, "keyVersion": 2}, counted()) == rotated
    moved = keys({"primaryKey": GIVEN["secondaryKey"], "keyVersion": 1}, {**GIVEN, "keyVersion": 1}, counted())
    assert moved == {"primaryKey": GIVEN["secondaryKey"], "secondaryKey": GIVEN["primaryKey"]}, "both go on being good"


def test_digests_are_of_both():
    lines = digests(GIVEN).split("\n")
    assert sorted(lines) == sorted(hashlib.sha256(key.encode()).hexdigest() for key in GIVEN.values())


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"primaryKey": "short"}, "primaryKey"),
        ({"secondaryKey": "with space here"}, "secondaryKey"),
        ({"keyVersion": 0}, "keyVersion"),
        ({"keyversion": 1}, "keyversion"),
    ],
)
def test_what_is_refused(given, path):
    _, failures = check(given)
    assert [failure.path for failure in failures] == [path]


def test_the_default_version():
    assert check({})[0] == {"keyVersion": 1}


def test_over_the_protocol(plugin, values):
    """Secret in every answer; nothing to do for the same inputs; a preview does not know what will be generated."""
    inputs = plugin.check("EndpointKeys", {}).inputs
    previewed = plugin.create("EndpointKeys", inputs, preview=True).outputs
    assert previewed["primaryKey"] == values.secret(values.UNKNOWN)
    made = plugin.create("EndpointKeys", inputs)
    for name in ("primaryKey", "secondaryKey", "digests"):
        assert made.outputs[name] == values.secret(made.outputs[name]["value"])
    assert plugin.diff("EndpointKeys", inputs, inputs).changes == provider_pb2.DiffResponse.DIFF_NONE
    newer = plugin.check("EndpointKeys", {"keyVersion": 2}, inputs).inputs
    assert plugin.diff("EndpointKeys", inputs, newer).changes == provider_pb2.DiffResponse.DIFF_SOME
    rotated = plugin.update("EndpointKeys", made, inputs, newer)
    assert rotated["secondaryKey"] == made.outputs["primaryKey"]
    assert rotated["primaryKey"] != made.outputs["primaryKey"]
