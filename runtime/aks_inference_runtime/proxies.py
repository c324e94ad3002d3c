"""The proxies that this machine's environment names, as kubectl and other programs in Go take them."""

import functools
import ipaddress
import os
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

_VARIABLES = tuple(name for one in ("http", "https", "no", "all") for name in (f"{one}_proxy", f"{one.upper()}_PROXY"))


def machine_proxy(url: str) -> str | None:
    """The proxy for a URL; None: it is asked directly, as this machine itself is.

    Proxies only: aiohttp's own trust_env would also send what ~/.netrc holds.
    """
    parts = urlsplit(url)
    return _proxy_for(parts.scheme, parts.hostname or "", *map(os.environ.get, _VARIABLES))


@functools.lru_cache(maxsize=64)
def _proxy_for(scheme: str, name: str, *_as_it_is_now: str | None) -> str | None:
    """The environment is read once for each host: all of it each time costs as much as a small request."""
    machine = getproxies()
    if proxy_bypass(name) or _excepted(name, machine.get("no", "")):
        return None
    found = machine.get(scheme)
    return found if not found or "://" in found else f"http://{found}"


def _excepted(name: str, exceptions: str) -> bool:
    """This machine, and addresses in a range of NO_PROXY, which Python's own look does not know."""
    if name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or any(_holds(one.strip(), address) for one in exceptions.split(",") if "/" in one)


def _holds(network: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return address in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
