"""Each endpoint's tenure at this router, from what the others say and the gates tell. Pure but for a cache."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aks_inference_runtime.kubernetes.routing import Part
from aks_inference_runtime.kubernetes.words import View
from aks_inference_runtime.router.ownership import AWAY, Epoch, Surroundings, Tenure, next_tenure, owner_of


@dataclass(frozen=True)
class Told:
    """What this router's own parts tell of an endpoint."""

    settled: bool
    """Nothing waits here since all routers agree."""
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
        parts = {}
        tenures = {}
        for endpoint in endpoints:
            owner = self.owner(endpoint, view)
            tenure = tenures[endpoint] = self._next(endpoint, owner, view, told.get(endpoint))
            parts[endpoint] = Part(None if owner in (None, self.me) else owner, tenure)
        self.tenures = tenures
        return parts

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
