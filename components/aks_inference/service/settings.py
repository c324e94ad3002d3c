"""The settings of one version, shared by ModelWebService and ControlledRolloutEndpoint, and the rules between them.

Names, units and defaults are Azure ML's (azureml-core 1.61, AksWebservice.deploy_configuration; reference:
azureml-v1.md 2.1); the last group is this package's own.
"""

from collections.abc import Iterator
from functools import lru_cache
from operator import attrgetter
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from aks_inference.findings import Finding, Severity
from aks_inference.values import (
    Anys,
    Flag,
    Labels,
    Leaf,
    Leaves,
    Number,
    Object,
    Read,
    Spec,
    Text,
    Texts,
    Whole,
    count_or_percent,
)
from aks_inference_runtime.api.endpoint import (
    LONGEST_MS,
    LONGEST_S,
    MOST,
    MOST_QUEUED,
    Probe,
    Requests,
    Resources,
    Scaling,
)

_RESOURCES, _SCALING, _REQUESTS, _PROBE = Resources(), Scaling(), Requests(), Probe()
MAX_MODELS = 1_000
"""Models of one deployment (source document 003; the old SDK left it to its server)."""


def _at_most(limit: int, whose: str) -> AfterValidator:
    def check(value: int) -> int:
        if value > limit:
            raise PydanticCustomError("most", "is more than {whose}", {"whose": whose})
        return value

    return AfterValidator(check)


_COUNTS = _at_most(MOST, "Kubernetes counts")
Count = Annotated[Whole, _COUNTS]
PositiveWhole = Annotated[Count, Field(gt=0)]
Milliseconds = Annotated[Whole, Field(gt=0), _at_most(LONGEST_MS, "the router's timers hold")]
Seconds = Annotated[Whole, Field(gt=0), _at_most(LONGEST_S, "the timers of a replica hold")]
PositiveNumber = Annotated[Number, Field(gt=0)]
POSITIVE = "use a value above 0"
COUNT = "use 1 or more"
MILLISECONDS = f"use 1 to {LONGEST_MS:,} (12 days)"
SECONDS = f"use 1 to {LONGEST_S:,} (12 days)"
MOST_WORKERS = 1_000
"""Of one replica: each is a process of tens of megabytes at least."""
Port = Annotated[Whole, Field(ge=1, le=65_535)]
PORT = "use a port from 1 to 65,535"
Share = Annotated[int | str, BeforeValidator(count_or_percent)]
SHARE = "use a number of replicas, or a percentage such as 25%"


class VersionSettings(Spec):
    """What a version runs and how. None: not given, the documented default applies."""

    models: Anys = ()
    inference_config: Any = None
    inference_config_file: Any = None
    deployment_config: Any = None

    cpu_cores: PositiveNumber = Field(_RESOURCES.cpu_cores, description=POSITIVE)
    cpu_cores_limit: PositiveNumber | None = Field(None, description=POSITIVE)
    memory_gb: PositiveNumber = Field(_RESOURCES.memory_gb, description=POSITIVE)
    memory_gb_limit: PositiveNumber | None = Field(None, description=POSITIVE)
    gpu_cores: Annotated[Whole, Field(ge=0)] = Field(0, description="use whole GPUs")

    num_replicas: PositiveWhole | None = Field(None, description="use 1 or more; leave it out to scale automatically")
    autoscale_enabled: Flag | None = None
    autoscale_min_replicas: Annotated[Count, Field(ge=0)] | None = Field(
        None, description="use 1 or more, or 0 with @scale_to_zero"
    )
    autoscale_max_replicas: PositiveWhole | None = Field(None, description=COUNT)
    autoscale_refresh_seconds: PositiveNumber | None = Field(None, description=POSITIVE)
    autoscale_target_utilization: Annotated[Number, Field(gt=0, le=100)] | None = Field(
        None, description="use a percentage above 0 and up to 100"
    )

    scoring_timeout_ms: Milliseconds = Field(_REQUESTS.scoring_timeout_ms, description=MILLISECONDS)
    replica_max_concurrent_requests: PositiveWhole = Field(_REQUESTS.replica_max_concurrent_requests, description=COUNT)
    max_request_wait_time: Milliseconds = Field(_REQUESTS.max_request_wait_time, description=MILLISECONDS)

    period_seconds: Seconds = Field(_PROBE.period_seconds, description=SECONDS)
    initial_delay_seconds: Seconds = Field(_PROBE.initial_delay_seconds, description=SECONDS)
    timeout_seconds: Seconds = Field(_PROBE.timeout_seconds, description=SECONDS)
    success_threshold: PositiveWhole = Field(_PROBE.success_threshold, description=COUNT)
    failure_threshold: PositiveWhole = Field(_PROBE.failure_threshold, description=COUNT)

    collect_model_data: Flag = False
    model_data_store: Text | None = None
    model_data_workspace: Text | None = None
    tags: Leaves
    properties: Labels
    description: Leaf | None = None

    autoscale_scale_down_delay_seconds: Annotated[Number, Field(ge=0)] | None = Field(
        None, description="use 0 or more seconds"
    )
    scale_to_zero: Flag | None = None
    max_queued_requests: Annotated[Whole, Field(ge=0), _at_most(MOST_QUEUED, "one router holds")] = Field(
        _REQUESTS.max_queued_requests, description=f"use 0 to {MOST_QUEUED:,}"
    )
    cold_start_timeout_ms: Milliseconds = Field(_REQUESTS.cold_start_timeout_ms, description=MILLISECONDS)

    image: Text | None = None
    custom_image: Object | None = None
    container_port: Port | None = Field(None, description=PORT)
    score_path: Text | None = None
    swagger_path: Text | None = None
    health_path: Text | None = None
    health_port: Port | None = Field(None, description=PORT)
    service_account_name: Text | None = None
    image_pull_secrets: Texts = ()
    model_secret_name: Text | None = None
    max_surge: Share | None = Field(None, description=SHARE)
    max_unavailable: Share | None = Field(None, description=SHARE)
    spot: Flag | None = None


AUTOSCALE = (
    "autoscale_min_replicas",
    "autoscale_max_replicas",
    "autoscale_refresh_seconds",
    "autoscale_target_utilization",
    "autoscale_scale_down_delay_seconds",
)


_resources_of = attrgetter(*Resources.model_fields)
_requests_of = attrgetter(*Requests.model_fields)
_probe_of = attrgetter(*Probe.model_fields)
"""A part's fields have the names of the arguments."""


def resources(settings: VersionSettings) -> Resources:
    """What one replica asks for."""
    found: Resources = _part(Resources, _resources_of(settings))
    return found


@lru_cache(maxsize=1024)
def _part(kind: Any, values: tuple[Any, ...]) -> Any:  # noqa: ANN401 - of any kind
    """Checked once: the versions of a program differ in few of them."""
    return kind(**dict(zip(kind.model_fields, values, strict=True)))


def autoscales(settings: VersionSettings) -> bool:
    """Azure ML's default: on unless a number of replicas is given."""
    return settings.num_replicas is None if settings.autoscale_enabled is None else settings.autoscale_enabled


def scaling(settings: VersionSettings) -> Scaling:
    """How many replicas."""
    given = {name: value for name in AUTOSCALE if (value := getattr(settings, name)) is not None}
    if settings.scale_to_zero:
        given["autoscale_min_replicas"] = 0
    return _scaled(autoscales(settings), settings.num_replicas, tuple(given.items()))


@lru_cache(maxsize=1024)
def _scaled(autoscale: bool, replicas: int | None, given: tuple[tuple[str, Any], ...]) -> Scaling:
    return Scaling(autoscale_enabled=autoscale, num_replicas=replicas, **dict(given))


def requests(settings: VersionSettings) -> Requests:
    """How requests are admitted."""
    found: Requests = _part(Requests, _requests_of(settings))
    return found


def probe(settings: VersionSettings) -> Probe:
    """Liveness."""
    found: Probe = _part(Probe, _probe_of(settings))
    return found


def setting_rules(read: Read[Any]) -> Iterator[Finding]:
    """The rules between the settings of one version."""
    settings: VersionSettings = read.spec
    yield from _limits(read)
    yield from _scaling_rules(read)
    if len(settings.models) > MAX_MODELS:
        rule = f"{len(settings.models):,} models; one deployment takes at most {MAX_MODELS:,}"
        yield Finding(("models",), rule, "put several files into one registered model")
    if read.whole("scoring_timeout_ms", "max_request_wait_time") and (
        settings.max_request_wait_time > settings.scoring_timeout_ms
    ):
        rule = f"is longer than @scoring_timeout_ms {settings.scoring_timeout_ms}: requests may wait longer than score"
        wait = settings.max_request_wait_time
        yield Finding(("max_request_wait_time",), rule, "check both units: milliseconds", wait, Severity.WARNING)
    workers = settings.replica_max_concurrent_requests
    if read.whole("replica_max_concurrent_requests") and workers > MOST_WORKERS and settings.custom_image is None:
        rule = "is as many processes of the scoring server in one replica"
        mend = f"use {MOST_WORKERS:,} or fewer, and more replicas"
        yield Finding(("replica_max_concurrent_requests",), rule, mend, workers)
    if read.whole("success_threshold") and settings.success_threshold != 1:
        rule = "has no effect: a liveness probe counts as alive after one success, and Kubernetes allows it no more"
        yield Finding(("success_threshold",), rule, "leave it out", settings.success_threshold, Severity.WARNING)


def _limits(read: Read[Any]) -> Iterator[Finding]:
    settings: VersionSettings = read.spec
    for request in ("cpu_cores", "memory_gb"):
        limit = f"{request}_limit"
        asked, most = getattr(settings, request), getattr(settings, limit)
        if read.whole(request, limit) and most is not None and most < asked:
            rule = f"is below @{request} {asked:g}"
            yield Finding((limit,), rule, f"use {asked:g} or more, or lower @{request}", most)


def _to_zero(least: int | None, allowed: bool | None) -> Iterator[Finding]:
    if least == 0 and not allowed:
        rule = "must be above 0, as in Azure ML, unless @scale_to_zero is true"
        yield Finding(("autoscale_min_replicas",), rule, "use 1 or more, or add @scale_to_zero true", least)
    if least and allowed:
        rule = f"cannot be combined with @autoscale_min_replicas {least}"
        yield Finding(("scale_to_zero",), rule, "leave out one of them", value=True)


def _scaling_rules(read: Read[Any]) -> Iterator[Finding]:
    settings: VersionSettings = read.spec
    fixed = settings.num_replicas
    if not read.whole("autoscale_enabled", "num_replicas"):
        return
    if settings.autoscale_enabled and fixed is not None:
        rule = f"cannot be combined with @num_replicas {fixed}"
        mend = "leave out one of them; @autoscale_min_replicas and @autoscale_max_replicas set the bounds"
        yield Finding(("autoscale_enabled",), rule, mend, value=True)
    if settings.autoscale_enabled is False and fixed is None:
        yield Finding(("num_replicas",), "is required when @autoscale_enabled is false", "add @num_replicas")
    if settings.autoscale_enabled is not True:
        for name in (*AUTOSCALE, "scale_to_zero"):
            value = getattr(settings, name)
            if value is not None and value is not False:
                yield Finding((name,), "has no effect without @autoscale_enabled", "add @autoscale_enabled true", value)
    if read.whole("autoscale_min_replicas", "scale_to_zero") and settings.autoscale_enabled:
        yield from _to_zero(settings.autoscale_min_replicas, settings.scale_to_zero)
    if read.whole("autoscale_min_replicas", "autoscale_max_replicas"):
        least, most = settings.autoscale_min_replicas, settings.autoscale_max_replicas
        low = _SCALING.autoscale_min_replicas if least is None else least
        high = _SCALING.autoscale_max_replicas if most is None else most
        if low > high and settings.autoscale_enabled:
            default = " (the default)" if most is None else ""
            rule = f"is above @autoscale_max_replicas {high}{default}"
            yield Finding(("autoscale_min_replicas",), rule, f"lower it to {high}, or raise the maximum", low)
