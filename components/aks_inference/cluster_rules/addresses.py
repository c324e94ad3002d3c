"""Arithmetic of address ranges."""

import ipaddress
import math
from collections.abc import Iterator

Range = ipaddress.IPv4Network | ipaddress.IPv6Network

AZURE_RESERVED = 5
"""Addresses of every subnet that Azure keeps (concepts-network-azure-cni-overlay.md)."""


def parse_range(text: str | None) -> Range | None:
    """A range; host bits may be set (`172.17.0.1/16`), as in Azure's own examples. None when it is none."""
    if text is None or "/" not in text:
        return None
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def overlaps(one: Range, other: Range) -> bool:
    """Whether they share an address; ranges of different families never do."""
    if isinstance(one, ipaddress.IPv4Network) and isinstance(other, ipaddress.IPv4Network):
        return one.overlaps(other)
    if isinstance(one, ipaddress.IPv6Network) and isinstance(other, ipaddress.IPv6Network):
        return one.overlaps(other)
    return False


def within(inner: Range, outer: Range) -> bool:
    """Whether every address of the first is in the second."""
    return inner.version == outer.version and overlaps(inner, outer) and inner.prefixlen >= outer.prefixlen


def usable(subnet: Range) -> int:
    """Addresses of a subnet that can be given away."""
    return max(0, subnet.num_addresses - AZURE_RESERVED)


def smallest_prefix(addresses: int) -> int:
    """Prefix length of the smallest IPv4 subnet with that many usable addresses; /29 is Azure's smallest."""
    return min(29, 32 - math.ceil(math.log2(max(1, addresses) + AZURE_RESERVED)))


def smallest_block(addresses: int) -> int:
    """Prefix length of the smallest IPv4 range (no subnet: nothing is reserved) of that many addresses."""
    return 32 - math.ceil(math.log2(max(1, addresses)))


PRIVATE_RANGES = tuple(
    ipaddress.IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
)
"""RFC 1918 and RFC 6598."""


def free_range(prefix: int, taken: list[Range]) -> ipaddress.IPv4Network | None:
    """A private range of that size that overlaps none of the taken: for mends. None when there is none."""
    for private in PRIVATE_RANGES:
        for candidate in _steps(private, prefix, taken):
            if not any(overlaps(candidate, other) for other in taken):
                return candidate
    return None


def _steps(private: ipaddress.IPv4Network, prefix: int, taken: list[Range]) -> Iterator[ipaddress.IPv4Network]:
    """Candidates that matter: the first one, and the first behind each taken range."""
    if prefix < private.prefixlen:
        return
    size = 2 ** (32 - prefix)
    starts = {int(private.network_address)}
    for other in taken:
        if isinstance(other, ipaddress.IPv4Network) and overlaps(private, other):
            starts.add(math.ceil((int(other.broadcast_address) + 1) / size) * size)
    for start in sorted(starts):
        if start + size - 1 <= int(private.broadcast_address):
            yield ipaddress.IPv4Network((start, prefix))
