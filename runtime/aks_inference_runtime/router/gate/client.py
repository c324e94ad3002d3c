"""How the supervisor and the router's agent talk to a gate."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from aks_inference_runtime.api.errors import OperationFailed, RuntimeUnavailable
from aks_inference_runtime.router.gate.settings import GateFigures, GateStatus, Reported


class GateClient:
    """One question, one answer, over a connection of its own."""

    def __init__(self, control: Path) -> None:
        self._control = control

    async def status(self, timeout_s: float = 1.0) -> GateStatus:
        """What goes on at the gate. Raises RuntimeUnavailable when it is not there or does not answer in time."""
        try:
            return GateStatus.model_validate_json(await self._ask({"op": "status"}, timeout_s))
        except ValidationError as error:
            raise self._unavailable(error) from None

    async def figures(self, timeout_s: float = 1.0) -> GateFigures:
        """What it counted. Raises RuntimeUnavailable, also for a gate of an earlier release, which tells none."""
        try:
            return GateFigures.model_validate_json(await self._ask({"op": "figures"}, timeout_s))
        except ValidationError as error:
            raise self._unavailable(error) from None

    async def report(self, wanted: Reported, timeout_s: float = 1.0) -> None:
        """Whom it tells from now on. Raises RuntimeUnavailable, or OperationFailed where it cannot be told that."""
        line = await self._ask({"op": "report", **wanted.model_dump(by_alias=True)}, timeout_s)
        try:
            GateStatus.model_validate_json(line)
        except ValidationError:
            told = line.decode(errors="replace").strip()
            raise OperationFailed(f"the gate at {self._control} does not take what it is to report: {told}") from None

    async def _ask(self, message: Mapping[str, Any], timeout_s: float) -> bytes:
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await asyncio.open_unix_connection(str(self._control))
                try:
                    writer.write(json.dumps(message).encode() + b"\n")
                    return await reader.readline()
                finally:
                    writer.close()
        except (OSError, ValueError) as error:
            raise self._unavailable(error) from None

    def _unavailable(self, error: Exception) -> RuntimeUnavailable:
        return RuntimeUnavailable(f"the gate at {self._control} does not answer: {error}")
