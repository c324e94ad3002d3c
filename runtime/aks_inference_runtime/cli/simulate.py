"""`aks-inference simulate`: sizes a service before it is deployed."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from random import Random

import click

from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.autoscaler import plot, traffic
from aks_inference_runtime.autoscaler.policy import Rules
from aks_inference_runtime.autoscaler.simulate import Outcome, Service, simulate
from aks_inference_runtime.cli.numbers import NumberRange


@click.command("simulate")
@click.option("--traffic", "words", help=f"Made-up traffic: {traffic.PATTERNS} (requests a second).")
@click.option(
    "--recorded",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Recorded traffic: CSV with two columns, seconds and requests a second; at most a week, 20 million requests.",
)
@click.option(
    "--duration",
    "duration_s",
    default=600.0,
    type=NumberRange(0),
    show_default=True,
    help="Seconds of made-up traffic.",
)
@click.option("--service-ms", type=NumberRange(min=0, min_open=True), required=True, help="Time of one request.")
@click.option("--spread", default=0.2, show_default=True, type=NumberRange(0, 3), help="Of that time, as a part.")
@click.option("--start-seconds", default=5.0, show_default=True, type=NumberRange(0), help="Start of a replica.")
@click.option("--autoscale-min-replicas", default=1, show_default=True, type=click.IntRange(0))
@click.option("--autoscale-max-replicas", default=10, show_default=True, type=click.IntRange(1))
@click.option("--autoscale-refresh-seconds", default=1.0, show_default=True, type=NumberRange(0, min_open=True))
@click.option(
    "--autoscale-target-utilization", default=70.0, show_default=True, type=NumberRange(0, 100, min_open=True)
)
@click.option("--autoscale-scale-down-delay-seconds", default=60.0, show_default=True, type=NumberRange(0))
@click.option("--replica-max-concurrent-requests", default=1, show_default=True, type=click.IntRange(1))
@click.option("--max-request-wait-time", default=500, show_default=True, type=click.IntRange(1), help="Milliseconds.")
@click.option("--max-queued-requests", default=1_000, show_default=True, type=click.IntRange(0))
@click.option("--cold-start-timeout-ms", default=60_000, show_default=True, type=click.IntRange(1))
@click.option("--room", default=1_000_000, type=click.IntRange(0), help="Replicas that the nodes hold; default: all.")
@click.option("--replica-cost-per-hour", default=0.0, show_default=True, type=NumberRange(0))
@click.option(
    "--seed", default=1, type=click.IntRange(0), show_default=True, help="The same seed gives the same outcome."
)
@click.option("--svg", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="Also writes a picture.")
@click.option("--json", "as_json", is_flag=True, help="One object, with every second.")
def simulate_command(
    *,
    words: str | None,
    recorded: Path | None,
    duration_s: float,
    svg: Path | None,
    as_json: bool,
    seed: int,
    **settings: float,
) -> None:
    """Replays traffic through the autoscaler: replicas, utilization, rejections and cost of a service.

    The settings are those of a service, with its defaults; the decisions are made by the code that runs in the cluster.
    """
    try:
        rates = _rates(words, recorded, duration_s)
        service = _service(settings)
    except InvalidInput as error:
        click.echo(
            json.dumps({"error": "InvalidInput", "message": str(error)}) if as_json else f"error: {error}",
            err=not as_json,
        )
        sys.exit(2)
    random = Random(seed)  # noqa: S311 - repeatable on purpose
    outcome = simulate(service, traffic.arrivals(rates, random), rates[-1].at, random)
    if svg is not None:
        svg.write_text(plot.svg(outcome, f"{words or recorded}: {service.service_s * 1_000:g} ms a request"))
    if as_json:
        click.echo(json.dumps(asdict(outcome)))
    else:
        _show(outcome, service)


def _rates(words: str | None, recorded: Path | None, duration_s: float) -> tuple[traffic.Rate, ...]:
    if (words is None) == (recorded is None):
        raise InvalidInput("give one of --traffic and --recorded")
    if recorded is not None:
        with recorded.open(errors="replace") as file:
            return traffic.recorded(file.read(traffic.LONGEST_RECORDING + 1))
    if not 1 <= duration_s <= traffic.LONGEST_S:
        raise InvalidInput(f"--duration {duration_s:g}: between 1 second and a week (604800)")
    return traffic.bounded(traffic.pattern(words or "", duration_s))


def _service(settings: Mapping[str, float]) -> Service:
    least, most = int(settings["autoscale_min_replicas"]), int(settings["autoscale_max_replicas"])
    if least > most:
        raise InvalidInput(f"--autoscale-min-replicas {least} is above --autoscale-max-replicas {most}")
    return Service(
        rules=Rules(
            minimum=least,
            maximum=most,
            target=settings["autoscale_target_utilization"] / 100,
            max_concurrent=int(settings["replica_max_concurrent_requests"]),
            scale_down_delay_s=settings["autoscale_scale_down_delay_seconds"],
        ),
        service_s=settings["service_ms"] / 1_000,
        spread=settings["spread"],
        start_s=settings["start_seconds"],
        refresh_s=settings["autoscale_refresh_seconds"],
        max_wait_s=settings["max_request_wait_time"] / 1_000,
        cold_wait_s=settings["cold_start_timeout_ms"] / 1_000,
        max_queued=int(settings["max_queued_requests"]),
        room=int(settings["room"]),
        replica_cost_per_hour=settings["replica_cost_per_hour"],
    )


def _show(outcome: Outcome, service: Service) -> None:
    click.echo(plot.text(outcome))
    lost = outcome.queue_full + outcome.timed_out
    share = 100 * lost / outcome.requests if outcome.requests else 0.0
    click.echo(
        f"\n{outcome.requests} requests, {outcome.served} served, {lost} rejected ({share:.2f} %:"
        f" {outcome.queue_full} × 429, {outcome.timed_out} × 503)"
        f"\nwaited: median {outcome.wait_p50_ms:g} ms, p99 {outcome.wait_p99_ms:g} ms,"
        f" at most {outcome.wait_max_ms:g} ms"
        f"\nreplicas: at most {outcome.most_replicas}, {outcome.changes} changes, {outcome.replica_hours:g} hours"
        + (f", cost {outcome.cost:g}" if service.replica_cost_per_hour else "")
    )
    if service.rules.minimum > service.room:
        click.echo(f"room for {service.room}: fewer replicas than the {service.rules.minimum} that are always wanted")
    for at, reason in outcome.reasons[:20]:
        click.echo(f"  {at:>8.1f} s  {reason}")
    if len(outcome.reasons) > 20:
        click.echo(f"  … and {len(outcome.reasons) - 20} more (--json has all)")
