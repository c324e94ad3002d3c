"""What fails at every round is told now and then, and counted."""

import logging

import pytest

from aks_inference_runtime.observability.failures import MOST_PLACES, TOLD_S, Failures

LOG = logging.getLogger("test.failures")


def failed(failures: Failures, text: str = "this one") -> None:
    try:
        raise RuntimeError(text)
    except RuntimeError as error:
        failures.tell(error)


def test_the_same_failure_is_told_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    failures = Failures(LOG, "a round failed", lambda: now)
    for number in range(50):
        failed(failures, f"at {number}")
    try:
        raise ValueError("another one")
    except ValueError as error:
        failures.tell(error)
    now += TOLD_S
    failed(failures)
    assert [record.getMessage() for record in caplog.records] == [
        "a round failed",
        "a round failed",
        "a round failed (49 more since it was told last)",
    ]
    assert all(record.exc_info for record in caplog.records)


def test_it_remembers_few() -> None:
    failures = Failures(LOG, "a round failed", lambda: 0.0)
    for number in range(2 * MOST_PLACES):
        failures.tell(type(f"E{number}", (Exception,), {})())
    assert len(failures._told) <= MOST_PLACES
