"""One registration on its way to its steps, and how that can end."""

import dataclasses

from embedded_engine.deploy.cells import Cell
from embedded_engine.deploy.goals import Goal
from embedded_engine.errors import EngineError
from embedded_engine.model import Properties


class BailError(EngineError):
    """The run ends; why has been told already."""


class StepFailedError(BailError):
    """A step of the registration failed, or was not begun because the run is stopping."""


@dataclasses.dataclass(eq=False, kw_only=True)
class Registration:
    """One goal on its way. `result` is what the program gets if no step changes it."""

    goal: Goal
    urn: str
    old: Cell | None
    new: Cell
    invalid: bool = False
    imported: bool = False
    seed: bytes = b""
    inputs: Properties = dataclasses.field(default_factory=dict)
