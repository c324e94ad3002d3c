"""Cuts of network paths: packets between two routers, or to and from a replica, are dropped without a word.

The measurement runs in a network of its own (`unshare`), so that nothing of it outlives the processes and nobody else's
packets are touched. Both routers have loopback addresses: who sends is told by the group of a router's processes, and a
connection keeps that mark in both directions. Needs root, `ip` and `nft`.
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping

CLONE_NEWNET = 0x40000000
ADDRESS = "10.99.0.1"
"""Of this machine in that network: EndpointSlices take no loopback address."""
TABLE = "inet aks_inference_chaos"
BETWEEN_ROUTERS = 1
"""Mark of a connection from one router to another."""
FIRST_GROUP = 5_001
"""Of the processes of the first router; numbers above are the others'."""


def enter() -> str:
    """This process and what it starts get a network of their own. Why not, where that cannot be; else nothing."""
    if os.geteuid() != 0:
        return "only root has a network of its own"
    if missing := [program for program in ("ip", "nft") if shutil.which(program) is None]:
        return f"not on this machine: {', '.join(missing)}"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        return f"unshare: {os.strerror(ctypes.get_errno())}"
    for command in ("link set lo up", f"addr add {ADDRESS}/32 dev lo", f"route add default dev lo src {ADDRESS}"):
        subprocess.run(["ip", *command.split()], check=True)
    tried = subprocess.run(["nft", "add", "table", *TABLE.split()], capture_output=True, text=True, check=False)
    return f"nft: {tried.stderr.strip()}" if tried.returncode else ""


def groups(routers: Iterable[str]) -> dict[str, int]:
    """Of the routers' processes."""
    return {name: FIRST_GROUP + number for number, name in enumerate(sorted(routers))}


def prepare(routers: Mapping[str, str]) -> None:
    """Marks the connections between routers (name → address) from their first packet on."""
    marks = [
        f"meta skgid {group} ip daddr {address} ct mark set {BETWEEN_ROUTERS}"
        for name, group in groups(routers).items()
        for other, address in routers.items()
        if other != name
    ]
    chain = "type filter hook output priority"
    lines = [f"table {TABLE} {{", "chain marks {", f"{chain} 0;", *marks, "}", "chain cuts {", f"{chain} 10;", "}", "}"]
    _nft("\n".join(lines))


def cut_routers() -> None:
    """Between the routers, in both directions."""
    _cut(f"ct mark {BETWEEN_ROUTERS}")


def cut_replica(address: str, ports: Iterable[int]) -> None:
    """From and to these ports of a replica."""
    listed = ", ".join(map(str, ports))
    _cut(f"ip daddr {address} tcp dport {{ {listed} }}")
    _cut(f"ip saddr {address} tcp sport {{ {listed} }}")


def heal() -> None:
    """All paths."""
    _nft(f"flush chain {TABLE} cuts")


def _cut(match: str) -> None:
    _nft(f"add rule {TABLE} cuts {match} drop")


def _nft(text: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
