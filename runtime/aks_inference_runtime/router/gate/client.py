"""How the supervisor and the router's agent talk to a gate."""

import asyncio
from pathlib import Path

from pydantic import ValidationError

from aks_inference_runtime.api.errors import RuntimeUnavailable
from aks_inference_runtime.router.gate.settings import GateStatus


class GateClient:
    """One question, one answer, over a connection of its own."""

    def __init__(self, control: Path) -> None:
        self._control = control

    async def status(self, timeout_s: float = 1.0) -> GateStatus:
        """What goes on at the gate. Raises RuntimeUnavailable when it is not there or does not answer in time."""
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await asyncio.open_unix_connection(str(self._control))
                try:
                    writer.write(b'{"op": "status"}\n')
                    line = await reader.readline()
                finally:
                    writer.close()
            return GateStatus.model_validate_json(line)
        except (OSError, ValidationError) as error:
            raise RuntimeUnavailable(f"the gate at {self._control} does not answer: {error}") from None
