"""Whether a local target has the models that services name by id: asked beside the program, told at its end."""

import asyncio
import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from aks_inference.findings import Finding
from aks_inference.program import ComponentFindings, Program
from aks_inference.registered_model.component import RegisteredModel
from aks_inference.service.endpoint import EndpointPlan
from aks_inference.service.models import parse_model_id
from aks_inference.targets import choose_target
from aks_inference_runtime.api.errors import InvalidInput, RuntimeUnavailable

if TYPE_CHECKING:
    from aks_inference_runtime.api.status import ModelRecord

Path = tuple[str | int, ...]
LOOK_S = 3.0
"""A cluster that does not answer in that time tells nothing, and refuses nothing."""


def unknown_model(name: str, version: int, stored: Sequence["ModelRecord"]) -> tuple[str, str]:
    """Rule and mend about a model that is not among those of a target."""
    mend = "pass a RegisteredModel of this program, or its `@model_id`"
    versions = sorted(record.version for record in stored if record.name == name)
    if versions:
        known = ", ".join(f"{name}:{version}" for version in versions[-5:])
        return f"no model {name}:{version} is stored on the target (there is {known})", f"name one of them, or {mend}"
    names = sorted({record.name for record in stored})
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or names[:5]
    listed = f"did you mean {' or '.join(near)}?" if near else "it has no models"
    return f"no model {name!r} is stored on the target ({listed})", f"mend the name, or {mend}"


async def stored_models(directory: str) -> Sequence["ModelRecord"] | None:
    """What the supervisor of a state directory has; None: it does not answer."""
    from aks_inference_runtime.api.client import SupervisorClient  # with its HTTP client: for who asks only

    try:
        return await SupervisorClient(directory).models(LOOK_S)
    except (RuntimeUnavailable, InvalidInput):
        return None


class _Looks:
    """The targets of a program, each asked once in a thread of its own."""

    def __init__(self) -> None:
        self._answers: dict[str, Future[Sequence[ModelRecord] | None]] = {}
        self._threads = ThreadPoolExecutor(thread_name_prefix="models")

    def ask(self, directory: str) -> "Future[Sequence[ModelRecord] | None]":
        if directory not in self._answers:
            self._answers[directory] = self._threads.submit(asyncio.run, stored_models(directory))
        return self._answers[directory]


_of_programs: WeakKeyDictionary[Program, _Looks] = WeakKeyDictionary()


def ask_in_program(
    program: Program, kind: str, name: str, declared: Mapping[str, Any], plan: EndpointPlan | None
) -> None:
    """Asks for the models of an endpoint on a local target, also where something else is wrong with it (no plan)."""
    target = choose_target(declared.get("target"))[0] if plan is None else plan.target
    directory = None if target is None else target.state_directory
    uses = list(_declared_uses(declared) if plan is None else _uses(plan, in_versions="versions" in declared))
    if directory is None or not uses:
        return
    looks = _of_programs.get(program) or _of_programs.setdefault(program, _Looks())
    answer = looks.ask(directory)

    def end() -> Iterable[ComponentFindings]:
        stored = answer.result()
        if stored is None:
            return
        # They may come with the same apply.
        coming = {each._model_name for each in program.components if isinstance(each, RegisteredModel)}
        present = {(record.name, record.version) for record in stored}
        found = tuple(
            Finding(path, *unknown_model(model, version, stored), f"{model}:{version}")
            for path, model, version in uses
            if model not in coming and (model, version) not in present
        )
        if found:
            yield ComponentFindings(kind, name, found)

    program.at_end(end)


def _uses(plan: EndpointPlan, *, in_versions: bool) -> Iterator[tuple[Path, str, int]]:
    """Path, name and version of what is named by an id and kept by the target itself."""
    for index, version in enumerate(plan.versions):
        where: Path = ("versions", index) if in_versions else ()
        for position, use in enumerate(version.models):
            if use.store is None and isinstance(use.reference, Mapping):
                name, number = use.reference["name"], use.reference["version"]
                if isinstance(number, int):
                    yield (*where, "models", position), name, number


def _declared_uses(declared: Mapping[str, Any]) -> Iterator[tuple[Path, str, int]]:
    """The same, of arguments of which others are wrong."""
    versions = declared.get("versions")
    holders: list[tuple[Path, Any]] = [((), declared)]
    holders += [
        (("versions", index), each) for index, each in enumerate(versions if isinstance(versions, list) else ())
    ]
    for where, holder in holders:
        models = holder.get("models") if isinstance(holder, Mapping) else None
        for position, model in enumerate(models if isinstance(models, list) else ()):
            reference = parse_model_id(model) if isinstance(model, str) else None
            if reference is not None:
                yield (*where, "models", position), reference["name"], reference["version"]
