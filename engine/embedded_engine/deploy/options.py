"""What a run is asked to do."""

import dataclasses
from collections.abc import Mapping

from embedded_engine.deploy.targets import Targets


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """`parallel` steps at once. `replace` are resources to be replaced whether they changed or not.

    `refresh`: reads what is there before anything else. `config` has `namespace:name` keys and plain values;
    `secret_keys` says which of them are secret.
    """

    project: str
    stack: str
    organization: str = "organization"
    dry_run: bool = False
    parallel: int = 16
    targets: Targets = dataclasses.field(default_factory=Targets)
    target_dependents: bool = False
    replace: Targets = dataclasses.field(default_factory=Targets)
    continue_on_error: bool = False
    refresh: bool = False
    config: Mapping[str, str] = dataclasses.field(default_factory=dict)
    secret_keys: frozenset[str] = frozenset()
