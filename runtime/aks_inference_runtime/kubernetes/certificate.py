"""`python -m aks_inference_runtime.kubernetes.certificate`: the pod that mounts a Key Vault's certificate.

The Secrets Store CSI driver keeps a Secret in step with the vault while a pod mounts its volume: that is all that the
pod is for. It is ready while the Secret holds a certificate for the host, so that an apply waits for that, and says why
it does not.
"""

import asyncio
import base64
import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from aks_inference_runtime.api.certificates import judge
from aks_inference_runtime.api.kubernetes import (
    AGENT_PORT,
    CERTIFICATE_HOST_VARIABLE,
    RUNTIME_NAMESPACE,
    TLS_CHAIN_FIELD,
    TLS_KEY_FIELD,
    VAULT_TLS_NAME,
)
from aks_inference_runtime.kubernetes import connection, entry, pod
from aks_inference_runtime.kubernetes.client import Object, connected
from aks_inference_runtime.kubernetes.informer import Informer
from aks_inference_runtime.kubernetes.measures import certificate_metrics

LOOK_S = 60.0
"""Between two looks at the dates, while nothing changes."""
PORT_VARIABLE = "AKS_INFERENCE_AGENT_PORT"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Brought:
    """What the driver keeps."""

    chain: bytes
    key: bytes


@dataclass(frozen=True)
class Verdict:
    """What is to be said of it."""

    ready: bool
    text: str
    ends: datetime | None = None


def brought(found: Object) -> Brought:
    """Of a Secret."""
    data = found.get("data") or {}
    chain, key = (base64.b64decode(data.get(field) or "") for field in (TLS_CHAIN_FIELD, TLS_KEY_FIELD))
    return Brought(chain, key)


def verdict(held: Brought | None, host: str | None, now: datetime) -> Verdict:
    """Whether routers can serve with it. Pure."""
    if held is None:
        return Verdict(False, f"the driver has not made the Secret {VAULT_TLS_NAME} yet")
    judged = judge(held.chain, held.key, host, now)
    if judged.certificate is None:
        wrong = (f"the {one.part.value} {one.rule}; {one.mend}" for one in judged.problems if not one.warning)
        return Verdict(False, f"the certificate in the vault cannot be served: {'. '.join(wrong)}", judged.ends)
    ends = "" if judged.ends is None else f" until {judged.ends:%Y-%m-%d %H:%M} UTC"
    told = [f"the certificate for {', '.join(judged.names[:5])}{ends} is there"]
    return Verdict(True, ". ".join([*told, *(f"It {one.rule}" for one in judged.problems)]), judged.ends)


class Keeper:
    """Looks at the Secret, says what changes."""

    def __init__(self, namespace: str, host: str | None, clock: Callable[[], datetime]) -> None:
        self._host, self._clock = host, clock
        self._wake = asyncio.Event()
        self.secret = Informer(
            f"/api/v1/namespaces/{namespace}/secrets",
            brought,
            self._wake.set,
            fields=f"metadata.name={VAULT_TLS_NAME}",
        )
        self.now = Verdict(False, "not looked yet")

    async def run(self) -> None:
        """Until cancelled."""
        await self.secret.first()
        while True:
            self._wake.clear()
            held = next(iter(self.secret.items.values()), None)
            found = verdict(held, self._host, self._clock())
            if found != self.now:
                _log.log(logging.INFO if found.ready else logging.WARNING, "%s", found.text)
            self.now = found
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def metrics(self) -> str:
        """When it ends."""
        return certificate_metrics(self.now.ends)


async def run(me: pod.Pod, where: connection.Connection, environment: Mapping[str, str]) -> None:
    """Until SIGTERM or SIGINT."""
    namespace = environment.get("POD_NAMESPACE") or RUNTIME_NAMESPACE
    port = int(environment.get(PORT_VARIABLE, AGENT_PORT))
    keeper = Keeper(namespace, environment.get(CERTIFICATE_HOST_VARIABLE) or None, lambda: datetime.now(UTC))
    async with connected(where) as api:
        works = (keeper.secret.run(api), keeper.run())
        await entry.until_told(works, me.address, port, lambda: keeper.now.ready, keeper.metrics)


def main() -> int:
    """See `entry.serve`."""
    return entry.serve("certificate", lambda: run(pod.pod(), connection.find(), os.environ))


if __name__ == "__main__":
    sys.exit(main())
