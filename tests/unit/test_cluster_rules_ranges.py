"""Ranges and address budgets: invariants, and that a mend mends."""

import ipaddress
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aks_inference.cluster_rules import Cluster, Network, Pool, Subnet, address_needs, check_cluster
from aks_inference.cluster_rules.addresses import (
    free_range,
    overlaps,
    parse_range,
    smallest_block,
    smallest_prefix,
    usable,
    within,
)
from aks_inference.cluster_rules.budget import check_budget
from aks_inference.cluster_rules.kinds import parse_amount, parse_id, parse_subnet_id, surge_nodes
from aks_inference.cluster_rules.ranges import check_ranges

SUBNET = "/subscriptions/0/resourceGroups/net/providers/Microsoft.Network/virtualNetworks/main/subnets/nodes"


def networks(low: int = 8, high: int = 28) -> st.SearchStrategy[ipaddress.IPv4Network]:
    return st.builds(
        lambda address, prefix: ipaddress.IPv4Network((address, prefix), strict=False),
        st.integers(0, 2**32 - 1),
        st.integers(low, high),
    )


@given(networks(12, 26), st.lists(networks(), max_size=6))
def test_free_range_is_free(wanted: ipaddress.IPv4Network, taken: list[ipaddress.IPv4Network]) -> None:
    free = free_range(wanted.prefixlen, list(taken))
    if free is not None:
        assert free.prefixlen == wanted.prefixlen
        assert free.is_private or within(free, ipaddress.IPv4Network("100.64.0.0/10"))
        assert not any(overlaps(free, other) for other in taken)


@given(st.lists(networks(12, 28), max_size=3))
def test_small_range_is_found_between_few(taken: list[ipaddress.IPv4Network]) -> None:
    assert free_range(24, list(taken)) is not None


@given(networks(0, 32), networks(0, 32))
def test_overlap_means_a_common_address(one: ipaddress.IPv4Network, other: ipaddress.IPv4Network) -> None:
    first, last = max(one[0], other[0]), min(one[-1], other[-1])
    assert overlaps(one, other) == overlaps(other, one) == (first <= last)
    assert within(one, other) == (other[0] <= one[0] and one[-1] <= other[-1])


def test_families_do_not_meet() -> None:
    assert not overlaps(ipaddress.IPv4Network("0.0.0.0/0"), ipaddress.IPv6Network("::/0"))
    assert not within(ipaddress.IPv4Network("10.0.0.0/8"), ipaddress.IPv6Network("::/0"))
    assert overlaps(ipaddress.IPv6Network("fd00::/8"), ipaddress.IPv6Network("fd12::/16"))


@given(st.integers(1, 2**24))
def test_smallest_prefix_is_smallest(addresses: int) -> None:
    prefix = smallest_prefix(addresses)
    assert usable(ipaddress.IPv4Network((0, prefix))) >= addresses
    assert prefix == 29 or usable(ipaddress.IPv4Network((0, prefix + 1))) < addresses
    block = smallest_block(addresses)
    assert 2 ** (32 - block) >= addresses
    assert addresses == 1 or 2 ** (32 - block - 1) < addresses


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("10.0.0.0/16", "10.0.0.0/16"),
        ("172.17.0.1/16", "172.17.0.0/16"),
        ("fd00::/8", "fd00::/8"),
        ("10.0.0.0", None),
        ("10.0.0.0/40", None),
        ("10.0.0/8", None),
        ("x/8", None),
        (None, None),
    ],
)
def test_parse_range(text: str | None, shown: str | None) -> None:
    parsed = parse_range(text)
    assert (str(parsed) if parsed else None) == shown


def documented(count: int, subnet: str, max_pods: int | None = None, **network: str) -> Cluster:
    """One pool whose upgrades add one node, as in the documents' examples."""
    return Cluster(
        pools=(Pool("inference", count=count, max_pods=max_pods, max_surge="1"),),
        network=Network(plugin="azure", subnet=Subnet(SUBNET, subnet), service_cidr="172.20.0.0/16", **network),
    )


@pytest.mark.parametrize(
    ("cluster", "needed", "available", "prefix"),
    [
        # concepts-network-ip-address-planning.md: 50 nodes, one more, 30 pods each.
        (documented(50, "10.1.0.0/24"), 1581, 251, 21),
        (documented(50, "10.1.0.0/21"), 1581, 2043, 21),
        (documented(3, "10.1.0.0/24", max_pods=110), 444, 251, 23),
        (documented(50, "10.1.0.0/26", plugin_mode="overlay"), 51, 59, 26),
    ],
)
def test_documented_budgets(cluster: Cluster, needed: int, available: int, prefix: int) -> None:
    need = address_needs(cluster)[0]
    assert (need.needed, need.available, need.prefix) == (needed, available, prefix)
    assert need.enough == (not list(check_budget(replace(cluster, pools=cluster.pools[:1]))))


def test_budget_counts_other_users_of_the_subnet_and_pools_elsewhere() -> None:
    cluster = documented(5, "10.1.0.0/24")
    busy = replace(cluster, network=replace(cluster.network, subnet=Subnet(SUBNET, "10.1.0.0/24", used_addresses=100)))
    assert address_needs(busy)[0].available == 151
    assert not address_needs(busy)[0].enough
    elsewhere = replace(cluster.pools[0], name="other", subnet_id=f"{SUBNET}2")
    assert address_needs(replace(cluster, pools=(*cluster.pools, elsewhere)))[0].nodes == 5


POOLS = st.lists(
    st.builds(
        lambda index, low, more, surge: Pool(
            f"p{index}", autoscale=True, min_count=low, max_count=low + more, count=low, max_surge=surge
        ),
        st.integers(0, 9),
        st.integers(1, 40),
        st.integers(0, 40),
        st.sampled_from([None, "1", "3", "33%", "100%"]),
    ),
    min_size=1,
    max_size=4,
)
KINDS = st.sampled_from([{"plugin_mode": "overlay"}, {}, {"pod_subnet": Subnet(f"{SUBNET}-pods", "10.2.0.0/24")}])


@given(POOLS, st.integers(16, 28), KINDS)
def test_the_mended_subnet_is_large_enough(pools: list[Pool], prefix: int, kind: dict[str, str]) -> None:
    network = Network(plugin="azure", subnet=Subnet(SUBNET, f"10.64.0.0/{prefix}"), pod_cidr="10.96.0.0/20", **kind)
    cluster = Cluster(pools=tuple(pools), network=network)
    for need in address_needs(cluster):
        assert need.surely <= need.needed
        assert (not need.enough) == any(one.path == need.path for one in check_budget(cluster))
        mended = f"10.64.0.0/{need.prefix}"
        widened = {
            "subnet_id": replace(network, subnet=Subnet(SUBNET, mended)),
            "pod_cidr": replace(network, pod_cidr=mended),
            "pod_subnet_id": replace(network, pod_subnet=Subnet(f"{SUBNET}-pods", mended)),
        }[str(need.path[-1])]
        again = address_needs(replace(cluster, network=widened))
        assert all(one.enough for one in again if one.path == need.path)


@settings(max_examples=200)
@given(networks(13, 24), networks(16, 26), networks(12, 24), st.lists(networks(12, 26), max_size=3))
def test_a_proposed_range_is_accepted(
    service: ipaddress.IPv4Network,
    nodes: ipaddress.IPv4Network,
    pods: ipaddress.IPv4Network,
    connected: list[ipaddress.IPv4Network],
) -> None:
    network = Network(
        plugin="azure",
        plugin_mode="overlay",
        service_cidr=str(service),
        dns_service_ip=str(service[10]),
        pod_cidr=str(pods),
        subnet=Subnet(SUBNET, str(nodes)),
        connected_cidrs=tuple(map(str, connected)),
    )
    for _ in range(4):
        mends = {
            str(one.path[-1]): match[1]
            for one in check_ranges(Cluster(network=network))
            if (match := re.fullmatch(r"write ([0-9./]+)", one.mend)) and one.path[-1] in {"service_cidr", "pod_cidr"}
        }
        if not mends:
            break
        name, text = next(iter(mends.items()))
        parsed = ipaddress.IPv4Network(text)
        more = {"dns_service_ip": str(parsed[10])} if name == "service_cidr" else {}
        network = replace(network, **{name: text, **more})
    else:
        pytest.fail("mends go in a circle")
    left = [one for one in check_ranges(Cluster(network=network)) if one.number in {"2.1", "2.2", "2.4", "2.7"}]
    assert not left


@given(st.text("0123456789./abc:", max_size=20), st.text("0123456789./abc:", max_size=20))
def test_any_text_gets_findings_not_an_exception(one: str, other: str) -> None:
    network = Network(
        plugin="azure",
        plugin_mode="overlay",
        service_cidr=one,
        pod_cidr=other,
        dns_service_ip=other,
        subnet=Subnet(one, other),
        vnet_cidrs=(one,),
    )
    assert check_cluster(Cluster(network=network))


@pytest.mark.parametrize(
    ("pool", "surge"),
    [
        (Pool("p", count=3), 1),
        (Pool("p", count=50), 5),
        (Pool("p", count=51), 6),
        (Pool("p", count=0), 0),
        (Pool("p", count=3, max_surge="33%"), 1),
        (Pool("p", count=10, max_surge="33%"), 4),
        (Pool("p", count=3, max_surge="5"), 3),
        (Pool("p", count=3, max_unavailable="1"), 0),
        (Pool("p", count=3, max_surge="many"), 0),
        (Pool("p", count=1, autoscale=True, min_count=1, max_count=20), 2),
    ],
)
def test_surge(pool: Pool, surge: int) -> None:
    assert surge_nodes(pool) == surge


@pytest.mark.parametrize(
    ("text", "amount"), [("3", 3), ("33%", 4), ("", None), ("-1", None), ("1.5", None), (None, None)]
)
def test_amounts(text: str | None, amount: int | None) -> None:
    assert parse_amount(text, 10) == amount


def test_resource_ids() -> None:
    parsed = parse_subnet_id(SUBNET.lower())
    assert parsed is not None
    assert (parsed.subscription, parsed.group, parsed.name) == ("0", "net", "nodes")
    zone = "/subscriptions/0/resourceGroups/g/providers/Microsoft.Network/privateDnsZones/z"
    assert parse_id(zone) is not None
    assert parse_subnet_id(zone) is None
    assert parse_subnet_id(SUBNET.replace("Microsoft.Network", "Microsoft.Web")) is None
    assert parse_id("nodes") is None
    assert parse_id(None) is None
