"""From registrations to steps: finds the old resource, asks the provider to check and compare, and decides.

Registrations come at any time and wait for providers while others go on; each decision itself is made under one lock,
because a replacement that deletes first takes its dependents with it.
"""

import asyncio
import dataclasses
import os
from collections.abc import Callable, Sequence

from embedded_engine import values
from embedded_engine.deploy import paths
from embedded_engine.deploy.apply import diff_resource
from embedded_engine.deploy.builtin import Builtin
from embedded_engine.deploy.cells import Cell, Step, is_provider, needs, qualified_type, split_reference
from embedded_engine.deploy.decisions import decide, is_import, replace_on_changes
from embedded_engine.deploy.goals import Goal, ReadGoal
from embedded_engine.deploy.history import History
from embedded_engine.deploy.identity import Identities
from embedded_engine.deploy.options import Options
from embedded_engine.deploy.registration import BailError, Registration, StepFailedError
from embedded_engine.deploy.registry import Registry
from embedded_engine.deploy.replacing import Replacements
from embedded_engine.errors import EngineError
from embedded_engine.events import STACK_TYPE, Diagnostic, Sink
from embedded_engine.model import Properties, Resource
from embedded_engine.plugins.answers import Diff, DiffUnavailableError, Failure
from embedded_engine.plugins.client import Provider

SEED_BYTES = 32


class Generator:
    """`perform` does steps at once: imports are read before what the program wants is compared."""

    def __init__(
        self,
        history: History,
        options: Options,
        registry: Registry,
        emit: Sink,
        slots: asyncio.Semaphore,
        perform: Callable[[Sequence[Step]], "asyncio.Future[bool]"],
    ) -> None:
        self.history = history
        self.options = options
        self.registry = registry
        self._errored = False
        self._emit = emit
        self._slots = slots
        self._perform = perform
        self._deciding = asyncio.Lock()
        self._identities = Identities(history, options, emit)
        self.replacements = Replacements(history, options, registry, emit)

    @property
    def errored(self) -> bool:
        """Whether something was told that makes the run fail, although it goes on."""
        return self._errored or self.replacements.errored

    def refuse(self, urn: str, message: str) -> None:
        """Tells an error with which the run goes on, and fails at its end."""
        self._errored = True
        self._error(urn, message)

    # -- registrations

    def begin(self, goal: Goal) -> Registration:
        """Names the resource and finds what it was. Raises `BailError` for a name that is taken."""
        history = self.history
        if goal.parent and goal.parent not in history.urns:
            raise EngineError(f"could not find parent resource {goal.parent}")
        urn, old, alias, invalid = self._identities.identify(goal.parent, goal.type, goal.name, goal.aliases)
        new = Cell(goal.new_state(urn, old.state if old else None, alias))
        history.goals[urn] = goal
        if is_provider(goal.type):
            history.providers[urn] = new
            if alias:
                history.providers[alias] = new
        return Registration(goal=goal, urn=urn, old=old, new=new, invalid=invalid, inputs=goal.properties)

    async def steps(self, registration: Registration) -> list[Step]:
        goal, old = registration.goal, registration.old
        registration.seed = os.urandom(SEED_BYTES)
        if is_import(goal.id, goal.custom, old.state if old else None):
            await self._import(registration)
        targeted = self._targeted(registration)
        recreating = registration.urn in self.history.deletes
        await self._check(registration, targeted, recreating)
        if registration.invalid:
            raise BailError(f"resource {registration.urn} is invalid")
        old = registration.old
        if recreating and old is not None:
            return self.replacements.recreate(registration, old)
        if old is not None and old.state.external:
            self.history.creates.add(registration.urn)
            return self.replacements.create_first(registration, old, Diff(True), keys=())
        if targeted and self._wanted(registration.new.state):
            self.history.targets_actual.add(registration.urn)
        if not targeted:
            return self._untargeted(registration)
        if old is None:
            self.history.creates.add(registration.urn)
            return self._validated([Step(op="create", new=registration.new, registered=True)])
        return await self._compare(registration, old)

    async def _import(self, registration: Registration) -> None:
        """Reads the resource to adopt; it becomes the old one. Raises `StepFailedError`."""
        goal, old, new = registration.goal, registration.old, registration.new
        if old is not None and registration.urn not in self.history.deletes:
            steps = [
                Step(op="import-replacement", old=old, new=new, logical=False, pending_delete=True),
                Step(op="replace", old=old, new=new),
            ]
        else:
            steps = [Step(op="import", new=new)]
        if not await self._perform(steps):
            raise StepFailedError(registration.urn)
        read = registration.old = steps[0].new
        fresh = goal.new_state(registration.urn, read.state if read else None, next(iter(new.state.aliases), ""))
        registration.new = Cell(fresh)
        registration.imported = True

    # -- targets

    def _targeted(self, registration: Registration) -> bool:
        kind = qualified_type(registration.urn)
        if is_provider(registration.goal.type) or kind == STACK_TYPE:
            return True
        return not self.options.targets or self._wanted(registration.new.state)

    def _wanted(self, state: Resource) -> bool:
        """Whether a resource is among the targets, or depends on one where dependents count."""
        targets = self.options.targets
        if not targets:
            return False
        if state.urn in targets:
            return True
        return self.options.target_dependents and not self.history.targets_actual.isdisjoint(needs(state))

    def _untargeted(self, registration: Registration) -> list[Step]:
        """Outside of the targets: what is there stays as it is, what is not there is not made."""
        history, urn, old = self.history, registration.urn, registration.old
        history.sames.add(urn)
        if old is None:
            history.skipped_creates.add(urn)
            return [Step(op="same", new=registration.new, skipped_create=True, registered=True)]
        return self._carried_over(old, urn)

    def _carried_over(self, old: Cell, asked: str) -> list[Step]:
        """The old resource, and before it what it needs, if nothing else of this run keeps that."""
        history = self.history
        history.urns.add(old.urn)
        history.sames.add(old.urn)
        steps: list[Step] = []
        for urn in sorted(needs(old.state)):
            needed = history.olds.get(urn)
            if history.has_step(urn):
                continue
            if needed is None:
                raise EngineError(f"dependency {urn} of untargeted resource {asked} has no old state")
            steps += self._carried_over(needed, asked)
        new = Cell(dataclasses.replace(old.state, id=""))
        return [*steps, Step(op="same", old=old, new=new, untargeted=True, registered=old.urn == asked)]

    def _validated(self, steps: list[Step]) -> list[Step]:
        """With targets: refuses what needs a resource that is not made in this run."""
        if not self.options.targets and not self.options.replace:
            return steps
        for step in steps:
            if step.new is None or step.skipped_create:
                continue
            for urn in sorted(needs(step.new.state) & self.history.skipped_creates):
                self.refuse(
                    step.urn, f"Resource '{step.urn}' depends on '{urn}' which was was not specified in --target list."
                )
                if not self.options.dry_run:
                    raise BailError("untargeted create")
                self.history.skipped_creates.discard(urn)
        return steps

    # -- check

    async def _check(self, registration: Registration, targeted: bool, recreating: bool) -> None:
        """The provider's view of the inputs: what it answers is what the resource gets."""
        goal, urn, old = registration.goal, registration.urn, registration.old
        inputs = goal.properties
        if old is not None:
            inputs, impossible = paths.ignore_changes(inputs, old.state.inputs, goal.ignore_changes)
            if impossible:
                said = ", ".join(impossible)
                text = f'cannot ignore changes in added or removed elements of the path: "{said}"'
                self._emit(Diagnostic("info", text, urn))
        if goal.custom and not targeted:
            inputs = old.state.inputs if old else {}
        elif goal.custom:
            anew = recreating or old is None or old.state.external or self._replace_asked(urn, old)
            olds = {} if anew or old is None else old.state.inputs
            news = goal.properties if anew else inputs
            inputs, failures = await self._ask_check(registration, olds, news)
            registration.invalid |= self._told(registration.new.state, failures)
        registration.inputs = inputs
        registration.new.set(inputs=inputs)

    async def _ask_check(
        self, registration: Registration, olds: Properties, news: Properties
    ) -> tuple[Properties, list[Failure]]:
        goal, urn = registration.goal, registration.urn
        if is_provider(goal.type):
            return await self.registry.check(urn, olds, news, self.options.dry_run)
        provider = await self._provider(urn, goal.provider)
        return await provider.check(urn, olds, news, registration.seed, self.options.dry_run)

    async def _provider(self, urn: str, reference: str) -> Provider | Builtin:
        provider = self.registry.get(reference)
        if provider is None and reference in self.history.references:
            await self.registry.ensure(reference)
        return self.registry.require(reference, urn)

    def _told(self, state: Resource, failures: Sequence[Failure]) -> bool:
        for failure in failures:
            name = state.name
            if failure.property:
                _, value = paths.lookup((failure.property,), state.inputs)
                text = (
                    f"{state.type} resource '{name}': property {failure.property} value {values.describe(value)} "
                    f"has a problem: {failure.reason}"
                )
            else:
                text = f"{state.type} resource '{name}' has a problem: {failure.reason}"
            self._error(state.urn, text)
        return bool(failures)

    # -- compare and decide

    def _replace_asked(self, urn: str, old: Cell | None) -> bool:
        asked = bool(self.options.replace) and urn in self.options.replace
        return asked or (old is not None and old.state.taint)

    async def _compare(self, registration: Registration, old: Cell) -> list[Step]:
        diff = await self._diff(registration, old)
        async with self._deciding:
            if registration.urn in self.history.deletes:
                return self.replacements.recreate(registration, old)
            return self._validated(await self._decide(registration, old, diff))

    async def _diff(self, registration: Registration, old: Cell) -> Diff:
        urn, goal, new = registration.urn, registration.goal, registration.new.state
        if self._replace_asked(urn, old):
            return Diff(True, ("id",))
        if not self.history.replaces.isdisjoint(new.replace_with):
            return Diff(True, ("replaceWith",))
        if new.deleted_with and new.deleted_with in self.history.replaces:
            return Diff(True, ("deletedWith",))
        if await self._provider_changed(old.state, new):
            return Diff(True, ("provider",))
        if not goal.custom:
            return Diff(not values.equal(old.state.inputs, registration.inputs))
        if is_provider(goal.type):
            return await self.registry.diff(urn, old.state.inputs, old.state.outputs, registration.inputs)
        provider = await self._provider(urn, goal.provider)
        try:
            async with self._slots:
                before = old.state
                state = dataclasses.replace(new, id=before.id)
                return await diff_resource(
                    provider,
                    state,
                    before.inputs,
                    before.outputs,
                    registration.inputs,
                    goal.ignore_changes,
                    self.options.dry_run,
                )
        except DiffUnavailableError as error:
            self._emit(Diagnostic("warning", str(error), urn))
            return Diff(True)

    async def _provider_changed(self, old: Resource, new: Resource) -> bool:
        """Whether another provider serves the resource, and says that it must be made anew there."""
        if old.provider == new.provider:
            return False
        if not old.provider or not new.provider:
            return True
        old_urn, new_urn = split_reference(old.provider)[0], split_reference(new.provider)[0]
        if self.history.aliased.get(old_urn) == new_urn:
            return False
        provider = self.registry.require(new.provider, new.urn)
        before, after = self.history.olds.get(old_urn), self.history.providers.get(new_urn)
        if before is None or after is None:
            return True
        found = await provider.diff_config(new_urn, before.state.inputs, before.state.outputs, after.state.inputs)
        return found.replace

    async def _decide(self, registration: Registration, old: Cell, diff: Diff) -> list[Step]:
        goal, urn, new, history = registration.goal, registration.urn, registration.new, self.history
        diff = replace_on_changes(diff, goal.replace_on_changes, bool(old.state.init_errors))
        decision = decide(diff, old.state, goal.delete_before_replace)
        if decision.kind == "same":
            if registration.imported:
                registration.new = old
                return []
            history.sames.add(urn)
            return [Step(op="same", old=old, new=new, registered=True)]
        if decision.kind == "update":
            history.updates.add(urn)
            step = Step(
                op="update",
                old=old,
                new=new,
                diffs=diff.diffs,
                detailed=diff.detailed,
                ignore_changes=goal.ignore_changes,
                registered=True,
            )
            return [step]
        self.replacements.refuse_protected(old.state, new.state)
        if goal.id:
            self.replacements.refuse_imported(registration, old.state, diff)
        history.replaces.add(urn)
        await self._check_anew(registration, old)
        if not decision.delete_first:
            return self.replacements.create_first(registration, old, diff, diff.replaces)
        return await self.replacements.delete_first(registration, old, diff)

    async def _check_anew(self, registration: Registration, old: Cell) -> None:
        """A resource that is made anew is checked without its old inputs, so that generated names are new."""
        if not registration.goal.custom or self._replace_asked(registration.urn, old):
            return
        inputs, failures = await self._ask_check(registration, {}, registration.goal.properties)
        if self._told(registration.new.state, failures):
            raise BailError(registration.urn)
        registration.new.set(inputs=inputs)

    # -- reads

    def read_steps(self, goal: ReadGoal) -> tuple[Cell, list[Step]]:
        history = self.history
        urn, old, alias, _ = self._identities.identify(goal.parent, goal.type, goal.name)
        state = Resource(
            urn=urn,
            type=goal.type,
            custom=True,
            id=goal.id,
            inputs=goal.properties,
            parent=goal.parent,
            external=True,
            dependencies=goal.dependencies,
            provider=goal.provider,
            additional_secret_outputs=goal.additional_secret_outputs,
            aliases=(alias,) if alias else (),
            source_position=goal.source_position,
            stack_trace=goal.stack_trace,
        )
        new = Cell(state)
        if old is not None and not old.state.external and old.state.id != goal.id:
            history.replaces.add(urn)
            read = Step(op="read-replacement", old=old, new=new, logical=False, registered=True)
            return new, [read, Step(op="replace", old=old, new=new)]
        history.reads.add(urn)
        return new, [Step(op="read", old=old, new=new, registered=True)]

    def _error(self, urn: str, message: str) -> None:
        self._emit(Diagnostic("error", message, urn))
