"""Registrations: where they come from, one on its way to its steps, and how that can end."""

import dataclasses
from typing import Protocol

from embedded_engine.deploy.cells import Cell
from embedded_engine.deploy.goals import Goal
from embedded_engine.errors import EngineError
from embedded_engine.model import Properties, Resource


class BailError(EngineError):
    """The run ends; why has been told already."""


class StepFailedError(BailError):
    """A step of the registration failed, or was not begun because the run is stopping."""


class ProgramEndedError(EngineError):
    """The program ended with a status that says that it failed; most say why before."""


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


@dataclasses.dataclass(frozen=True)
class Result:
    """What the program hears of a registration. `outcome`: success, failed or skipped; `unknown`: it is not made."""

    state: Resource
    outcome: str = "success"
    unknown: bool = False


class Source(Protocol):
    """Where registrations come from: a program. Ends when all have come; raises `EngineError` if the program failed."""

    async def run(self) -> None: ...

    async def stop(self) -> None: ...
