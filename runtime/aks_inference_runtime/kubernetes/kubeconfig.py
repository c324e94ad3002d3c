"""What kubeconfigs say, merged as kubectl does it: for a context, cluster or user the first file that has it counts."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from aks_inference_runtime.api.errors import InvalidInput

FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
"""Paths in sections, relative to the file that names them."""

Section = Mapping[str, Any]


def of_environment(environment: Mapping[str, str] = os.environ) -> list[Path]:
    """The files that are there of those that KUBECONFIG names, else `~/.kube/config`. Raises InvalidInput for none."""
    named = [Path(part) for part in environment.get("KUBECONFIG", "").split(os.pathsep) if part]
    looked = named or [Path.home() / ".kube" / "config"]
    found = [path for path in looked if path.is_file()]
    if not found:
        raise InvalidInput(
            f"no kubeconfig: {', '.join(map(str, looked))} is not there; set KUBECONFIG, or name one by its argument"
        )
    return found


def chosen(paths: Sequence[Path], context_name: str | None) -> tuple[Section, Section, str | None]:
    """The cluster, the user and, if it says one, the namespace of a context. Raises InvalidInput.

    Args:
        paths: Required. Files that are there.
        context_name: Optional. Default: the current context of the first that has one.
    """
    shown = ", ".join(map(str, paths))
    try:
        documents = [(path.parent, yaml.safe_load(path.read_text())) for path in paths]
        contexts, clusters, users = (_merged(documents, kind) for kind in ("context", "cluster", "user"))
        if context_name is not None and context_name not in contexts:
            raise InvalidInput(f"{shown} has no context {context_name!r} (there are: {', '.join(contexts)})")
        current = [
            str(document["current-context"]) for _, document in documents if (document or {}).get("current-context")
        ]
        context = contexts[context_name or next(iter(current))]
        cluster, user = clusters[context["cluster"]], users[context["user"]]
        str(cluster["server"])
        namespace = str(context["namespace"]) if context.get("namespace") else None
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise InvalidInput(f"{shown}: not a kubeconfig with a current context: {error!r}") from None
    return cluster, user, namespace


def _merged(documents: Sequence[tuple[Path, Any]], kind: str) -> dict[str, Section]:
    found: dict[str, Section] = {}
    for folder, document in documents:
        for entry in (document or {}).get(f"{kind}s") or ():
            found.setdefault(str(entry["name"]), _absolute(folder, entry.get(kind) or {}))
    return found


def _absolute(folder: Path, section: Section) -> Section:
    return {name: str(folder / value) if name in FILES and value else value for name, value in section.items()}
