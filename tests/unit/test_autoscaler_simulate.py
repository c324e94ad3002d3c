"""The simulator: the same controller and policy as in the cluster, over made-up or recorded traffic."""

import json
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.autoscaler import plot, traffic
from aks_inference_runtime.autoscaler.policy import Rules
from aks_inference_runtime.autoscaler.simulate import Outcome, Service, simulate
from aks_inference_runtime.cli import main

RULES = Rules(minimum=1, maximum=10, target=0.7, max_concurrent=1, scale_down_delay_s=10)


def run(words: str, duration_s: float = 60, rules: Rules = RULES, **service: float) -> Outcome:
    random = Random(7)
    told = Service(rules=rules, **{"service_s": 0.1, "start_s": 1.0, **service})  # type: ignore[arg-type]
    return simulate(told, traffic.arrivals(traffic.pattern(words, duration_s), random), duration_s, random)


def test_a_step_is_followed_up_and_down() -> None:
    outcome = run("burst:1-40/50", 100)
    wanted = [second.wanted for second in outcome.seconds]
    assert wanted[30] == 1
    assert max(wanted[45:56]) >= 6
    assert wanted[75] == 1
    assert outcome.served + outcome.queue_full + outcome.timed_out == pytest.approx(outcome.requests, abs=10)
    assert "needed" in outcome.reasons[0][1]


def test_without_traffic_nothing_happens() -> None:
    outcome = run("constant:0")
    assert (outcome.requests, outcome.changes, outcome.most_replicas) == (0, 0, 1)
    assert outcome.replica_hours == pytest.approx(60 / 3600, abs=1e-4)


def test_scaled_to_zero_the_first_requests_wait_for_the_first_replica() -> None:
    rules = Rules(minimum=0, maximum=3, target=0.7, max_concurrent=1, scale_down_delay_s=5)
    outcome = run("step:0-5@20", 60, rules, start_s=3.0)
    assert outcome.seconds[15].ready == 0
    assert 2_900 <= outcome.wait_max_ms <= 4_500
    # Those that come while the line of the start is worked off, by their usual patience.
    assert outcome.timed_out <= outcome.requests / 10


def test_no_more_than_the_nodes_hold() -> None:
    outcome = run("constant:100", room=4)
    assert outcome.most_replicas == 4
    assert any("room is for 4" in reason for _, reason in outcome.reasons)
    assert outcome.timed_out > 0


def test_a_minimum_that_the_nodes_do_not_hold_is_not_ready() -> None:
    rules = Rules(minimum=4, maximum=8, target=0.7, max_concurrent=1, scale_down_delay_s=10)
    outcome = run("constant:15", room=2, rules=rules)
    assert {(second.wanted, second.ready) for second in outcome.seconds} == {(4, 2)}
    assert outcome.replica_hours == pytest.approx(2 * 60 / 3600, abs=1e-4)
    none = run("constant:5", room=0, rules=rules)
    assert ({second.ready for second in none.seconds}, none.served, none.replica_hours) == ({0}, 0, 0)


def test_replicas_that_have_no_room_go_first() -> None:
    rules = Rules(minimum=0, maximum=8, target=0.7, max_concurrent=1, scale_down_delay_s=5)
    outcome = run("step:2-0@30", 60, rules, room=0)
    assert max(second.wanted for second in outcome.seconds) == 1
    assert {second.ready for second in outcome.seconds} == {0}, "the first one is asked for, and never placed"


@settings(max_examples=25, deadline=None)
@given(
    rate=st.floats(0, 80),
    most=st.integers(1, 12),
    slots=st.integers(1, 4),
    start=st.floats(0, 20),
    kind=st.sampled_from(["constant:{r}", "ramp:0-{r}", "wave:0-{r}/20", "burst:1-{r}/15"]),
)
def test_bounds_hold_and_no_request_is_lost(rate: float, most: int, slots: int, start: float, kind: str) -> None:
    rules = Rules(minimum=1, maximum=most, target=0.7, max_concurrent=slots, scale_down_delay_s=5)
    outcome = run(kind.format(r=f"{rate:.3f}"), 30, rules, start_s=start)
    assert all(1 <= second.wanted <= most for second in outcome.seconds)
    left = outcome.seconds[-1].queued
    assert outcome.requests == outcome.served + outcome.queue_full + outcome.timed_out + left
    assert outcome.wait_max_ms <= 500.1


def test_steady_traffic_does_not_make_replicas_swing() -> None:
    outcome = run("constant:30", 300, rules=Rules(1, 20, 0.7, 1, 60))
    late = [second.wanted for second in outcome.seconds[120:]]
    assert max(late) - min(late) <= 2, late


@pytest.mark.parametrize(
    "words",
    [
        "",
        "constant",
        "constant:-1",
        "constant:nan",
        "ramp:1",
        "step:1-2",
        "wave:1-2/0",
        "tide:1-2",
        "burst:1-2",
        "burst:1-2/1e-9",
    ],
)
def test_wrong_words(words: str) -> None:
    with pytest.raises(InvalidInput, match="known"):
        traffic.pattern(words, 60)


@pytest.mark.parametrize("text", ["", "0,1", "0,1\nx,2", "0,1\n1,-2", "5,1\n1,1", "0,1\n1,inf"])
def test_wrong_recordings(text: str) -> None:
    with pytest.raises(InvalidInput):
        traffic.recorded(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("at,rate\n1767225600000,1\n1767225601000,1\n", "line 2: 1767225600000 is no time in seconds, but in milli"),
        ("0,1\n604801,1\n", "goes over 604801 seconds: a week"),
        ("0,1\n1,1000000000\n", r"5e\+08 requests come: 20,000,000 at most"),
        ("0,1\n" * (traffic.LONGEST_RECORDING // 4 + 1), "more than 33,554,432 characters"),
    ],
    ids=["milliseconds", "long", "high", "large"],
)
def test_recordings_that_are_too_much(text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        traffic.recorded(text)


def test_times_since_1970_are_taken() -> None:
    rates = traffic.recorded("1767225600,1\n1767225660.5,3\n")
    assert [(rate.at, rate.per_s) for rate in rates] == [(0, 1), (60.5, 3)]


class Counted(Random):
    drawn = 0

    def random(self) -> float:
        self.drawn += 1
        return super().random()


def test_a_peak_costs_no_more_than_its_requests() -> None:
    """A day with one request a second and a thousandth of a second with two million."""
    rates = traffic.recorded("0,1\n40000,1\n40000,2000000\n40000.001,2000000\n40000.001,1\n86400,1\n")
    random = Counted(1)
    found = list(traffic.arrivals(rates, random))
    peak = sum(40_000 <= at < 40_000.001 for at in found)
    # Of Poisson's distribution, five standard deviations and more.
    assert 1_760 <= peak <= 2_240
    assert 84_800 <= len(found) - peak <= 88_000
    assert found == sorted(found)
    assert random.drawn <= len(found) + 1


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 5), st.sampled_from([0.0, 1e-9, 1.0, 50.0])), min_size=1, max_size=6),
    st.floats(0, 50),
)
def test_requests_come_in_order_and_only_where_there_is_a_rate(steps: list[tuple[float, float]], first: float) -> None:
    at, rates = 0.0, [traffic.Rate(0, first)]
    for step, rate in steps:
        at += step
        rates.append(traffic.Rate(at, rate))
    found = list(traffic.arrivals(rates, Random(3)))
    assert found == sorted(found)
    assert all(0 <= one <= at for one in found)
    quiet = [(a.at, b.at) for a, b in pairwise(rates) if a.per_s == b.per_s == 0]
    assert not any(begin < one < end for one in found for begin, end in quiet)


def test_a_recording_is_replayed() -> None:
    rates = traffic.recorded("seconds,rate\n100,10\n110,10\n110,0\n120,0\n")
    found = list(traffic.arrivals(rates, Random(1)))
    assert 70 <= len(found) <= 130
    assert max(found) <= 10


def test_the_command(tmp_path: Path) -> None:
    picture = tmp_path / "picture.svg"
    arguments = ["simulate", "--traffic", "burst:2-40/30", "--duration", "60", "--service-ms", "100"]
    shown = CliRunner().invoke(main, [*arguments, "--svg", str(picture), "--replica-cost-per-hour", "0.5"])
    assert shown.exit_code == 0, shown.output
    assert "replicas wanted" in shown.output
    assert [line.split("│")[0].strip() for line in shown.output.splitlines() if "│" in line][-1] == "cost"
    assert picture.read_text().startswith("<svg")
    assert ">cost<" in picture.read_text()
    priced = json.loads(CliRunner().invoke(main, [*arguments, "--json", "--replica-cost-per-hour", "0.5"]).output)
    costs = [second["cost"] for second in priced["seconds"]]
    assert costs == sorted(costs)
    assert costs[-1] == priced["cost"] > 0
    told = CliRunner().invoke(main, [*arguments, "--json"])
    found = json.loads(told.output)
    assert len(found["seconds"]) == 60
    assert found["requests"] == sum(second["requests"] for second in found["seconds"])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--service-ms", "10"], "one of --traffic and --recorded"),
        (["--service-ms", "10", "--traffic", "tide:1-2"], "known are"),
        (["--service-ms", "10", "--traffic", "constant:1", "--autoscale-min-replicas", "11"], "is above"),
        (["--service-ms", "10", "--traffic", "constant:1", "--duration", "1e9"], "a week"),
        (["--service-ms", "10", "--traffic", "constant:1e9"], "requests come: 20,000,000 at most"),
        (["--service-ms", "10", "--recorded", "/dev/zero"], "more than 33,554,432 characters"),
    ],
)
def test_wrong_usage(arguments: list[str], text: str) -> None:
    shown = CliRunner().invoke(main, ["simulate", *arguments])
    assert shown.exit_code == 2
    assert text in shown.output + shown.stderr


def test_a_minimum_above_the_room_is_told() -> None:
    arguments = ["simulate", "--traffic", "constant:1", "--duration", "10", "--service-ms", "10", "--room", "1"]
    shown = CliRunner().invoke(main, [*arguments, "--autoscale-min-replicas", "2"])
    assert "room for 1: fewer replicas than the 2 that are always wanted" in shown.output


def test_many_seconds_fit_a_terminal() -> None:
    lines = plot.text(run("constant:5", 200), width=50).splitlines()
    assert {line.count("│") for line in lines} == {2}
    assert all(len(line.split("│")[1]) == 50 for line in lines)
