"""One request to an endpoint, as any client would send it."""

import json
import time
from dataclasses import dataclass

import aiohttp

from aks_inference_runtime.api.client import cause_text
from aks_inference_runtime.api.endpoint import AuthMode, Protocol
from aks_inference_runtime.api.errors import InvalidInput, NotFound, RuntimeUnavailable
from aks_inference_runtime.cli.sources import Source

VERSION_HEADER = "x-aks-inference-version"
REASON_HEADER = "x-aks-inference-reason"


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    text: str
    version: str | None
    reason: str | None
    seconds: float

    def note(self) -> str:
        """Which version answered, and why not."""
        version = f", version {self.version}" if self.version else ""
        return version + (f", {self.reason}" if self.reason else "")

    def hint(self, name: str) -> str:
        """Where to look after an error of the endpoint's own; empty where there is nothing to be found."""
        logs = f"aks-inference logs {name}" + (f" --version {self.version}" if self.version else "")
        match self.reason:
            case None if self.status >= 500:
                return f"the model answered so: see `{logs}`"
            case "replica-lost":
                return f"a replica ended with it: see `{logs} --all`"
            case "scoring-timeout":
                return f"the model took too long: see `{logs}`"
            case "no-replica":
                return f"why: `aks-inference status {name}`"
            case _:
                return ""

    def as_json(self) -> dict[str, object]:
        """For pipelines; the body as JSON where it is some."""
        try:
            body = json.loads(self.text)
        except ValueError:
            body = self.text
        return {
            "status": self.status,
            "version": self.version,
            "reason": self.reason,
            "seconds": round(self.seconds, 6),
            "body": body,
        }


async def score_once(
    source: Source, name: str, body: bytes, version: str | None, key: str | None, timeout_s: float
) -> Answer:
    """Sends a body to an endpoint's scoring URI with its stored primary key.

    Args:
        source: Required. Of the cluster.
        name: Required. The endpoint.
        body: Required. Sent as it is, as application/json.
        version: Required. The version to ask for; None: the router chooses.
        key: Required. Another key than the stored one; None: the stored one.
        timeout_s: Required. Seconds.

    Raises:
        InvalidInput: it asks for a token, or for a key that is not known here; it speaks gRPC.
        NotFound: no such endpoint, or no such version of it.
        RuntimeUnavailable: the supervisor or the router does not answer.
    """
    view = await source.endpoint(name)
    spec = view.endpoint.spec
    present = {one.name for one in spec.versions} | {one.name for one in view.status.versions}
    if version is not None and version not in present:
        raise NotFound(f"endpoint {name} has no version {version!r} (versions: {', '.join(sorted(present))})")
    if spec.protocol is Protocol.GRPC:
        raise InvalidInput(
            f"endpoint {name} speaks gRPC: call {view.status.scoring_uri.rpartition('/')[0]} with its own client, "
            f"and the metadata x-aks-inference-endpoint: {name}"
        )
    headers = {"content-type": "application/json"}
    if spec.auth is AuthMode.KEY:
        headers["authorization"] = f"Bearer {key or await source.key(name)}"
    elif spec.auth is AuthMode.TOKEN:
        if key is None:
            raise InvalidInput(f'endpoint {name} asks for a token: AKS_INFERENCE_KEY="$(aks-inference token {name})"')
        headers["authorization"] = f"Bearer {key}"
    if version is not None:
        headers[VERSION_HEADER] = version
    began = time.perf_counter()
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s)) as session,
            session.post(view.status.scoring_uri, data=body, headers=headers) as response,
        ):
            text = (await response.read()).decode(errors="replace")
            return Answer(
                response.status,
                text,
                response.headers.get(VERSION_HEADER),
                response.headers.get(REASON_HEADER),
                time.perf_counter() - began,
            )
    except (aiohttp.ClientError, TimeoutError) as error:
        late = isinstance(error, TimeoutError)
        why = f"nothing within {timeout_s:g} s" if late else cause_text(error)
        raise RuntimeUnavailable(f"{view.status.scoring_uri} does not answer: {why}") from None
