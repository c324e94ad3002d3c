"""The end of a failing container's log."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from aks_inference_runtime.api.errors import AksInferenceError
from aks_inference_runtime.kubernetes.workloads import ReplicaPod

LINES = 30
LONGEST = 16 * 1_024
"""Characters: lines may be of any length, and what is said before them has its room in a message."""
PAUSES_S = (0.0, 1.0, 2.0)
"""Before each try: between two runs of a container the kubelet has the log of neither for a moment."""
NO_LOG = "unable to retrieve container logs"
"""How a kubelet begins that, as the text of a good answer."""
_log = logging.getLogger(__name__)


class Texts(Protocol):
    """Of the API server's client."""

    async def text(self, path: str, **query: str) -> str:
        """Raises AksInferenceError."""


async def tail_of(api: Texts, pod: ReplicaPod, pauses: Sequence[float] = PAUSES_S) -> str:
    """Of the run that ended last, or else of the present one; empty where there is none."""
    for pause in pauses:
        await asyncio.sleep(pause)
        texts = [await _text(api, pod, previous=previous) for previous in (True, False)]
        found = next((text for text in texts if text and not text.startswith(NO_LOG)), "")
        if found or not any(texts):
            return found
    return ""


async def _text(api: Texts, pod: ReplicaPod, *, previous: bool) -> str:
    path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/log"
    query = {"previous": "true"} if previous else {}
    try:
        return (await api.text(path, container=pod.troubled, tailLines=str(LINES), **query)).strip()[-LONGEST:]
    except AksInferenceError as error:
        _log.info("no log of %s: %s", pod.name, error)
        return ""
