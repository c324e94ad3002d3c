"""What the API server tells a router's agent."""

from collections.abc import Callable
from typing import Any

from aks_inference_runtime.api.certificates import Certificate
from aks_inference_runtime.api.endpoint import API_VERSION
from aks_inference_runtime.api.kubernetes import (
    COMPONENT_LABEL,
    ENDPOINT_LABEL,
    ISSUED_TLS_NAME,
    PART_OF,
    PART_OF_LABEL,
    ROUTER_COMPONENT,
    SOLVER_LABEL,
    TLS_TYPE,
    RuntimeSettings,
)
from aks_inference_runtime.kubernetes import objects
from aks_inference_runtime.kubernetes.informer import Informer


class Known:
    """Kept up to date while its informers run."""

    def __init__(self, settings: RuntimeSettings, changed: Callable[[], None]) -> None:
        self._settings = settings
        self._certificate: Certificate | None = None
        namespace = f"/api/v1/namespaces/{settings.namespace}"
        self.endpoints = Informer(
            f"/apis/{API_VERSION}/scoringendpoints", objects.declared, changed, again=objects.declared
        )
        self.slices = Informer(
            "/apis/discovery.k8s.io/v1/endpointslices", objects.slice_of, changed, labels=ENDPOINT_LABEL
        )
        self.secrets = Informer(f"{namespace}/secrets", objects.digests_of, changed, labels=ENDPOINT_LABEL)
        self.pods = Informer(
            f"{namespace}/pods",
            objects.router_pod,
            changed,
            labels=f"{PART_OF_LABEL}={PART_OF},{COMPONENT_LABEL}={ROUTER_COMPONENT}",
        )
        self.certificates = Informer(f"{namespace}/secrets", objects.tls_secret, changed, fields=f"type={TLS_TYPE}")
        self.solvers = Informer(f"{namespace}/pods", objects.solver_pod, changed, labels=f"{SOLVER_LABEL}=true")

    @property
    def informers(self) -> list[Informer[Any]]:
        """Those that are needed."""
        found: list[Informer[Any]] = [self.endpoints, self.slices, self.secrets, self.pods]
        return found + ([self.certificates, self.solvers] if self._settings.https_port is not None else [])

    @property
    def revisions(self) -> tuple[int, ...]:
        """Other ones with each change."""
        return tuple(informer.revision for informer in self.informers)

    @property
    def waits(self) -> str:
        """What is not served yet for want of a certificate, and where to look; empty: there is one, or no TLS."""
        if self._settings.https_port is None or self.tls[0] is not None:
            return ""
        space, name = self._settings.namespace, self._settings.tls_secrets[0]
        plain = self._settings.allow_insecure_connections or self._settings.plain_until_certificate
        until = "requests without TLS are served" if plain else "clients are shown one that nobody trusts"
        why = f"; why: kubectl -n {space} describe certificates,challenges" if name == ISSUED_TLS_NAME else ""
        return f"https waits for its certificate (Secret {name} in {space}); until then {until}{why}"

    @property
    def tls(self) -> tuple[Certificate | None, tuple[tuple[str, int], ...]]:
        """The certificate to serve with, and who answers challenges."""
        found = {secret.name: secret.certificate for secret in self.certificates.items.values()}
        # One whose Secret is gone is served on.
        self._certificate = next(
            (found[name] for name in self._settings.tls_secrets if name in found), self._certificate
        )
        return self._certificate, tuple(
            (solver.address, solver.port) for _, solver in sorted(self.solvers.items.items())
        )
