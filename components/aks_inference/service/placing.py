"""How the pods of a version are placed on a cluster: its image, and the rules about it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aks_inference.findings import Finding, Severity
from aks_inference.pods import LONGEST_SCORE_S
from aks_inference.service.settings import VersionSettings
from aks_inference_runtime.api import content
from aks_inference_runtime.api.endpoint import Code, Container

CLUSTER_ONLY = (
    "image",
    "custom_image",
    "container_port",
    "score_path",
    "swagger_path",
    "health_path",
    "health_port",
    "service_account_name",
    "image_pull_secrets",
    "model_secret_name",
    "max_surge",
    "max_unavailable",
    "spot",
)
CODE_LIMIT_BYTES = 700 * 1024
"""Of all files of the code: they travel as a ConfigMap, which holds 1 MiB with its encoding."""
_PATHS = ("score_path", "swagger_path", "health_path")


@dataclass(frozen=True)
class Placing:
    """How the pods of a version are placed and replaced."""

    service_account: str | None = None
    pull_secrets: tuple[str, ...] = ()
    max_surge: str | int = 1
    """Pods beyond the wanted number while they are replaced: a new one is ready before an old one goes."""
    max_unavailable: str | int = 0
    model_secret: str | None = None
    """With access to the stores of the models."""
    spot: bool = False
    """Whether its pods may run on spot nodes."""


PLACING = Placing()


def code_files(code: Code) -> dict[str, Path]:
    """The code's files by their names under its folder."""
    if code.source_directory is None:
        script = Path(code.entry_script)
        return {script.name: script}
    return content.code_files(Path(code.source_directory))


def code_rules(size: int) -> Iterator[Finding]:
    """What of the code does not fit a ConfigMap. `size`: of all its files in bytes."""
    if size > CODE_LIMIT_BYTES:
        most = CODE_LIMIT_BYTES // 1024
        rule = f"its folder holds {size / 1024:,.0f} KiB; a Kubernetes target takes {most} KiB of code"
        mend = "give the script a folder of its own, and put large files into the image"
        yield Finding(("inference_config",), rule, mend)


def placing(settings: VersionSettings) -> Placing:
    """From the arguments."""
    default = PLACING
    surge, unavailable = settings.max_surge, settings.max_unavailable
    return Placing(
        settings.service_account_name,
        settings.image_pull_secrets,
        default.max_surge if surge is None else surge,
        default.max_unavailable if unavailable is None else unavailable,
        settings.model_secret_name,
        bool(settings.spot),
    )


def container(settings: VersionSettings, image: str | None) -> Container | None:
    """What a replica runs; None on the local target. `image`: given, or a word for one that is not known yet."""
    if image is None:
        return None
    given = {
        "port": settings.container_port,
        "score_path": settings.score_path,
        "swagger_path": settings.swagger_path,
        "health_path": settings.health_path,
        "health_port": settings.health_port,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    return Container.model_validate({"image": image, **chosen})


def cluster_rules(settings: VersionSettings, gpu: bool) -> Iterator[Finding]:
    """Settings of a version on a cluster."""
    if settings.model_secret_name is not None and not settings.models and not settings.collect_model_data:
        rule = "has no use: there are no @models, and no model data is collected"
        yield Finding(("model_secret_name",), rule, "leave it out", settings.model_secret_name)
    if settings.gpu_cores > 0 and not gpu:
        rule = "asks for GPUs that no node of the target is known to have: replicas may stay Unschedulable"
        yield Finding(("gpu_cores",), rule, "check the node pools", settings.gpu_cores, Severity.WARNING)
    longest, score = LONGEST_SCORE_S * 1_000, settings.scoring_timeout_ms
    if score > longest:
        rule = "is longer than a router waits for its requests: what scores for more than ten minutes may end with it"
        mend = f"use {longest:,} or less, or send again what an upgrade, a scale-down or a drain of the router ends"
        yield Finding(("scoring_timeout_ms",), rule, mend, score, Severity.WARNING)
    for name in _PATHS:
        path = getattr(settings, name)
        if path is not None and not path.startswith("/"):
            yield Finding((name,), "is no path", "begin it with /", path)
    if _none(settings.max_surge, 1) and _none(settings.max_unavailable, 0):
        rule = "and @max_unavailable are both 0: no pod could ever be replaced"
        yield Finding(("max_surge",), rule, "raise one of them", settings.max_surge)


def _none(value: str | int | None, default: int) -> bool:
    return (default if value is None else value) in (0, "0%")


def local_only(settings: VersionSettings) -> Iterator[Finding]:
    """Settings that only a cluster has, refused elsewhere."""
    for name in CLUSTER_ONLY:
        value = getattr(settings, name)
        if value not in (None, ()):
            rule = "is only for a Kubernetes target"
            yield Finding((name,), rule, "leave it out, or use an InferenceRuntime as the target", value)
