"""Each endpoint's tenure at this router, from what the others say and the gates tell. Pure but for a cache."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from aks_inference_runtime.kubernetes.routing import Part
from aks_inference_runtime.kubernetes.words import View
from aks_inference_runtime.router.ownership import (
    AWAY,
    Epoch,
    Phase,
    Surroundings,
    Tenure,
    next_tenure,
    owner_of,
)


class Told(NamedTuple):
    """What this router's own parts tell of an endpoint."""

    settled: bool
    """Nothing waits here since all routers agree; asked of those that another one is to own."""
    highest: int
    """Epoch number at its gates."""
    above: Epoch | None
    """A claim above this router's own."""


class Sharing:
    """Remembers tenures and the clock."""

    def __init__(self, me: str) -> None:
        self.me = me
        self.clock = 0
        self.tenures: dict[str, Tenure] = {}
        self._parts: dict[str, Part] = {}
        self._owners: dict[str, str | None] = {}
        self._candidates: frozenset[str] = frozenset()

    @property
    def held(self) -> dict[str, int]:
        """Endpoint → own epoch number, of those that this router holds or yields."""
        return {name: tenure.epoch.number for name, tenure in self.tenures.items() if tenure.epoch is not None}

    def owner(self, endpoint: str, view: View) -> str | None:
        """Who is to own it."""
        if view.candidates != self._candidates:
            self._candidates, self._owners = view.candidates, {}
        if endpoint not in self._owners:
            self._owners[endpoint] = owner_of(endpoint, view.candidates)
        return self._owners[endpoint]

    def decide(self, endpoints: Iterable[str], view: View, told: Mapping[str, Told]) -> dict[str, Part]:
        """This router's part in each endpoint from now on."""
        self.clock = max(
            [self.clock, *(t.highest for t in told.values()), *(h.word.clock for h in view.heard.values())]
        )
        before, self._parts = self._parts, {}
        for endpoint in endpoints:
            owner = self.owner(endpoint, view)
            part, others = before.get(endpoint), None if owner in (None, self.me) else owner
            if part is None or part.owner != others or not self._stays(endpoint, owner, view, told.get(endpoint)):
                part = Part(others, self._next(endpoint, owner, view, told.get(endpoint)))
            self._parts[endpoint] = part
        self.tenures = {endpoint: part.tenure for endpoint, part in self._parts.items()}
        return self._parts

    def _stays(self, endpoint: str, owner: str | None, view: View, told: Told | None) -> bool:
        """Whether `_next` would leave it as it is: so it is with most of them, and that is found out for less."""
        phase = self.tenures[endpoint].phase
        if owner != self.me:
            return phase is Phase.AWAY
        alone = not any(endpoint in heard.held for heard in view.heard.values())
        return phase is Phase.HOLDING and alone and (told is None or told.above is None)

    def _next(self, endpoint: str, owner: str | None, view: View, told: Told | None) -> Tenure:
        above = told.above if told is not None else None
        heard_all = view.heard_all
        if above is not None and above.router in view.live:
            # It must have spoken since it claimed.
            heard = view.heard.get(above.router)
            heard_all = heard_all and heard is not None and heard.word.clock >= above.number
        tenure = next_tenure(
            self.me,
            self.tenures.get(endpoint, AWAY),
            Surroundings(
                owner=owner,
                holders=view.holders(endpoint),
                heard_all=heard_all,
                highest=self.clock,
                superseded=above is not None,
                settled=view.agreed and (told is None or told.settled),
            ),
        )
        if tenure.epoch is not None:
            self.clock = max(self.clock, tenure.epoch.number)
        return tenure
