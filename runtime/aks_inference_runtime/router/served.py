"""All versions that a router serves."""

from collections.abc import Iterable, Mapping

from aks_inference_runtime.router.model import VersionKey
from aks_inference_runtime.router.observing import Observations
from aks_inference_runtime.router.ownership import Epoch
from aks_inference_runtime.router.slots import Slot
from aks_inference_runtime.router.versions import ServedVersion, Sign

MANY = 100
"""Versions, from which on a round costs more than it may: some microseconds for each replica, ten times a second."""
EVERYBODY_SECONDS = 1.0


class Served(dict[VersionKey, ServedVersion]):
    """All versions, also by endpoint: of thousands of them each is asked for ten times a second.

    Where there are many, a round is about those of which something is to be done; all have their turn now and then.
    """

    def __init__(self) -> None:
        super().__init__()
        self._of: dict[str, dict[str, ServedVersion]] = {}
        self._everybody = 0.0

    def __setitem__(self, key: VersionKey, version: ServedVersion) -> None:
        super().__setitem__(key, version)
        self._of.setdefault(key.endpoint, {})[key.version] = version

    def __delitem__(self, key: VersionKey) -> None:
        super().__delitem__(key)
        del self._of[key.endpoint][key.version]
        if not self._of[key.endpoint]:
            del self._of[key.endpoint]

    def of(self, endpoint: str) -> list[ServedVersion]:
        """An endpoint's."""
        return list(self._of.get(endpoint, {}).values())

    @property
    def slots(self) -> set[Slot]:
        """Of all."""
        return {slot for version in self.values() for slot in version.slots}

    def present(self, keys: Iterable[VersionKey]) -> dict[VersionKey, Slot]:
        """Where new requests of these go, as far as they are served."""
        found = ((key, self.get(key)) for key in keys)
        return {key: one.slots[-1] for key, one in found if one is not None and one.slots and one.route is not None}

    def claims(self, endpoint: str) -> tuple[int, Epoch | None]:
        """What the gates of an endpoint tell: the highest epoch, and a claim above this router's own."""
        highest, above = 0, None
        for version in self._of.get(endpoint, {}).values():
            sums = version.sums
            highest = max(highest, sums.highest_epoch)
            if sums.superseded_by is not None and (above is None or sums.superseded_by > above):
                above = sums.superseded_by
        return highest, above

    def waiting(self, endpoint: str, seen: Observations, since: float) -> int | None:
        """Requests that wait here for an endpoint; None: that was not looked at since then."""
        versions = self.of(endpoint)
        processes = {slot.process for version in versions for slot in version.slots}
        if any(number not in seen or seen[number].at <= since for number in processes):
            return None
        return sum(version.queued(seen) for version in versions)

    def signs(self, endpoints: Iterable[str]) -> dict[VersionKey, Sign]:
        """What each version of these is now, for `changed`."""
        return {version.key: version.sign for name in endpoints for version in self.of(name)}

    def changed(self, before: Mapping[VersionKey, Sign], endpoints: Iterable[str]) -> list[VersionKey] | None:
        """Those of these endpoints that are not as they were; None: all, where there are few."""
        if len(self) <= MANY:
            return None
        return [key for key, sign in self.signs(endpoints).items() if before.get(key) != sign]

    def turn(self, now: float, seen: Observations) -> list[VersionKey] | None:
        """Whose round it is: of those with requests, or on the move; None: everybody's."""
        if len(self) <= MANY or now >= self._everybody:
            self._everybody = now + EVERYBODY_SECONDS
            return None
        return [key for key, version in self.items() if version.moving or version.has_requests(seen)]
