"""What is refused when an endpoint is declared, beyond what its types say. All problems at once."""

import contextlib
import errno
import re
import socket
from collections.abc import Iterator, Mapping

import psutil

from aks_inference_runtime.api.endpoint import AuthMode, ScoringEndpoint
from aks_inference_runtime.api.errors import Conflict, InvalidInput, NotFound
from aks_inference_runtime.api.keys import SAME_KEYS, key_problem
from aks_inference_runtime.api.supervisor import EndpointSubmission
from aks_inference_runtime.api.traffic import hundredths
from aks_inference_runtime.api.variables import variable_problem
from aks_inference_runtime.local.models import ModelStore
from aks_inference_runtime.scoring.requirements import canonical

_NAME = re.compile(r"[a-z](?:[a-z0-9-]{1,30}[a-z0-9])\Z")
HOST = "127.0.0.1"


def check(submission: EndpointSubmission, models: ModelStore) -> None:
    """Raises InvalidInput, or NotFound when models are all that is missing."""
    invalid = list(_problems(submission))
    missing = []
    for version in submission.endpoint.spec.versions:
        for reference in version.models:
            try:
                models.find(reference)
            except NotFound as error:
                missing.append(f"versions.{version.name}.models: {error}")
    if invalid:
        raise InvalidInput("\n".join(invalid + missing))
    if missing:
        raise NotFound("\n".join(missing))


def _problems(submission: EndpointSubmission) -> Iterator[str]:
    endpoint = submission.endpoint
    yield from _name_problems("metadata.name", endpoint.metadata.name)
    if endpoint.spec.auth is AuthMode.TOKEN and endpoint.spec.token is None:
        yield "spec.token: is required with auth token: whose tokens are accepted (issuer, audiences)"
    for name, key in (("primaryKey", submission.primary_key), ("secondaryKey", submission.secondary_key)):
        if key is not None and (problem := key_problem(key)):
            yield f"{name}: {'; '.join(problem)}"
    if submission.secondary_key is not None and submission.secondary_key == submission.primary_key:
        yield f"secondaryKey: {'; '.join(SAME_KEYS)}"
    for version in endpoint.spec.versions:
        path = f"spec.versions.{version.name}"
        yield from _name_problems(f"{path}.name", version.name)
        try:
            hundredths(version.traffic_percentile)
        except ValueError as error:
            yield f"{path}.trafficPercentile: {error}"
        for name, value in version.environment.environment_variables.items():
            # A secret one is known no earlier than here.
            if problem := variable_problem(name, value):
                yield f"{path}.environment.environmentVariables.{name}: {'; '.join(problem)}"
        try:
            canonical(version.environment.pip_packages)
        except InvalidInput as error:
            yield f"{path}.environment.{error}"


def _name_problems(path: str, name: str) -> Iterator[str]:
    if not _NAME.match(name):
        yield (
            f"{path}: {name!r} must have 3 to 32 characters, lower-case letters, digits or dashes, start with a letter "
            f"and end with a letter or digit"
        )


def check_port(
    endpoint: ScoringEndpoint, router_port: int, others: Mapping[str, int], held: bool, metrics_port: int | None = None
) -> None:
    """Raises Conflict when an endpoint's own port is taken; `held`: it is this endpoint's already."""
    port = endpoint.spec.port
    if port is None:
        return
    if port == router_port:
        raise Conflict(f"spec.port: {port} is the router's own port; give another")
    if port == metrics_port:
        raise Conflict(f"spec.port: {port} is the port of the metrics; give another")
    for name, taken in others.items():
        if taken == port:
            raise Conflict(f"spec.port: {port} is the port of endpoint {name}; give another")
    if not held:
        require_free(port)


def require_free(port: int) -> None:
    """Raises Conflict naming the port, and who holds it where the system tells."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno == errno.EACCES:
                raise Conflict(f"port {port} needs more rights than this user has; give one above 1023") from None
            pid = holder(port)
            by = f" by process {pid} ({_name(pid)})" if pid else ""
            raise Conflict(f"port {port} on {HOST} is in use{by}; end it or give another port") from None


def holder(port: int) -> int | None:
    """The process that listens on a port, where the system tells."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
                return connection.pid
    return None


def _name(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return "unknown"
