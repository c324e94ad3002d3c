"""Name rules of Azure ML v1 (azureml-core 1.61; reference: azureml-v1.md 4.1, 1.6, 2.1) and of AKS."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from aks_inference.findings import Finding, Path


@dataclass(frozen=True)
class NameRule:
    """A pattern and how people say it."""

    pattern: re.Pattern[str]
    says: str

    def check(self, path: Path, name: object) -> Iterator[Finding]:
        """The finding about a name that breaks the rule."""
        # fullmatch: `$` would let a trailing newline through, as the old SDK did for namespaces.
        if isinstance(name, str) and not self.pattern.fullmatch(name):
            yield Finding(path, f"a name has {self.says}", "choose another name", name)


SERVICE = NameRule(
    re.compile(r"[a-z](?:[a-z0-9-]{1,30})[a-z0-9]"),
    "3 to 32 characters: lower-case letters, digits and dashes, first a letter, last a letter or digit",
)
MODEL = NameRule(
    re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}"),
    "1 to 255 characters: letters, digits, dashes, periods and underscores, first a letter or digit",
)
COMPUTE = NameRule(
    re.compile(r"[A-Za-z][A-Za-z0-9-]{1,22}[A-Za-z0-9]"),
    "3 to 24 characters: letters, digits and dashes, first a letter, last a letter or digit",
)
RESERVED_COMPUTE = frozenset({"amlcompute", "local", "containerinstance"})
"""Names of built-in compute targets of a workspace."""
NAMESPACE = NameRule(
    re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"),
    "1 to 63 characters: lower-case letters, digits and dashes, first and last not a dash",
)
ENVIRONMENT_RESERVED = ("Microsoft", "AzureML")
"""Prefixes of curated environments."""
