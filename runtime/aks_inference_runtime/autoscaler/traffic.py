"""Traffic to replay: recorded, or made from a few words. Pure; randomness is injected."""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from aks_inference_runtime.api.errors import InvalidInput

PATTERNS = "constant:RATE, ramp:FROM-TO, step:LOW-HIGH@SECOND, wave:LOW-HIGH/PERIOD, burst:LOW-HIGH/PERIOD"


@dataclass(frozen=True)
class Rate:
    """Requests a second from one moment on, in a straight line to the next one's."""

    at: float
    per_s: float


def recorded(text: str) -> tuple[Rate, ...]:
    """From CSV with two columns, seconds and requests a second; a heading is allowed. Raises InvalidInput."""
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
        rates.append(Rate(at, per_s))
    if len(rates) < 2:
        raise InvalidInput("a recording needs at least two lines of `seconds,requests per second`")
    return tuple(Rate(rate.at - rates[0].at, rate.per_s) for rate in rates)


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
                return tuple(_periods(kind, *_two(levels), _positive(period), duration_s))
    except ValueError as error:
        raise InvalidInput(f"traffic {text!r}: {error}; known: {PATTERNS}") from None
    raise InvalidInput(f"traffic {text!r}: known are {PATTERNS}")


def arrivals(rates: Sequence[Rate], random: Random) -> Iterator[float]:
    """Moments at which requests come: a Poisson process with these rates."""
    highest = max(rate.per_s for rate in rates)
    now, index, end = 0.0, 0, rates[-1].at
    while highest > 0:
        now += random.expovariate(highest)
        if now >= end:
            return
        while rates[index + 1].at <= now:
            index += 1
        if random.random() * highest < _between(rates[index], rates[index + 1], now):
            yield now


def _between(one: Rate, other: Rate, at: float) -> float:
    return one.per_s + (other.per_s - one.per_s) * (at - one.at) / (other.at - one.at)


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


def _positive(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"{text!r} is no period")
    return value
