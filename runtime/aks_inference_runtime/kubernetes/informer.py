"""A collection of the API server kept in memory: listed, then watched, of each object what `project` keeps."""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from aks_inference_runtime.api.errors import AksInferenceError
from aks_inference_runtime.kubernetes.client import Api, Expired, Object
from aks_inference_runtime.observability.failures import Failures

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
_log = logging.getLogger(__name__)

T = TypeVar("T")


class Informer(Generic[T]):
    """While the API server is away, what was known stays; afterwards it is brought up to date."""

    def __init__(
        self,
        path: str,
        project: Callable[[Object], T | None],
        changed: Callable[[], None],
        *,
        again: Callable[[Object, T], T | None] | None = None,
        labels: str = "",
        fields: str = "",
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """
        Args:
            path: Required. Of the collection.
            project: Required. What is kept of an object; None: nothing.
            changed: Required. Called after each change of what is kept.
            again: Optional. The same as `project` of an object that is kept already. Default: `project`.
            labels, fields: Optional. Selectors.
            jitter: Optional. 0 to 1, for pauses after failures.
        """
        self._path = path
        self._project = project
        self._changed = changed
        self._again = again
        self._labels = labels
        self._fields = fields
        self._jitter = jitter
        self.revision = 0
        """Grows with each change of what is kept."""
        self._items: dict[str, T] = {}
        self._listed = asyncio.Event()

    @property
    def items(self) -> Mapping[str, T]:
        """By `<namespace>/<name>`."""
        return self._items

    @property
    def listed(self) -> bool:
        """Whether the collection was read once."""
        return self._listed.is_set()

    async def first(self) -> None:
        """Waits until the collection was read once."""
        await self._listed.wait()

    async def run(self, api: Api) -> None:
        """Until cancelled."""
        pause = FIRST_PAUSE_S
        version: str | None = None
        failures = Failures(_log, f"{self._path} could not be read; it is listed anew")
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            try:
                if version is None:
                    version = await self._list(api)
                async for kind, found in api.watch(self._path, version, self._labels, self._fields):
                    version = found["metadata"]["resourceVersion"]
                    pause = FIRST_PAUSE_S
                    self._take(kind, found)
                if clock() - began >= LONGEST_PAUSE_S:
                    pause = FIRST_PAUSE_S
                    continue  # as each watch ends; who ends it at once is not asked again at once
            except Expired:
                version = None
            except AksInferenceError as error:
                _log.warning("%s", error)
            except Exception as error:  # noqa: BLE001 - what serves goes on with what was known
                failures.tell(error)
                # What could not be read would come again.
                version = None
            await asyncio.sleep(pause * (0.5 + self._jitter() / 2))
            pause = min(LONGEST_PAUSE_S, pause * 2)

    async def _list(self, api: Api) -> str:
        items = {}
        version = ""
        async for page, version in api.pages(self._path, self._labels, self._fields):  # noqa: B007 - the last one
            for found in page:
                before = self._items.get(key := _key(found))
                if (kept := self._kept(found, before)) is not None:
                    # As in `_take`: of what has not changed the same object stays.
                    items[key] = before if before is not None and before == kept else kept
        changed = items != self._items or not self._listed.is_set()
        self._items = items
        self._listed.set()
        if changed:
            self._tell()
        return version

    def _kept(self, found: Object, before: T | None) -> T | None:
        try:
            return self._project(found) if before is None or self._again is None else self._again(found, before)
        except Exception as error:  # noqa: BLE001 - an object that cannot be read costs itself alone
            _log.error("%s %s cannot be read: %r", self._path, _key(found), error)
            return None

    def _take(self, kind: str, found: Object) -> None:
        if kind == "BOOKMARK":
            return
        before = self._items.get(key := _key(found))
        kept = None if kind == "DELETED" else self._kept(found, before)
        if kept == before:
            return  # the same object stays: whoever made something of it sees that
        if kept is None:
            del self._items[key]
        else:
            self._items[key] = kept
        self._tell()

    def _tell(self) -> None:
        self.revision += 1
        self._changed()


def _key(found: Object) -> str:
    metadata = found["metadata"]
    return f"{metadata.get('namespace', '')}/{metadata['name']}"
