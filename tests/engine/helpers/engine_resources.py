"""Resources of a stack, as displays are told of them."""

from typing import Any

from embedded_engine.events import (
    StepMetadata,
)
from embedded_engine.model import Resource
from embedded_engine.values import SECRET, SIGNATURE

ROOT = "urn:pulumi:dev::shop::pulumi:pulumi:Stack::shop-dev"
APP = "urn:pulumi:dev::shop::my:app:App::web"
SERVER = "urn:pulumi:dev::shop::my:app:App$cloud:compute/server:Server::web-server"
DISK = "urn:pulumi:dev::shop::cloud:index:Disk::disk"


def secret(value: Any) -> dict[str, Any]:
    return {SIGNATURE: SECRET, "value": value}


def resource(urn: str, parent: str = ROOT, **fields: Any) -> Resource:
    kind = urn.split("::")[2].rpartition("$")[2]
    custom = not kind.startswith(("pulumi:", "my:"))
    return Resource(urn=urn, type=kind, custom=custom, parent="" if urn == ROOT else parent, **fields)


def step(op: str, old: Resource | None, new: Resource | None, **fields: Any) -> StepMetadata:
    state = new or old
    assert state is not None
    return StepMetadata(op, state.urn, state.type, old, new, **fields)
