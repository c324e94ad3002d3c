"""TLS of the scoring address: whose certificate, checked before it is served, and the objects that it takes."""

import base64
import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol

from aks_inference.findings import Finding, Severity
from aks_inference.inference_runtime.vault import (
    VaultPlan,
    describe_vault,
    parse_secret,
    provider_class,
    secret_findings,
)
from aks_inference.manifests import Manifest, named
from aks_inference.pods import labels
from aks_inference.service.code import absolute
from aks_inference.values import is_late, then
from aks_inference_runtime.api import kubernetes as k8s

if TYPE_CHECKING:
    from aks_inference_runtime.api.certificates import Certificate, Judged

LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
SOLVER_CLASS = "aks-inference"
"""No ingress controller has it: the router itself passes challenges on."""
_CERT_MANAGER = "cert-manager.io/v1"
_HOST = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))+", re.IGNORECASE)
_LONGEST_HOST = 253
_MOST_FILE_BYTES = 1_000_000
_IDENTITY = ("ssl_key_vault_client_id", "ssl_key_vault_tenant_id")
_ARGUMENTS = {"CHAIN": "ssl_cert_pem_file", "KEY": "ssl_key_pem_file", "NAME": "ssl_cname"}
"""By the part of a certificate that a problem is about."""


class TlsArguments(Protocol):
    """Of InferenceRuntime."""

    @property
    def ssl_cname(self) -> Any: ...  # noqa: ANN401 - a text or an output of one
    @property
    def ssl_cert_pem_file(self) -> str | None: ...
    @property
    def ssl_key_pem_file(self) -> str | None: ...
    @property
    def ssl_key_vault_secret_id(self) -> str | None: ...
    @property
    def ssl_key_vault_client_id(self) -> Any: ...  # noqa: ANN401 - a text or an output of one
    @property
    def ssl_key_vault_tenant_id(self) -> Any: ...  # noqa: ANN401 - a text or an output of one
    @property
    def acme_server(self) -> str | None: ...
    @property
    def acme_email(self) -> str | None: ...
    @property
    def minimum_tls_version(self) -> Literal["1.2", "1.3"] | None: ...
    @property
    def allow_insecure_connections(self) -> bool | None: ...


@dataclass(frozen=True)
class TlsPlan:
    """TLS at the router."""

    host: Any
    """A text, or an output of one."""
    minimum_version: Literal["1.2", "1.3"] = "1.2"
    allow_insecure: bool = False
    certificate: "Certificate | None" = None
    """What was given; None: one from a vault, or cert-manager has one issued."""
    vault: VaultPlan | None = None
    names: tuple[str, ...] = ()
    ends: datetime | None = None
    acme_server: str | None = None
    acme_email: str | None = field(default=None, repr=False)


def plan_tls(spec: TlsArguments, now: datetime | None = None) -> tuple[TlsPlan | None, list[Finding]]:
    """TLS as it is asked for, or None; and what is wrong. Reads the files. `now`: for the dates. Default: now."""
    findings = list(_together(spec))
    host = spec.ssl_cname
    if isinstance(host, str) and not is_late(host):
        findings += _host(host, by_acme=spec.acme_server is not None)
    judged = None
    if spec.ssl_cert_pem_file is not None and spec.ssl_key_pem_file is not None:
        judged, wrong = _judged(spec, spec.ssl_cert_pem_file, spec.ssl_key_pem_file, now or datetime.now(UTC))
        findings += wrong
    if spec.ssl_key_vault_secret_id is not None:
        findings += secret_findings("ssl_key_vault_secret_id", spec.ssl_key_vault_secret_id)
    if host is None or any(finding.severity is Severity.ERROR for finding in findings):
        return None, findings
    secret = None if spec.ssl_key_vault_secret_id is None else parse_secret(spec.ssl_key_vault_secret_id)
    return TlsPlan(
        host=host,
        minimum_version=spec.minimum_tls_version or "1.2",
        allow_insecure=bool(spec.allow_insecure_connections),
        certificate=judged.certificate if judged else None,
        vault=VaultPlan(secret, spec.ssl_key_vault_client_id, spec.ssl_key_vault_tenant_id) if secret else None,
        names=judged.names if judged else (),
        ends=judged.ends if judged else None,
        acme_server=spec.acme_server,
        acme_email=spec.acme_email,
    ), findings


def _judged(spec: TlsArguments, chain: str, key: str, now: datetime) -> tuple["Judged | None", list[Finding]]:
    """The certificate in two files, and what is wrong with it."""
    files = [_content("ssl_cert_pem_file", chain), _content("ssl_key_pem_file", key)]
    (certificate, _), (private, _) = files
    findings = [finding for _, finding in files if finding is not None]
    if certificate is None or private is None:
        return None, findings
    # Loaded here: what reads certificates takes longer to load than most checks take.
    from aks_inference_runtime.api.certificates import judge

    host = spec.ssl_cname
    judged = judge(certificate, private, host if isinstance(host, str) and not is_late(host) else None, now)
    for problem in judged.problems:
        argument = _ARGUMENTS[problem.part.name]
        severity = Severity.WARNING if problem.warning else Severity.ERROR
        findings.append(Finding((argument,), problem.rule, problem.mend, getattr(spec, argument), severity))
    return judged, findings


def _together(spec: TlsArguments) -> Iterator[Finding]:
    given = {name: getattr(spec, name) for name in ("ssl_cert_pem_file", "ssl_key_pem_file") if getattr(spec, name)}
    if spec.ssl_cname is None:
        yield from _nameless(spec)
    elif spec.ssl_key_vault_secret_id is not None:
        yield from _vault(spec)
    elif spec.acme_server is not None:
        for name, value in given.items():
            rule = "is given beside @acme_server, which has a certificate issued"
            yield Finding((name,), rule, "leave out one of them", value)
    else:
        for name in ("ssl_cert_pem_file", "ssl_key_pem_file"):
            if name not in given:
                rule = "is needed with @ssl_cname, unless @acme_server or @ssl_key_vault_secret_id brings a certificate"
                yield Finding((name,), rule, "give both files, or @acme_server")
    if spec.ssl_key_vault_secret_id is None:
        for name in _IDENTITY:
            if getattr(spec, name) is not None:
                yield Finding((name,), "goes only with @ssl_key_vault_secret_id", "give both, or leave it out")
    if spec.acme_email is not None and spec.acme_server is None:
        yield Finding(("acme_email",), "goes only with @acme_server", "give both", spec.acme_email)
    if spec.acme_server is not None and not spec.acme_server.startswith("https://"):
        yield Finding(("acme_server",), "is no https address", f"for example {LETS_ENCRYPT}", spec.acme_server)


def _nameless(spec: TlsArguments) -> Iterator[Finding]:
    """What is about TLS where nobody asks for it."""
    for name in ("ssl_cert_pem_file", "ssl_key_pem_file", "acme_server", "ssl_key_vault_secret_id"):
        if getattr(spec, name) is not None:
            rule = "is about TLS, and there is no @ssl_cname"
            yield Finding((name,), rule, "give the host that clients ask for as @ssl_cname", getattr(spec, name))
    for name in ("minimum_tls_version", "allow_insecure_connections"):
        if getattr(spec, name) is not None:
            rule = "is about TLS, which is not asked for"
            yield Finding((name,), rule, "give @ssl_cname, or leave it out", getattr(spec, name))


def _vault(spec: TlsArguments) -> Iterator[Finding]:
    """What goes with a certificate in a Key Vault."""
    for name in ("ssl_cert_pem_file", "ssl_key_pem_file", "acme_server"):
        if getattr(spec, name) is not None:
            rule = "is given beside @ssl_key_vault_secret_id, which brings a certificate"
            yield Finding((name,), rule, "leave out one of them", getattr(spec, name))
    for name in _IDENTITY:
        if getattr(spec, name) is None:
            rule = "is needed with @ssl_key_vault_secret_id"
            yield Finding((name,), rule, "give that of the identity that the cluster's Key Vault driver uses")


def _host(host: str, *, by_acme: bool) -> Iterator[Finding]:
    path = ("ssl_cname",)
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if len(host) > _LONGEST_HOST or not _HOST.fullmatch(host):
            rule = "is no host name: labels of letters, digits and hyphens with dots between them"
            yield Finding(path, rule, "for example scoring.example.com", host)
        return
    if by_acme:
        rule = "is an address, and certificate authorities issue for names"
        yield Finding(path, rule, "give a name that points to the address", host)


def _content(argument: str, path: str) -> tuple[bytes | None, Finding | None]:
    file = absolute(path)
    try:
        if file.stat().st_size > _MOST_FILE_BYTES:
            return None, Finding((argument,), "is too large for a PEM file", "give another file", path)
        return file.read_bytes(), None
    except OSError as error:
        rule = f"cannot be read ({error.strerror}: {file})"
        return None, Finding((argument,), rule, "give the path of a file in PEM form", path)


def url_of(tls: TlsPlan) -> Any:  # noqa: ANN401 - a text or an output of one
    """The scoring address."""
    return then(tls.host, _url)


def _url(host: str) -> str:
    return f"https://[{host}]" if ":" in host else f"https://{host}"


def tls_objects(tls: TlsPlan, namespace: str) -> Iterator[Manifest]:
    """The Secret with the certificate that was given, or what a vault's driver or cert-manager is asked for. Values are
    not yet secret."""
    router = labels(k8s.ROUTER_COMPONENT)
    if tls.vault is not None:
        yield provider_class(tls.vault, namespace)
        return
    if tls.certificate is not None:
        data = {
            field: base64.b64encode(text.encode()).decode()
            for field, text in (
                (k8s.TLS_CHAIN_FIELD, tls.certificate.chain),
                (k8s.TLS_KEY_FIELD, tls.certificate.key),
            )
        }
        yield named("v1", "Secret", k8s.TLS_NAME, namespace, labels=router, type=k8s.TLS_TYPE, data=data)
        return
    account = {"privateKeySecretRef": {"name": k8s.ACME_ACCOUNT_NAME}, "server": tls.acme_server}
    if tls.acme_email is not None:
        account["email"] = tls.acme_email
    solver = {"http01": {"ingress": {"ingressClassName": SOLVER_CLASS, "serviceType": "ClusterIP"}}}
    name = k8s.ISSUED_TLS_NAME
    spec: Manifest = {"acme": {**account, "solvers": [solver]}}
    yield named(_CERT_MANAGER, "Issuer", name, namespace, labels=router, spec=spec)
    spec = {
        "secretName": name,
        "dnsNames": [tls.host],
        "issuerRef": {"group": "cert-manager.io", "kind": "Issuer", "name": name},
        "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
    }
    wait = {"pulumi.com/waitFor": "condition=Ready"}
    yield named(_CERT_MANAGER, "Certificate", name, namespace, labels=router, annotations=wait, spec=spec)


def describe_tls(tls: TlsPlan) -> list[str]:
    """For the preview: whose certificate, until when, and what the user's own DNS needs."""
    host = "a name that is known once the cluster is there" if is_late(tls.host) else tls.host
    plain = "served, too" if tls.allow_insecure else "refused"
    lines = [f"TLS at {host}: {tls.minimum_version} or newer; requests without TLS are {plain}"]
    if tls.certificate is not None and tls.ends is not None:
        lines.append(f"certificate: your own, for {', '.join(tls.names[:5])}, until {tls.ends:%Y-%m-%d}")
    elif tls.vault is not None:
        lines.append(describe_vault(tls.vault))
    else:
        lines.append(
            f"certificate: issued and renewed by cert-manager from {tls.acme_server}; cert-manager 1.12 or newer must "
            f"be on the cluster (a new one has none: apply without TLS, install it, then add TLS), and the "
            f"authority must reach the name on port 80"
        )
    return lines


def dns_line(tls: TlsPlan) -> str:
    """What only the user can do."""
    return (
        f"DNS: {tls.host} needs a record in your zone: A (AAAA) with the address that the output `address` has, or "
        f"CNAME to a name with it"
    )
