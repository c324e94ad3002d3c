"""TLS of the scoring address (azureml-v1 1.3) and what the API knows of it."""

from collections.abc import Iterator

from aks_inference.cluster_rules.model import Cluster, Tls
from aks_inference.cluster_rules.rulebook import RuleFinding, error, warning

THREE = error("tls-a", "cname, certificate and key together, or none", "azureml-v1 1.3 (SslConfiguration)")
ONE_WAY = error("tls-b", "one source of the certificate", "azureml-v1 1.3 (SslConfiguration)")
INTERNAL = error(
    "tls-c", "internal load balancer: own certificate only", "azureml-v1 1.3; ML v1/how-to-secure-web-service.md"
)
VERSION = error("tls-d", "minimum TLS version 1.2 or 1.3", "RFC 8996 (1.0 and 1.1 are deprecated)")
BALANCER = error("tls-e", "load balancer type and its subnet", "azureml-v1 1.4")
LABEL = error("tls-f", "leaf domain label: a DNS label with room for the suffix", "RFC 1035; azureml-v1 1.3")
OVERWRITE = warning("tls-g", "overwriting a domain needs a leaf domain label", "azureml-v1 1.3")

BALANCERS = ("PublicIp", "InternalLoadBalancer")
SUFFIX = 6
"""Random characters behind the label."""
_LONGEST_LABEL = 63 - SUFFIX


def check_tls(cluster: Cluster) -> Iterator[RuleFinding]:
    """All findings about the scoring address."""
    tls = cluster.tls
    yield from _sources(tls)
    yield from _balancer(tls)
    yield from _label(tls)
    if tls.minimum_version is not None and tls.minimum_version not in {"1.2", "1.3"}:
        yield VERSION.broken(
            (*tls.path, "minimum_tls_version"),
            tls.minimum_version,
            "1.2 and 1.3 are offered; older ones are unsafe",
            'write "1.2"',
        )


def _sources(tls: Tls) -> Iterator[RuleFinding]:
    own = {"ssl_cname": tls.cname, "ssl_cert_pem_file": tls.cert_pem_file, "ssl_key_pem_file": tls.key_pem_file}
    if tls.key_vault_secret_id is not None:
        if tls.cname is None:
            yield THREE.broken(
                (*tls.path, "ssl_cname"), None, "is needed with @ssl_key_vault_secret_id", "give the certificate's name"
            )
        for name in ("ssl_cert_pem_file", "ssl_key_pem_file"):
            if own[name] is not None:
                yield ONE_WAY.broken(
                    (*tls.path, name),
                    None,
                    "the certificate comes from a file or from @ssl_key_vault_secret_id, not from both",
                    "leave out one of them",
                )
    else:
        missing = [name for name, value in own.items() if value is None]
        if 0 < len(missing) < len(own):
            given = " and ".join(f"@{name}" for name in own if name not in missing)
            for name in missing:
                yield THREE.broken((*tls.path, name), None, f"is needed with {given}", "give all three, or none")
    if tls.leaf_domain_label is not None and (any(own.values()) or tls.key_vault_secret_id is not None):
        given = next((name for name, value in own.items() if value is not None), "ssl_key_vault_secret_id")
        yield ONE_WAY.broken(
            (*tls.path, "leaf_domain_label"),
            tls.leaf_domain_label,
            f"brings its own certificate and name, and @{given} is given too",
            "leave out one of them",
        )
    if tls.overwrite_existing_domain and tls.leaf_domain_label is None:
        path = (*tls.path, "overwrite_existing_domain")
        if any(own.values()):
            rule = "is about the domain of @leaf_domain_label, and a certificate of your own is given"
            yield ONE_WAY.broken(path, True, rule, "leave it out")
        else:
            yield OVERWRITE.broken(path, True, "does nothing without @leaf_domain_label", "leave it out")


def _balancer(tls: Tls) -> Iterator[RuleFinding]:
    kind, path = tls.load_balancer_type, (*tls.path, "load_balancer_type")
    if kind is not None and kind not in BALANCERS:
        yield BALANCER.broken(path, kind, "is not known", f"use one of {', '.join(BALANCERS)}")
    if tls.load_balancer_subnet is not None and kind != "InternalLoadBalancer":
        yield BALANCER.broken(
            (*tls.path, "load_balancer_subnet"),
            tls.load_balancer_subnet,
            f'goes only with @load_balancer_type "InternalLoadBalancer", which is "{kind or "PublicIp"}"',
            "leave out one of them",
        )
    if kind == "InternalLoadBalancer" and tls.leaf_domain_label is not None:
        yield INTERNAL.broken(
            (*tls.path, "leaf_domain_label"),
            tls.leaf_domain_label,
            'its certificate is issued over the public address, and @load_balancer_type is "InternalLoadBalancer"',
            "give @ssl_cname, @ssl_cert_pem_file and @ssl_key_pem_file instead",
        )


def _label(tls: Tls) -> Iterator[RuleFinding]:
    label = tls.leaf_domain_label
    if label is None:
        return
    letters = label.replace("-", "")
    good = (
        letters.isascii() and letters.isalnum() and label == label.lower() and label[0].isalpha() and label[-1] != "-"
    )
    if not good or len(label) > _LONGEST_LABEL:
        yield LABEL.broken(
            (*tls.path, "leaf_domain_label"),
            label,
            f"must be 1 to {_LONGEST_LABEL} lower-case letters, digits and hyphens, first a letter, last no hyphen",
            'for example "scoring"',
        )
