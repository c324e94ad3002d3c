"""What Azure knows beside a request, and how it refuses one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

Body = Mapping[str, Any]


@dataclass(frozen=True)
class World:
    """What Azure knows beside the request."""

    today: date
    data: Path
    subnet: Callable[[str], Body | None]
    """A subnet by id: `addressPrefix`, `routeTable`, `natGateway`, `delegations`; None: not known, so not judged."""
    holds_role: Callable[[str, str, str], bool]
    """Identity's resource id, role's id, scope."""
    holds_at_vault: Callable[[str, str, str], bool]
    """Identity's resource id, role's id, the vault's name."""
    location: str = ""


class Refused(Exception):
    """With Azure's code, and the rule's number."""

    def __init__(self, code: str, message: str, rule: str) -> None:
        super().__init__(f"{code}: {message} [rule {rule}]")
        self.code, self.message, self.rule = code, message, rule


def need(holds: bool, code: str, message: str, rule: str) -> None:
    if not holds:
        raise Refused(code, message, rule)
