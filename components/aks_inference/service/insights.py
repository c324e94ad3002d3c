"""Application Insights: requests, what is printed and errors of the scoring server, sent by its Azure Monitor exporter.

Azure ML took the key from the workspace; here the connection string is an argument. The server reads two variables
(azureml-inference-server-http 1.5: AML_APP_INSIGHTS_ENABLED, AML_APP_INSIGHTS_KEY) and uses the instrumentation key
alone, so it sends to the public cloud's address.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from aks_inference.findings import NOTHING, Finding, Severity
from aks_inference.values import Flag, Leaf, Read, Spec, is_late

if TYPE_CHECKING:
    from aks_inference.service.endpoint import VersionPlan

ENABLED = "AML_APP_INSIGHTS_ENABLED"
KEY = "AML_APP_INSIGHTS_KEY"
ARGUMENT = "app_insights_connection_string"
_KEY = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_OTHER_CLOUDS = (".azure.us", ".azure.cn")
T = TypeVar("T", bound="InsightsSettings")


class InsightsSettings(Spec):
    """Where telemetry goes."""

    enable_app_insights: Flag = False
    app_insights_connection_string: Leaf | None = None


def instrumentation_key(text: str) -> str:
    """Of a connection string, or of a bare key. Raises ValueError, without the text: it is a secret."""
    if _KEY.fullmatch(text.strip()):
        return text.strip().lower()
    parts = dict(part.split("=", 1) for part in text.split(";") if "=" in part)
    named = {name.strip().lower(): value.strip() for name, value in parts.items()}
    if not _KEY.fullmatch(found := named.get("instrumentationkey", "")):
        raise ValueError("has no InstrumentationKey=<GUID>")
    return found.lower()


def insights_findings(read: Read[Any]) -> Iterator[Finding]:
    """The rules."""
    settings: InsightsSettings = read.spec
    given, at = settings.app_insights_connection_string, (ARGUMENT,)
    if not read.whole("enable_app_insights", ARGUMENT):
        return
    if settings.enable_app_insights and given is None:
        mend = "give the connection string of the Application Insights resource (its `connection_string` output)"
        yield Finding(at, "is required with @enable_app_insights", mend)
    elif given is not None and not settings.enable_app_insights:
        yield Finding(at, "has no effect without @enable_app_insights", "add @enable_app_insights true", NOTHING)
    elif given is not None and not is_late(given):
        try:
            instrumentation_key(given)
        except ValueError as error:
            mend = "copy it from the resource's overview: InstrumentationKey=…;IngestionEndpoint=…"
            yield Finding(at, str(error), mend, NOTHING)
        if any(cloud in given for cloud in _OTHER_CLOUDS):
            rule = "is of another cloud: the scoring server sends to the public cloud's address alone"
            yield Finding(at, rule, "use a resource of the public cloud", NOTHING, Severity.WARNING)


def with_insights(plan: "VersionPlan", settings: InsightsSettings) -> "VersionPlan":
    """The version with its variables; the key is secret, so it stands where what is known later does."""
    given = settings.app_insights_connection_string
    if not settings.enable_app_insights or given is None:
        return plan
    key = _later(given) if is_late(given) else Hidden(instrumentation_key(given))
    variables = {**plan.version.environment.environment_variables, ENABLED: "true"}
    environment = plan.version.environment.model_copy(update={"environment_variables": variables})
    version = plan.version.model_copy(update={"environment": environment})
    return replace(plan, version=version, late_variables={**plan.late_variables, KEY: key})


def _later(given: Any) -> Any:  # noqa: ANN401 - outputs
    """Secret also where the output that was given is not."""
    import pulumi

    def key(text: str) -> str:
        try:
            return instrumentation_key(text)
        except ValueError as error:
            raise pulumi.RunError(f"{ARGUMENT}: {error}") from None

    return pulumi.Output.secret(given.apply(key))


class Hidden:
    """A plain value that is to be a secret output, once there is an engine: checks run without one."""

    def __init__(self, value: str) -> None:
        self._value = value

    def secret(self) -> Any:  # noqa: ANN401 - an output
        """As an output."""
        import pulumi

        return pulumi.Output.secret(self._value)


def shown_to_engine(value: object) -> object:
    """A value as a resource's input takes it."""
    return value.secret() if isinstance(value, Hidden) else value
