"""What a router says to the others, ten times a second and whenever it changes. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from pydantic import Field

from aks_inference_runtime.api.base import OpenWire
from aks_inference_runtime.router.ownership import Epoch

SILENCE_S = 0.5
"""A router that was not heard for so long is taken for dead: five words. A new owner serves within a second."""


class Word(OpenWire):
    """One line of the stream."""

    router: str
    clock: int
    """The highest epoch number that it knows of."""
    candidates: tuple[str, ...]
    """The routers among which it shares endpoints: said once its fronts work by that."""
    leaving: bool = False
    """It ends and wants no endpoint."""
    lanes: tuple[str, ...] | None = Field(None)
    """All routers of its pod that speak; absent: the one that has the pod's name, alone."""
    held: dict[str, int] | None = Field(None)
    """Endpoint → its own epoch number, of those that it holds or yields; absent: as before on this stream."""


@dataclass(frozen=True)
class Heard:
    """A router as it was heard last."""

    word: Word
    held: Mapping[str, int]
    at: float


@dataclass(frozen=True)
class View:
    """The routers at one moment."""

    live: frozenset[str]
    """Taken for alive, this one included."""
    candidates: frozenset[str]
    """Those that may own endpoints."""
    heard: Mapping[str, Heard] = field(default_factory=lambda: MappingProxyType({}))
    """The others that are alive and have been heard."""

    @property
    def heard_all(self) -> bool:
        """Whether every other live router has said something."""
        return len(self.heard) == len(self.live) - 1

    @property
    def agreed(self) -> bool:
        """Whether all live routers share endpoints among the same."""
        return self.heard_all and all(frozenset(h.word.candidates) == self.candidates for h in self.heard.values())

    def holders(self, endpoint: str) -> dict[str, Epoch]:
        """Others that hold or yield an endpoint."""
        return {name: Epoch(heard.held[endpoint], name) for name, heard in self.heard.items() if endpoint in heard.held}


def view(me: str, *, leaving: bool, known: Mapping[str, float], heard: Mapping[str, Heard], now: float) -> View:
    """The routers now. `known`: the others that the API server tells of, and since when (same clock as `now`).

    One that was never heard is presumed to be alive for a while: it may hold endpoints.
    """
    alive = {name for name, since in known.items() if now - (heard[name].at if name in heard else since) <= SILENCE_S}
    live = frozenset({me, *alive})
    there = {name: heard[name] for name in alive if name in heard}
    gone = {name for name, other in there.items() if other.word.leaving} | ({me} if leaving else set())
    return View(live, (live - gone) or live, there)
