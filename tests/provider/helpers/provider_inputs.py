"""Inputs of custom resources, and what is asked of the answers."""

import time
from collections.abc import Callable
from typing import Any

from pulumi.runtime.proto import provider_pb2

Json = dict[str, Any]
SOME, NONE = provider_pb2.DiffResponse.DIFF_SOME, provider_pb2.DiffResponse.DIFF_NONE


def kinds(diff: Any) -> dict[str, str]:
    return {path: provider_pb2.PropertyDiff.Kind.Name(each.kind) for path, each in diff.detailedDiff.items()}


def endpoint(name: str = "svc", *, auth: str = "key", **versions: float) -> Json:
    shares = versions or {"a": 100}
    return {
        "metadata": {"name": name},
        "spec": {
            "auth": auth,
            "versions": [
                {
                    "name": version,
                    "trafficPercentile": share,
                    "isDefault": index == 0,
                    "models": [{"name": "stored", "version": 1}],
                    "code": {"entryScript": "score.py", "sourceDirectory": "/src", "digest": "sha256:0"},
                }
                for index, (version, share) in enumerate(shares.items())
            ],
        },
    }


def wait_for(condition: Callable[[], bool], limit_s: float = 15) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if not isinstance(value, dict | list):
        return [path]
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    return [leaf for key, each in inner for leaf in leaves(each, (*path, key))]


def put(value: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    if not path:
        return change(value)
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = put(copy[path[0]], path[1:], change)
    return copy
