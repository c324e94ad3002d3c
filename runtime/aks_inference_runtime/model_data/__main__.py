"""Beside a scoring server in its pod: `python -m aks_inference_runtime.model_data SETTINGS`, the settings as JSON.

Ends when it is asked to, after what the scoring server has left; the kubelet does so when that has ended.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from aks_inference_runtime.api.base import Wire
from aks_inference_runtime.api.errors import AksInferenceError
from aks_inference_runtime.model_data.blobs import AppendBlobs
from aks_inference_runtime.model_data.shipping import Shipper
from aks_inference_runtime.models.azure import container_client, take_access
from aks_inference_runtime.models.stores.open import blob_place

ROUND_S = 5.0
"""Each round is a block of a blob, which has 50,000 of them: three days for one replica."""
LAST_S = 20.0
"""For what is left at the end; the pod has 30 s."""
LAST_PAUSE_S = 0.5
RETRIES = 0
"""By the SDK, of one request: a second append would be refused for the first one's rows. The next round tries again."""
_log = logging.getLogger("aks_inference_runtime.model_data")


class Settings(Wire):
    """What it is told."""

    spool: str
    store: str
    """`az://account/container[/prefix]`."""
    credentials: str | None = None
    """A folder with `connection-string` and `ca.crt`. None: the pod's identity."""


def run(shipper: Shipper, ending: threading.Event, clock: Callable[[], float] = time.monotonic) -> bool:
    """Ships until it is to end, and then what is left. False: some of it could not be."""
    failed = ""
    while not ending.wait(ROUND_S):
        _, failed = _round(shipper, failed)
    until = clock() + LAST_S
    while True:
        shipped, failed = _round(shipper, failed)
        if not shipped and not failed:
            return True
        if clock() > until:
            return False
        if failed:
            time.sleep(LAST_PAUSE_S)


def _round(shipper: Shipper, failed: str) -> tuple[int, str]:
    """How many files, and what went wrong, told once; empty when all is well."""
    try:
        shipped = shipper.round()
    except (AksInferenceError, OSError) as error:
        if str(error) != failed:
            _log.warning("model data waits: %s", error)
        return 0, str(error)
    if failed:
        _log.warning("model data is stored again")
    return shipped, ""


def main(arguments: list[str]) -> int:
    """The process."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr)
    # What it sends and gets is no news; failures are told in one line.
    logging.getLogger("azure").setLevel(logging.ERROR)
    try:
        settings = Settings.model_validate_json(arguments[0] if arguments else "")
        account, container, prefix = blob_place(settings.store)
    except (ValidationError, AksInferenceError) as error:
        print(f"error: SETTINGS: {error}", file=sys.stderr)
        return 2
    take_access(settings.credentials)
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    os.makedirs(settings.spool, exist_ok=True)  # noqa: PTH103 - as a text, in one call
    blobs = AppendBlobs(settings.store, prefix, lambda: container_client(account, container, RETRIES))
    if run(Shipper(Path(settings.spool), blobs), ending):
        return 0
    _log.error("model data is left that could not be stored")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
