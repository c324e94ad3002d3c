"""Whether two configurations mean one cluster. An address says little: a cluster may have several, and change them."""

import asyncio
from collections.abc import Iterable, Mapping
from enum import Enum, auto
from typing import Any
from urllib.parse import quote

from embedded_engine.kubernetes.client import Client
from embedded_engine.kubernetes.errors import KubernetesError, RefusedError
from embedded_engine.kubernetes.kubeconfig import Connection, connection

SETTINGS = ("kubeconfig", "context", "cluster")
"""Those that say which cluster."""
_LOOK_S = 10.0
"""Of a preview, at a cluster that is perhaps gone."""
_SYSTEM = "kube-system"
_FORBIDDEN = 403
_HIDDEN = "hidden"


class Move(Enum):
    """From what was configured to what is."""

    NONE = auto()
    UNCERTAIN = auto()
    """Taken for none: its certificate authority is another one, and nobody who knew the old one can be asked."""
    UNKNOWN = auto()
    """Taken for none, too: one of the two does not let its user see which it is."""
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
        self._known: dict[tuple[tuple[str, ...], ...], Move] = {}
        self._asking = asyncio.Lock()

    async def of(self, old: Connection, new: Connection, namespaces: Iterable[str] = ()) -> Move:
        """From one to the other. `namespaces`: that their users may see, further than the connections' own."""
        names = tuple(dict.fromkeys((*namespaces, new.namespace, old.namespace)))
        key = (_place(old), _place(new), names)
        async with self._asking:
            if key not in self._known:
                self._known[key] = await move(old, new, names)
            return self._known[key]


async def move(old: Connection, new: Connection, namespaces: Iterable[str]) -> Move:
    """By the uid of the namespace kube-system, or of one that the users see, as long as both can be asked: to take one
    cluster for two would remove what serves there.
    """
    if _place(old) == _place(new):
        return Move.NONE
    before, now = await asyncio.gather(_uid(old, _SYSTEM), _uid(new, _SYSTEM))
    hidden = _HIDDEN in (before, now)
    if hidden and before and now:
        for name in namespaces:
            before, now = await asyncio.gather(_uid(old, name), _uid(new, name))
            if _tell(before, now):
                break
    if _tell(before, now):
        return Move.NONE if before == now else Move.OTHER
    if _place(old)[1] and _place(old)[1] == _place(new)[1]:
        return Move.NONE
    if old.server == new.server:
        return Move.UNCERTAIN
    # Where nobody answers nothing can be removed either.
    return Move.UNKNOWN if hidden else Move.OTHER


def _tell(before: str, now: str) -> bool:
    return bool(before and now) and _HIDDEN not in (before, now)


def _place(where: Connection) -> tuple[str, str]:
    return where.server, "".join((where.authority or "").split())


async def _uid(where: Connection, namespace: str) -> str:
    """Empty where nobody answers, or not to this user."""
    client = Client(where)
    try:
        async with asyncio.timeout(_LOOK_S):
            found = await client.read(f"/api/v1/namespaces/{quote(namespace, safe='')}")
    except RefusedError as error:
        return _HIDDEN if error.status == _FORBIDDEN else ""
    except (KubernetesError, TimeoutError):
        return ""
    finally:
        await client.close()
    return str(((found or {}).get("metadata") or {}).get("uid") or "")
