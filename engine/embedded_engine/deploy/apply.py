"""Doing a step: the provider's calls, and what they make of the resource's state."""

import dataclasses
import datetime
from collections.abc import Callable

from embedded_engine import values
from embedded_engine.deploy import paths
from embedded_engine.deploy.builtin import Builtin
from embedded_engine.deploy.cells import Cell, Step, is_provider
from embedded_engine.deploy.registry import Registry
from embedded_engine.deploy.texts import protected_message
from embedded_engine.errors import EngineError
from embedded_engine.events import PropertyDiff
from embedded_engine.model import Properties, Resource
from embedded_engine.plugins.answers import Diff, ProviderError, State
from embedded_engine.plugins.client import Provider

Clock = Callable[[], datetime.datetime]


class StepError(EngineError):
    """A step failed. `kept`: half of it is there, so its new state is. `protected`: other deletes go on.

    `lost`: the plugin ended in the middle, so what became of it is not known.
    """

    def __init__(self, message: str, kept: bool = False, protected: bool = False, lost: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.kept = kept
        self.protected = protected
        self.lost = lost


@dataclasses.dataclass(frozen=True)
class Doer:
    """Does steps. `deletions` are the URNs that this run deletes (for deletedWith); `warn(urn, message)` tells."""

    registry: Registry
    dry_run: bool
    deletions: set[str]
    warn: Callable[[str, str], None]
    clock: Clock = lambda: datetime.datetime.now(datetime.UTC)

    async def apply(self, step: Step) -> None:
        """Raises `StepError`."""
        action = {
            "same": self._same,
            "create": self._create,
            "create-replacement": self._create,
            "update": self._update,
            "delete": self._delete,
            "delete-replaced": self._delete,
            "discard": self._delete,
            "discard-replaced": self._delete,
            "read": self._read,
            "read-replacement": self._read,
            "refresh": self._refresh,
            "import": self._import,
            "import-replacement": self._import,
            "replace": self._nothing,
            "remove-pending-replace": self._nothing,
        }[step.op]
        try:
            await action(step)
        except ProviderError as error:
            raise StepError(error.message, lost=error.lost) from error
        except StepError:
            raise
        except EngineError as error:
            raise StepError(str(error)) from error
        finally:
            if step.new is not None and step.op != "replace":
                step.new.state = self._with_secrets(step.new.state)

    async def _nothing(self, step: Step) -> None:
        return None

    async def _same(self, step: Step) -> None:
        if step.skipped_create:
            return
        old, new = _old(step), _new(step)
        new.set(id=old.state.id, outputs=old.state.outputs)
        if is_provider(new.state.type) and not step.untargeted:
            await self.registry.same(dataclasses.replace(new.state, inputs=old.state.inputs))

    async def _create(self, step: Step) -> None:
        new = _new(step)
        state = new.state
        partial: ProviderError | None = None
        if state.custom:
            made, partial = await self._made(state)
            new.set(
                id=made.id,
                outputs=made.outputs or {},
                init_errors=made.reasons,
                refresh_before_update=made.refresh_before_update,
            )
            if partial is None and not self.dry_run and not made.id:
                raise StepError("provider did not return an ID from Create")
        now = self._now()
        new.set(created=now, modified=now)
        if step.pending_delete:
            _old(step).set(delete=True)
        if partial is not None:
            raise StepError(partial.message, kept=True)

    async def _made(self, state: Resource) -> tuple[State, ProviderError | None]:
        if is_provider(state.type):
            return State(await self.registry.create(state.urn, state.inputs), state.inputs), None
        timeout = state.custom_timeouts.get("create", 0)
        try:
            return await self._provider(state).create(state.urn, state.inputs, timeout, self.dry_run), None
        except ProviderError as error:
            if error.partial is None:
                raise
            return error.partial, error

    async def _update(self, step: Step) -> None:
        old, new = _old(step), _new(step)
        before = old.state
        new.set(id=before.id, created=before.created, modified=before.modified)
        state = new.state
        if not state.custom:
            new.set(modified=self._now())
            return
        if is_provider(state.type):
            await self.registry.update(state.urn, before.id, state.inputs)
            new.set(outputs=state.inputs, modified=self._now())
            return
        partial: ProviderError | None = None
        try:
            made = await self._provider(state).update(
                state.urn,
                before.id,
                before.inputs,
                before.outputs,
                state.inputs,
                state.custom_timeouts.get("update", 0),
                step.ignore_changes,
                self.dry_run,
            )
        except ProviderError as error:
            if error.partial is None:
                raise
            made, partial = error.partial, error
        new.set(
            outputs=made.outputs or {},
            modified=self._now(),
            init_errors=made.reasons,
            refresh_before_update=made.refresh_before_update,
        )
        if partial is not None:
            # What is there was not made with the new inputs: the next run must see that they are still wanted.
            new.set(inputs=before.inputs)
            raise StepError(partial.message, kept=True)

    async def _delete(self, step: Step) -> None:
        old = _old(step)
        state = old.state
        if step.logical and state.protect:
            raise StepError(protected_message(state.urn), protected=True)
        goes_with = bool(state.deleted_with) and state.deleted_with in self.deletions
        ours = state.custom and not state.external and not state.retain_on_delete and not goes_with
        if ours and not self.dry_run and not is_provider(state.type):
            timeout = state.custom_timeouts.get("delete", 0)
            await self._provider(state).delete(state.urn, state.id, state.inputs, state.outputs, timeout)
        # Only now: a resource that is pending replacement has been deleted already.
        if step.pending_replacement:
            old.set(pending_replacement=True)

    async def _read(self, step: Step) -> None:
        new = _new(step)
        state = new.state
        failed: ProviderError | None = None
        if state.id == values.UNKNOWN:
            new.set(outputs={})
        else:
            try:
                found = await self._provider(state).read(state.urn, state.id, state.inputs, state.inputs)
            except ProviderError as error:
                if error.partial is None:
                    raise
                found, failed = error.partial, error
            if found.outputs is None:
                raise StepError(f"resource '{state.id}' does not exist")
            new.set(outputs=found.outputs, id=found.id or state.id, init_errors=found.reasons)
        if step.op == "read-replacement":
            _old(step).set(delete=True)
        if step.old is not None:
            before = step.old.state
            new.set(created=before.created, modified=before.modified)
            same = values.equal(new.state.inputs, before.inputs) and values.equal(new.state.outputs, before.outputs)
            if not same:
                new.set(modified=self._now())
        if failed is not None:
            raise StepError(failed.message, kept=True)

    async def _refresh(self, step: Step) -> None:
        """What is there now becomes `new`; a resource that is gone has none."""
        old = _old(step)
        state = old.state
        new = step.new = Cell(state)
        step.result_op = "same"
        if not state.custom or is_provider(state.type) or state.pending_replacement:
            return
        provider = self._provider(state)
        try:
            found = await provider.read(state.urn, state.id, state.inputs, state.outputs)
        except ProviderError as error:
            if error.partial is None:
                raise
            found = error.partial
            said = "\n* ".join(found.reasons)
            self.warn(state.urn, f"Refreshed resource is in an unhealthy state:\n* {said}")
        if not found.id or found.outputs is None:
            step.result_op, step.deleted, step.new = "delete", True, None
            return
        inputs = state.inputs if found.inputs is None else found.inputs
        changed = not (values.equal(inputs, state.inputs) and values.equal(found.outputs, state.outputs))
        new.set(
            id=found.id,
            inputs=inputs,
            outputs=found.outputs,
            init_errors=found.reasons,
            refresh_before_update=found.refresh_before_update,
            modified=self._now() if changed else state.modified,
        )
        if state.external:
            step.result_op = "same" if values.equal(found.outputs, state.outputs) else "update"
            return
        # What the program wants is the old inputs: the difference is told from there to what was found.
        diff = await diff_resource(
            provider, new.state, inputs, found.outputs, state.inputs, state.ignore_changes, self.dry_run
        )
        step.diffs = diff.diffs
        step.detailed = inverted(diff)
        step.result_op = "update" if diff.changes else "same"

    async def _import(self, step: Step) -> None:
        """Reads the resource; `old` becomes what was read, with which the program's wishes are compared."""
        new = _new(step)
        state = new.state
        reasons: tuple[str, ...] = ()
        try:
            found = await self._provider(state).read(state.urn, state.import_id, None, None)
        except ProviderError as error:
            if error.partial is None:
                raise
            found, reasons = error.partial, error.partial.reasons
        if found.outputs is None:
            raise StepError(f"resource '{state.import_id}' does not exist")
        if found.inputs is None:
            package = state.type.partition(":")[0]
            raise StepError(
                f"provider does not support importing resources; please try updating the '{package}' plugin"
            )
        now = self._now()
        new.set(
            id=found.id or state.import_id,
            inputs=found.inputs,
            outputs=found.outputs,
            init_errors=reasons,
            refresh_before_update=found.refresh_before_update,
            created=now,
            modified=now,
        )
        if step.pending_delete:
            _old(step).set(delete=True)

    def _provider(self, state: Resource) -> Provider | Builtin:
        return self.registry.require(state.provider, state.urn)

    def _now(self) -> str:
        return self.clock().isoformat(timespec="microseconds").replace("+00:00", "Z")

    def _with_secrets(self, state: Resource) -> Resource:
        """Outputs are secret where the program asks for it, or where the input of that name is."""
        outputs = dict(state.outputs)
        for key in state.additional_secret_outputs:
            if key == "id":
                self.warn(state.urn, "The 'id' property cannot be made secret.")
            elif key in outputs:
                outputs[key] = values.secret(outputs[key])
        for key, value in outputs.items():
            if values.is_secret(state.inputs.get(key)):
                outputs[key] = values.secret(value)
        changed = any(outputs[key] is not value for key, value in state.outputs.items())
        return dataclasses.replace(state, outputs=outputs) if changed else state


async def diff_resource(
    provider: Provider | Builtin,
    state: Resource,
    old_inputs: Properties,
    old_outputs: Properties,
    news: Properties,
    ignored: tuple[str, ...],
    unknowns: bool,
) -> Diff:
    """The provider's comparison; where it cannot say, the inputs are compared."""
    diff = await provider.diff(state.urn, state.id, old_inputs, old_outputs, news, ignored, unknowns)
    if diff.changes is not None:
        return diff
    kept, _ = paths.ignore_changes(news, old_inputs, ignored)
    found = paths.differences(old_inputs, kept)
    if not found:
        return dataclasses.replace(diff, changes=False)
    return dataclasses.replace(diff, changes=True, diffs=paths.top_keys(found), detailed=found)


def inverted(diff: Diff) -> dict[str, PropertyDiff] | None:
    """The details seen from the other side."""
    if diff.detailed is None:
        return None
    other = {"add": "delete", "delete": "add", "add-replace": "delete-replace", "delete-replace": "add-replace"}
    return {path: PropertyDiff(other.get(d.kind, d.kind), d.input_diff) for path, d in diff.detailed.items()}


def _old(step: Step) -> Cell:
    assert step.old is not None  # noqa: S101 - steps of this kind are made with one
    return step.old


def _new(step: Step) -> Cell:
    assert step.new is not None  # noqa: S101 - steps of this kind are made with one
    return step.new
