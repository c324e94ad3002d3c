"""TLS of the scoring address: what is wrong with a certificate, and what is declared with a right one."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from aks_inference.aks_cluster.attach import AttachPlan
from aks_inference.aks_cluster.scoring_address import leaf_host, leaf_label
from aks_inference.aks_cluster.spec import ClusterPlan, plan_cluster
from aks_inference.findings import Casing, Finding, Severity
from aks_inference.inference_runtime.component import describe
from aks_inference.inference_runtime.spec import DNS_LABEL, RuntimePlan, plan_runtime
from aks_inference.inference_runtime.tls import LETS_ENCRYPT, tls_objects
from aks_inference.inference_runtime.workloads import workloads
from aks_inference_runtime.api import kubernetes as k8s
from aks_inference_runtime.api.certificates import MOST_BYTES, judge, matches, usable
from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.kubernetes.pod import settings as told_settings
from testbed.certificates import make_certificate

HOST = "scoring.example.com"
NOW = datetime.now(UTC)
Make = Callable[..., tuple[bytes, bytes]]
CLUSTER = "/subscriptions/1/resourceGroups/rg/providers/Microsoft.ContainerService/managedClusters/prod"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(chain: bytes, key: bytes) -> dict[str, Any]:
    Path("chain.pem").write_bytes(chain)
    Path("key.pem").write_bytes(key)
    return {"ssl_cname": HOST, "ssl_cert_pem_file": "chain.pem", "ssl_key_pem_file": "key.pem"}


def runtime(**arguments: Any) -> tuple[RuntimePlan | None, list[Finding]]:
    return plan_runtime("runtime", {"image": "runtime:1", **arguments})


def texts(findings: list[Finding], severity: Severity = Severity.ERROR) -> list[str]:
    return [finding.text(Casing.SNAKE) for finding in findings if finding.severity is severity]


def reversed_chain(make: Make) -> tuple[bytes, bytes]:
    chain, key = make(HOST)
    mark = b"-----BEGIN CERTIFICATE-----"
    first, second = (mark + part for part in chain.split(mark)[1:])
    return second + first, key


def strangers_chain(make: Make) -> tuple[bytes, bytes]:
    (chain, key), (other, _) = make(HOST), make(HOST)
    mark = b"-----BEGIN CERTIFICATE-----"
    return mark + chain.split(mark)[1] + mark + other.split(mark)[2], key


def locked(make: Make) -> tuple[bytes, bytes]:
    from cryptography.hazmat.primitives import serialization as s

    chain, key = make(HOST)
    loaded = s.load_pem_private_key(key, None)
    return chain, loaded.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.BestAvailableEncryption(b"x"))


def edwards(make: Make) -> tuple[bytes, bytes]:
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    made = Ed25519PrivateKey.generate()
    return make(HOST)[0], made.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())


CHAIN, KEY, NAME = 'ssl_cert_pem_file = "chain.pem"', 'ssl_key_pem_file = "key.pem"', f'ssl_cname = "{HOST}"'
BAD: dict[str, tuple[Callable[[Make], tuple[bytes, bytes]], list[str]]] = {
    "another key": (lambda make: (make(HOST)[0], make(HOST)[1]), [f"{KEY}: does not belong to the certificate"]),
    "no PEM": (lambda make: (b"x", b"y"), [f"{CHAIN}: holds no certificate", f"{KEY}: holds no private key"]),
    "empty": (lambda make: (b"", b""), [f"{CHAIN}: holds no certificate", f"{KEY}: holds no private key"]),
    "the two exchanged": (
        lambda make: tuple(reversed(make(HOST))),  # type: ignore[arg-type, return-value]
        [f"{CHAIN}: holds no certificate", f"{KEY}: holds no private key"],
    ),
    "encrypted": (locked, [f"{KEY}: is encrypted, and nobody would be there"]),
    "neither RSA nor EC": (edwards, [f"{KEY}: is neither an RSA nor an elliptic curve key"]),
    "a short key": (lambda make: make(HOST, bits=1_024), [f"{KEY}: is an RSA key of 1024 bits"]),
    "ended": (lambda make: make(HOST, days=-0.5), [f"{CHAIN}: ended on "]),
    "not begun": (lambda make: make(HOST, begun=-2), [f"{CHAIN}: begins only on "]),
    "another name": (lambda make: make("other.example", "b.example"), [f"{NAME}: is not in the certificate, which is"]),
    "no name": (lambda make: make(), [f"{CHAIN}: names no host (subject alternative name)"]),
    "issuer first": (reversed_chain, [f"{CHAIN}: "] * 3),
    "a stranger's issuer": (strangers_chain, [f"{CHAIN}: has certificates of which number 2 did not issue number 1"]),
    "all at once": (
        lambda make: (make("other.example", days=-0.5)[0], make(HOST)[1]),
        [f"{CHAIN}: ended on ", f"{NAME}: is not in the certificate", f"{KEY}: does not belong"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_with_a_certificate(case: str) -> None:
    make, wanted = BAD[case]
    plan, findings = runtime(**written(*make(make_certificate)))
    assert plan is None
    found = texts(findings)
    assert len(found) == len(wanted), found
    for text in wanted:
        assert any(one.startswith(text) for one in found), found
    assert all(finding.mend for finding in findings)
    # The key's content is in no text.
    lines = [line for line in Path("key.pem").read_text().split() if len(line) > 20]
    assert not any(line in one for one in found for line in lines)


WARNED = {
    "soon over": ({"days": 20}, "ends on "),
    "by itself": ({"alone": True}, "is issued by itself"),
}


@pytest.mark.parametrize("case", WARNED)
def test_what_is_only_warned_of(case: str) -> None:
    options, wanted = WARNED[case]
    plan, findings = runtime(**written(*make_certificate(HOST, **options)))
    assert plan is not None
    (text,) = texts(findings, Severity.WARNING)
    assert text.startswith(f"{CHAIN}: {wanted}")


def test_a_lone_certificate_and_one_that_is_too_large() -> None:
    chain, key = make_certificate(HOST)
    mark = b"-----BEGIN CERTIFICATE-----"
    (problem,) = judge(mark + chain.split(mark)[1], key, HOST, NOW).problems
    assert (problem.warning, "is alone in its file" in problem.rule) == (True, True)
    leaf, root = (mark + part for part in chain.split(mark)[1:])
    judged = judge(leaf + root * 40, key, HOST, NOW)
    assert judged.certificate is None
    assert any(f"{MOST_BYTES:,}" in problem.rule for problem in judged.problems)


@pytest.mark.parametrize(
    ("pattern", "name", "good"),
    [
        (HOST, HOST.upper(), True),
        ("*.example.com", HOST, True),
        ("*.example.com", "a.b.example.com", False),
        ("*.example.com", "example.com", False),
        ("*.com", "example.com", False),
        ("10.0.0.4", "10.0.0.4", True),
        ("10.0.0.4", "10.0.0.5", False),
        ("::1", "0:0:0:0:0:0:0:1", True),
    ],
)
def test_names(pattern: str, name: str, good: bool) -> None:
    assert matches(pattern, name) is good


def test_what_a_router_takes() -> None:
    """Dates and names are the preview's business; a certificate that ended is still better than none."""
    chain, key = make_certificate(days=-0.5)
    assert usable(b"# a comment\n\n" + chain, key).pem.count("\n\n") == 0
    assert key.decode().splitlines()[1] not in repr(usable(chain, key))
    with pytest.raises(InvalidInput, match="does not belong"):
        usable(chain, make_certificate(HOST)[1])


TOGETHER: list[tuple[dict[str, Any], str]] = [
    ({"ssl_cname": HOST}, "ssl_cert_pem_file: is needed with ssl_cname, unless acme_server"),
    ({"ssl_cert_pem_file": "a.pem"}, 'ssl_cert_pem_file = "a.pem": is about TLS, and there is no ssl_cname'),
    ({"acme_server": LETS_ENCRYPT}, "acme_server = "),
    ({"acme_email": "a@b"}, 'acme_email = "a@b": goes only with acme_server'),
    ({"ssl_cname": HOST, "acme_server": "http://x"}, 'acme_server = "http://x": is no https address'),
    ({"ssl_cname": "a b.example", "acme_server": LETS_ENCRYPT}, 'ssl_cname = "a b.example": is no host name'),
    ({"ssl_cname": "10.0.0.4", "acme_server": LETS_ENCRYPT}, 'ssl_cname = "10.0.0.4": is an address'),
    (
        {"ssl_cname": HOST, "acme_server": LETS_ENCRYPT, "ssl_key_pem_file": "k"},
        'ssl_key_pem_file = "k": is given beside acme_server',
    ),
    ({"minimum_tls_version": "1.3"}, 'minimum_tls_version = "1.3": is about TLS, which is not asked for'),
    ({"allow_insecure_connections": True}, "allow_insecure_connections = true: is about TLS"),
    ({"ssl_cname": HOST, "acme_server": LETS_ENCRYPT, "minimum_tls_version": "1.1"}, 'minimum_tls_version = "1.1"'),
    ({"ssl_cname": HOST, "acme_server": LETS_ENCRYPT, "url": "http://x"}, 'url = "http://x": is no https address'),
]


@pytest.mark.parametrize(("arguments", "text"), TOGETHER, ids=lambda value: str(value)[:40])
def test_what_goes_together(arguments: dict[str, Any], text: str) -> None:
    plan, findings = runtime(**arguments)
    assert plan is None
    assert any(one.startswith(text) for one in texts(findings)), texts(findings)


def test_what_is_declared_with_an_own_certificate() -> None:
    chain, key = make_certificate(HOST, "*.example.org")
    plan, findings = runtime(**written(chain, key), minimum_tls_version="1.3")
    assert plan is not None, findings
    assert plan.tls is not None
    (secret,) = tls_objects(plan.tls, plan.namespace)
    assert (secret["type"], secret["metadata"]["name"]) == ("kubernetes.io/tls", k8s.TLS_NAME)
    assert usable(*(base64.b64decode(secret["data"][name]) for name in ("tls.crt", "tls.key"))) == plan.tls.certificate
    made = {(m["kind"], m["metadata"]["name"]): m for m in workloads(plan)}
    ports = made["Service", k8s.ROUTER_NAME]["spec"]["ports"]
    assert [(port["port"], port["targetPort"]) for port in ports] == [(80, 8080), (443, 8443)]
    (container,) = made["Deployment", k8s.ROUTER_NAME]["spec"]["template"]["spec"]["containers"]
    given = {one["name"]: one.get("value", "") for one in container["env"]}
    settings = told_settings(given)
    assert (settings.https_port, settings.minimum_tls_version, settings.url) == (8443, "1.3", f"https://{HOST}")
    assert settings.tls_secrets[0] == k8s.TLS_NAME
    # The key is in the Secret alone.
    assert key.decode().splitlines()[1] not in json.dumps(list(made.values())) + repr(plan)
    told = "\n".join(describe(plan))
    assert f"TLS at {HOST}: 1.3 or newer; requests without TLS are refused" in told
    assert "your own, for scoring.example.com, *.example.org, until " in told
    assert f"DNS: {HOST} needs a record in your zone" in told


def test_what_is_declared_with_a_certificate_authority() -> None:
    plan, findings = runtime(ssl_cname=HOST, acme_server=LETS_ENCRYPT, acme_email="ops@example.com")
    assert plan is not None, findings
    assert plan.tls is not None
    issuer, certificate = tls_objects(plan.tls, plan.namespace)
    assert issuer["spec"]["acme"]["server"] == LETS_ENCRYPT
    assert certificate["spec"]["dnsNames"] == [HOST]
    assert certificate["spec"]["secretName"] == k8s.ISSUED_TLS_NAME
    assert plan.settings(None).tls_secrets[0] == k8s.ISSUED_TLS_NAME
    assert "cert-manager 1.12 or newer must be on the cluster" in "\n".join(describe(plan))


def test_a_change_of_tls_makes_new_routers_one_after_the_other() -> None:
    def pods(**arguments: Any) -> tuple[Any, Any]:
        plan, findings = runtime(**arguments)
        assert plan is not None, findings
        made = {(m["kind"], m["metadata"]["name"]): m for m in workloads(plan)}
        deployment = made["Deployment", k8s.ROUTER_NAME]["spec"]
        return deployment["template"], deployment["strategy"]

    without, strategy = pods()
    own, _ = pods(**written(*make_certificate(HOST)))
    renewed, _ = pods(**written(*make_certificate(HOST)))
    assert without != own
    assert own == renewed, "another certificate of the same name reaches the routers that run"
    assert strategy["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def cluster(**arguments: Any) -> tuple[ClusterPlan | AttachPlan | None, list[str]]:
    plan, findings = plan_cluster("prod", arguments, date(2026, 11, 21), arguments.get("location"))
    return plan, texts(findings)


RUNTIME = {"image": "runtime:1"}


def test_the_arguments_of_a_cluster_reach_its_runtime() -> None:
    own = written(*make_certificate(HOST))
    plan, found = cluster(**own, minimum_tls_version="1.3", runtime=RUNTIME, location="westeurope")
    assert found == []
    assert plan is not None
    assert plan.runtime is not None
    assert {name: plan.runtime[name] for name in own} == own
    assert plan.runtime["minimum_tls_version"] == "1.3"
    attached, found = cluster(**own, runtime=RUNTIME, resource_id=CLUSTER)
    assert found == []
    assert isinstance(attached, AttachPlan)
    assert attached.runtime is not None
    assert attached.runtime["ssl_cname"] == HOST


def test_what_is_wrong_is_said_where_the_cluster_has_it() -> None:
    _, found = cluster(**written(*make_certificate("other.example")), runtime=RUNTIME, location="westeurope")
    assert len(found) == 1
    assert found[0].startswith(f"{NAME}: is not in the certificate")
    _, found = cluster(**written(*make_certificate(HOST)), location="westeurope")
    assert found == [
        f"{NAME}: is about the router's address, and there is no runtime on the cluster; add runtime, or leave it out"
    ]
    _, found = cluster(leaf_domain_label="scoring", runtime=RUNTIME)
    assert found == ['leaf_domain_label = "scoring": has the region in its name, which is not known; give location']
    _, found = cluster(leaf_domain_label="scoring", runtime={**RUNTIME, "acme_server": "x"}, location="westeurope")
    assert len(found) == 1
    assert "is no https address" in found[0]


def test_a_leaf_domain_is_the_clusters_own_and_stays() -> None:
    plan, found = cluster(leaf_domain_label="scoring", runtime=RUNTIME, location="West Europe")
    assert found == []
    assert plan is not None
    assert plan.runtime is not None
    assert "ssl_cname" not in plan.runtime, "known once the cluster is there"
    assert plan.runtime["acme_server"] == LETS_ENCRYPT
    label = leaf_label("scoring", CLUSTER)
    assert label == leaf_label("scoring", CLUSTER.upper())
    assert label != leaf_label("scoring", CLUSTER.replace("/1/", "/2/"))
    assert len(label) == len("scoring") + 6
    assert leaf_host(label, "West Europe") == f"{label}.westeurope.cloudapp.azure.com"
    assert leaf_host(label, "usgovvirginia") == f"{label}.usgovvirginia.cloudapp.usgovcloudapi.net"
    whole, findings = runtime(ssl_cname=f"{label}.example.com", acme_server=LETS_ENCRYPT, azure_dns_label=label)
    assert whole is not None, findings
    assert whole.annotations[DNS_LABEL] == label
    assert not any(line.startswith("DNS") for line in describe(whole)), "Azure makes the record"
