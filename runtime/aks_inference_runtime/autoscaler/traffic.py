"""Traffic to replay: recorded, or made from a few words. Pure; randomness is injected."""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from aks_inference_runtime.api.errors import InvalidInput

LONGEST_S = 604_800.0
"""A week: what is recorded, and what is made."""
LONGEST_RECORDING = 32 * 1024 * 1024
"""Characters: a week by the second takes half of it."""
MOST_REQUESTS = 20_000_000
"""Minutes of simulation, and most of a gigabyte of waiting times."""
MOST_PERIODS = 100_000
"""Of made-up traffic: 24 rates each."""
LATEST_S = 1e11
"""Seconds since 1970 that nobody has recorded (the year 5138); in milliseconds it is 1973."""
PATTERNS = "constant:RATE, ramp:FROM-TO, step:LOW-HIGH@SECOND, wave:LOW-HIGH/PERIOD, burst:LOW-HIGH/PERIOD"


@dataclass(frozen=True)
class Rate:
    """Requests a second from one moment on, in a straight line to the next one's."""

    at: float
    per_s: float


def recorded(text: str) -> tuple[Rate, ...]:
    """From CSV with two columns, seconds and requests a second; a heading is allowed. Raises InvalidInput."""
    if len(text) > LONGEST_RECORDING:
        raise InvalidInput(
            f"the recording has more than {LONGEST_RECORDING:,} characters: record fewer lines, between which rates go "
            f"in straight lines"
        )
    rates: list[Rate] = []
    for number, row in enumerate(csv.reader(io.StringIO(text)), start=1):
        if not row:
            continue
        try:
            at, per_s = (float(cell) for cell in row)
        except ValueError:
            if number == 1:
                continue
            raise InvalidInput(f"line {number}: {','.join(row)!r} is not `seconds,requests per second`") from None
        if not (math.isfinite(at) and math.isfinite(per_s)) or per_s < 0 or (rates and at < rates[-1].at):
            raise InvalidInput(f"line {number}: seconds must grow and rates must not be negative")
        if abs(at) >= LATEST_S:
            raise InvalidInput(
                f"line {number}: {row[0].strip()} is no time in seconds, but in milliseconds since 1970 or finer: give "
                f"seconds"
            )
        rates.append(Rate(at, per_s))
    if len(rates) < 2:
        raise InvalidInput("a recording needs at least two lines of `seconds,requests per second`")
    if (span := rates[-1].at - rates[0].at) > LONGEST_S:
        raise InvalidInput(
            f"the recording goes over {span:g} seconds: a week ({LONGEST_S:g}) at most; are its times in seconds?"
        )
    return bounded(tuple(Rate(rate.at - rates[0].at, rate.per_s) for rate in rates))


def bounded(rates: tuple[Rate, ...]) -> tuple[Rate, ...]:
    """The same. Raises InvalidInput where more requests come than can be simulated."""
    requests = sum((one.per_s + other.per_s) / 2 * (other.at - one.at) for one, other in pairwise(rates))
    if requests > MOST_REQUESTS:
        raise InvalidInput(
            f"{requests:.3g} requests come: {MOST_REQUESTS:,} at most; take a part of the time, or of the rate"
        )
    return rates


def pattern(text: str, duration_s: float) -> tuple[Rate, ...]:
    """From one of `PATTERNS`. Raises InvalidInput."""
    kind, _, rest = text.partition(":")
    try:
        match kind:
            case "constant":
                return (Rate(0, _rate(rest)), Rate(duration_s, _rate(rest)))
            case "ramp":
                low, high = _two(rest)
                return (Rate(0, low), Rate(duration_s, high))
            case "step":
                levels, _, at = rest.partition("@")
                low, high = _two(levels)
                return (Rate(0, low), Rate(float(at), low), Rate(float(at), high), Rate(duration_s, high))
            case "wave" | "burst":
                levels, _, period = rest.partition("/")
                return tuple(_periods(kind, *_two(levels), _period(period, duration_s), duration_s))
    except ValueError as error:
        raise InvalidInput(f"traffic {text!r}: {error}; known: {PATTERNS}") from None
    raise InvalidInput(f"traffic {text!r}: known are {PATTERNS}")


def arrivals(rates: Sequence[Rate], random: Random) -> Iterator[float]:
    """Moments at which requests come: a Poisson process with these rates.

    One of rate 1 on the axis of requests that are to be expected: each costs one draw, however high a peak is.
    """
    until = random.expovariate(1.0)
    for one, other in pairwise(rates):
        span = other.at - one.at
        expected = (one.per_s + other.per_s) / 2 * span
        while until < expected:
            slope = (other.per_s - one.per_s) / span
            # Where the area under the line is that; the root's other form loses digits where the slope is small.
            passed = 2 * until / (one.per_s + math.sqrt(max(0.0, one.per_s**2 + 2 * slope * until)))
            yield one.at + min(passed, span)
            until += random.expovariate(1.0)
        until -= expected


def _periods(kind: str, low: float, high: float, period: float, duration_s: float) -> Iterator[Rate]:
    if kind == "wave":
        steps = max(2, math.ceil(duration_s / period * 24))
        for step in range(steps + 1):
            at = duration_s * step / steps
            yield Rate(at, low + (high - low) * (1 - math.cos(2 * math.pi * at / period)) / 2)
        return
    at = 0.0
    while at < duration_s:
        # A tenth of each period is the burst.
        begin, end = min(at + period * 0.9, duration_s), min(at + period, duration_s)
        yield from (Rate(at, low), Rate(begin, low), Rate(begin, high), Rate(end, high))
        at = end
    yield Rate(duration_s, low)


def _two(text: str) -> tuple[float, float]:
    low, dash, high = text.partition("-")
    if not dash:
        raise ValueError("two rates with a dash between them are needed")
    return _rate(low), _rate(high)


def _rate(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{text!r} is no rate")
    return value


def _period(text: str, duration_s: float) -> float:
    value = float(text)
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"{text!r} is no period")
    if duration_s / value > MOST_PERIODS:
        raise ValueError(f"a period of {text} s fits {duration_s:g} s more than {MOST_PERIODS:,} times")
    return value
