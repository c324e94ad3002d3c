"""Compile tables of facts about Azure into the JSON files of `aks_inference.facts`.

    .venv/bin/python tools/compile_facts.py <folder with the tables> [--into <folder>]

The tables (CSV) and their origin are described by the README beside them. Every file names its source and date and
is written one record a line, so that a new edition shows as a diff of records. Same tables in, same bytes out.
"""

import argparse
import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path

INTO = Path(__file__).resolve().parents[1] / "components/aks_inference/facts/data"

Record = list[object]
Document = tuple[dict[str, object], list[Record]]

_EGRESS_PAGE = "aks/outbound-rules-control-egress.md 2026-06-18"

# The same page lists the add-ons of the other clouds; the table of hosts holds the public cloud's only.
_GOV, _CHINA = "AzureUSGovernment", "AzureChinaCloud"
SOVEREIGN_HOSTS: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    (_GOV, "workload-identity", ("login.microsoftonline.us",), "token exchange"),
    (_CHINA, "workload-identity", ("login.chinacloudapi.cn",), "token exchange"),
    (
        _GOV,
        "defender",
        ("login.microsoftonline.us", "*.ods.opinsights.azure.us", "*.oms.opinsights.azure.us"),
        "Defender for Containers",
    ),
    (_GOV, "defender", ("*.cloud.defender.microsoft.com",), "Defender for Containers"),
    (
        _CHINA,
        "defender",
        ("login.microsoftonline.cn", "*.ods.opinsights.azure.cn", "*.oms.opinsights.azure.cn"),
        "Defender for Containers",
    ),
    (_CHINA, "defender", ("*.cloud.defender.microsoft.com",), "Defender for Containers"),
    (_GOV, "key-vault-csi", ("*.vault.usgovcloudapi.net",), "Secrets Store CSI driver"),
    (_GOV, "azure-policy", ("data.policy.azure.us",), "pull policies, report"),
    (_GOV, "azure-policy", ("store.policy.azure.us",), "gatekeeper artifacts"),
    (_CHINA, "azure-policy", ("data.policy.azure.cn",), "pull policies, report"),
    (_CHINA, "azure-policy", ("store.policy.azure.cn",), "gatekeeper artifacts"),
    (
        _GOV,
        "cluster-extension",
        ("<region>.dp.kubernetesconfiguration.azure.us", "mcr.microsoft.com", "*.data.mcr.microsoft.com"),
        "extension configuration and images",
    ),
    *(
        (
            cloud,
            "azure-monitor",
            (
                f"*.ods.opinsights.azure.{suffix}",
                f"*.oms.opinsights.azure.{suffix}",
                "dc.services.visualstudio.com",
                "*.in.applicationinsights.azure.com",
                f"global.handler.control.monitor.azure.{suffix}",
                f"<region>.handler.control.monitor.azure.{suffix}",
                f"*.ingest.monitor.azure.{suffix}",
                f"*.metrics.ingest.monitor.azure.{suffix}",
            ),
            "Managed Prometheus / Container insights",
        )
        for cloud, suffix in ((_GOV, "us"), (_CHINA, "cn"))
    ),
)


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    """The records of one table."""
    with (folder / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def prices(folder: Path) -> Document:
    """Linux, pay as you go: a line per size, a column per region."""
    table: dict[str, dict[str, float]] = {}
    for row in rows(folder, "azure_vm_prices.csv"):
        table.setdefault(row["name"], {})[row["region"]] = float(row["usd_per_hour"])
    regions = sorted({region for per_region in table.values() for region in per_region})
    head: dict[str, object] = {
        "source": "Azure retail prices, Linux pay as you go, as compiled in Azure/karpenter-provider-azure "
        "pkg/providers/pricing/zz_generated.pricing.go at 352646f59929; no spot prices",
        "date": "2026-06-18",
        "unit": "USD per hour",
        "columns": ["size", *regions],
    }
    return head, [[name, *(table[name].get(region) for region in regions)] for name in sorted(table)]


def regions(folder: Path) -> Document:
    """Names, pairs and zones."""
    head: dict[str, object] = {
        "source": "Azure/karpenter-provider-azure pkg/fake/locations.json (2026-04-02); azure-sdk-for-net "
        "AzureLocation.cs; "
        "azure-aks-docs aks-automatic-limitations.md (2026-07-24)",
        "date": "2026-07-24",
        "columns": ["name", "display_name", "cloud", "paired_region", "zones", "early_access", "aks_automatic"],
    }
    return head, [
        [
            row["name"],
            row["display_name"],
            row["cloud"],
            row["paired_region"] or None,
            _maybe(row["has_availability_zones"]),
            row["early_access"] == "true",
            row["aks_automatic_ga"] == "true",
        ]
        for row in sorted(rows(folder, "azure_regions.csv"), key=lambda row: row["name"])
    ]


def kubernetes_versions(folder: Path) -> Document:
    """The calendar of AKS."""
    head: dict[str, object] = {
        "source": "azure-aks-docs supported-kubernetes-versions.md",
        "date": "2026-08-21",
        "columns": ["minor", "preview", "ga", "end_of_life", "lts_end_of_life"],
    }
    names = ("minor", "aks_preview", "aks_ga", "end_of_life", "lts_end_of_life")
    return head, [[row[name] or None for name in names] for row in rows(folder, "aks_kubernetes_versions.csv")]


def hosts(folder: Path) -> Document:
    """Hosts that a cluster must reach, by cloud and by what needs them."""
    head: dict[str, object] = {
        "source": f"azure-aks-docs {_EGRESS_PAGE}; azure-ai-docs (Azure ML rows)",
        "date": "2026-06-18",
        "columns": ["cloud", "scope", "host", "protocol", "port", "use", "source"],
    }
    names = ("cloud", "scope", "fqdn", "protocol", "port", "use", "source")
    # The rows on Azure ML's own router say what that one needs; ours is described by its own rules.
    table = [row for row in rows(folder, "aks_required_fqdns.csv") if row["scope"] != "azureml-dns"]
    records: list[Record] = [[int(row[name]) if name == "port" else row[name] for name in names] for row in table]
    records += [
        [cloud, scope, host, "HTTPS", 443, use, _EGRESS_PAGE]
        for cloud, scope, hosts_of, use in SOVEREIGN_HOSTS
        for host in hosts_of
    ]
    return head, records


MORE_ROLES = (
    ("Key Vault Crypto User", "12338af0-0e69-4776-bea7-57ae8d297424", "cluster identity on the vault of KMS"),
    ("Key Vault Contributor", "f25e0fa2-a7c8-4377-a976-54943a77a395", "cluster identity on a private vault of KMS"),
    ("Key Vault Secrets User", "4633458b-17de-408a-b874-0445c86b69e6", "identity of the Key Vault add-on on the vault"),
)
"""AKS's pages on KMS and the Key Vault add-on name them (use-kms-etcd-encryption.md, kms-data-encryption.md,
csi-secrets-store-identity-access.md); the table has none of them."""


def roles(folder: Path) -> Document:
    """Built-in roles that the components assign."""
    head: dict[str, object] = {
        "source": "Azure built-in roles, ids as several public repositories have them",
        "date": "2026-11-21",
        "columns": ["name", "id", "needed_for"],
    }
    names = ("role", "role_definition_id", "scope_needed_for")
    found = [[row[name] for name in names] for row in rows(folder, "azure_builtin_roles.csv")]
    return head, [*found, *map(list, MORE_ROLES)]


def size_notes(folder: Path) -> Document:
    """Sizes with a retirement date, sizes of another processor, sizes of another family than their name says."""
    head: dict[str, object] = {
        "source": "azure-compute-docs sizes/retirement/retired-sizes-list.md; "
        "microsoft/aspire AksNodeVmSizes.Generated.cs",
        "date": "2026-06-23",
        "columns": ["size", "retirement", "arm64"],
    }
    table = rows(folder, "azure_vm_sizes_detail.csv")
    return head, [
        [row["name"], row["retirement_date"] or None, row["arch"].lower() == "arm64"]
        for row in sorted(table, key=lambda row: row["name"])
        if row["retirement_date"] or row["arch"].lower() == "arm64"
    ]


def size_families(folder: Path) -> Document:
    """The quota's family of each size."""
    head: dict[str, object] = {
        "source": "microsoft/aspire AksNodeVmSizes.Generated.cs; kubernetes/autoscaler azure_instance_types.go",
        "date": "2026-06-23",
        "columns": ["family", "sizes"],
    }
    found: dict[str, list[str]] = {}
    for row in sorted(rows(folder, "azure_vm_sizes_detail.csv"), key=lambda row: row["name"]):
        if row["family"]:
            found.setdefault(row["family"], []).append(row["name"])
    return head, [[family, sizes] for family, sizes in sorted(found.items())]


FILES: dict[str, Callable[[Path], Document]] = {
    "prices.json": prices,
    "regions.json": regions,
    "kubernetes_versions.json": kubernetes_versions,
    "hosts.json": hosts,
    "roles.json": roles,
    "size_notes.json": size_notes,
    "size_families.json": size_families,
}


def compile_all(folder: Path) -> dict[str, str]:
    """File name → text."""
    return {name: _text(*make(folder)) for name, make in FILES.items()}


def _text(head: dict[str, object], records: Iterable[Record]) -> str:
    lines = [f"{_json(key)}: {_json(value)}," for key, value in head.items()]
    return "\n".join(["{", *lines, '"records": [', ",\n".join(map(_json, records)), "]", "}", ""])


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _maybe(text: str) -> bool | None:
    return None if not text else text == "true"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path)
    parser.add_argument("--into", type=Path, default=INTO)
    arguments = parser.parse_args()
    for name, text in compile_all(arguments.tables).items():
        (arguments.into / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
