"""`maxMb` and `maxFiles` of a resource that packs a folder."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from aks_inference_provider.fields import Failure, failures_of
from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.api.limits import ContextLimits

LIMITS = ("maxMb", "maxFiles")
_NAMED = re.compile(r"\bmax_(mb|files)\b")


def limit_failures(news: Mapping[str, Any]) -> list[Failure]:
    """Of plain inputs: limits that nothing keeps."""
    given = ((name, news.get(name)) for name in LIMITS)
    return [
        Failure(name, f"{value:g} is below 1; give a whole number from 1, or leave it out for the default")
        for name, value in given
        if isinstance(value, int | float) and value < 1
    ]


def limits_of(values: Mapping[str, Any]) -> ContextLimits:
    """Of checked plain inputs."""
    return ContextLimits.of(*(values.get(name) for name in LIMITS))


def folder_failures(error: InvalidInput, names: Collection[str], otherwise: str) -> list[Failure]:
    """As `failures_of`, with the limits as a resource writes them."""
    found = failures_of(error, names, otherwise)
    return [Failure(path, _NAMED.sub(lambda match: f"max{match[1].capitalize()}", text)) for path, text in found]
