"""Whether two configurations mean one cluster. An address says little: a cluster may have several, and change them."""

import asyncio
from collections.abc import Mapping
from enum import Enum, auto
from typing import Any

from embedded_engine.kubernetes.client import Client
from embedded_engine.kubernetes.errors import KubernetesError, RefusedError
from embedded_engine.kubernetes.kubeconfig import Connection, connection

SETTINGS = ("kubeconfig", "context", "cluster")
"""Those that say which cluster."""
_LOOK_S = 10.0
"""Of a preview, at a cluster that is perhaps gone."""
_UNAUTHORIZED = 401
_HIDDEN = "hidden"


class Move(Enum):
    """From what was configured to what is."""

    NONE = auto()
    UNCERTAIN = auto()
    """Taken for none: its certificate authority is another one, and nobody who knew the old one can be asked."""
    UNKNOWN = auto()
    """One of the two does not let its user see which it is."""
    OTHER = auto()


def reached(settings: Mapping[str, Any], environment: Mapping[str, str]) -> Connection | None:
    """None where it cannot be read, or not any more."""
    kubeconfig, context, cluster = (settings.get(name) or None for name in SETTINGS)
    try:
        return connection(kubeconfig, context, cluster, environment)
    except KubernetesError:
        return None


class Moves:
    """Asked for once each: with the provider, each of its resources asks."""

    def __init__(self) -> None:
        self._known: dict[tuple[tuple[str, str], ...], Move] = {}
        self._asking = asyncio.Lock()

    async def of(self, old: Connection, new: Connection) -> Move:
        """From one to the other."""
        key = (_place(old), _place(new))
        async with self._asking:
            if key not in self._known:
                self._known[key] = await move(old, new)
            return self._known[key]


async def move(old: Connection, new: Connection) -> Move:
    """By the uid of the namespace kube-system, as long as both can be asked: to take one cluster for two would remove
    what serves there.
    """
    if _place(old) == _place(new):
        return Move.NONE
    before, now = await asyncio.gather(_uid(old), _uid(new))
    if before and now and _HIDDEN not in (before, now):
        return Move.NONE if before == now else Move.OTHER
    if _place(old)[1] and _place(old)[1] == _place(new)[1]:
        return Move.NONE
    if old.server == new.server:
        return Move.UNCERTAIN
    # Where nobody answers nothing can be removed either.
    return Move.UNKNOWN if _HIDDEN in (before, now) else Move.OTHER


def _place(where: Connection) -> tuple[str, str]:
    return where.server, "".join((where.authority or "").split())


async def _uid(where: Connection) -> str:
    """Empty where nobody answers, or not to this user."""
    client = Client(where)
    try:
        async with asyncio.timeout(_LOOK_S):
            found = await client.read("/api/v1/namespaces/kube-system")
    except RefusedError as error:
        return "" if error.status == _UNAUTHORIZED else _HIDDEN
    except (KubernetesError, TimeoutError):
        return ""
    finally:
        await client.close()
    return str(((found or {}).get("metadata") or {}).get("uid") or "")
