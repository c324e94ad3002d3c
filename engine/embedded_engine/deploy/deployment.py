"""A run: registrations come in, steps are done, what is left over is deleted, and the state is kept on the way."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from embedded_engine import events, values
from embedded_engine.deploy import removal
from embedded_engine.deploy.apply import Doer, StepError
from embedded_engine.deploy.builtin import Builtin, StackOutputs
from embedded_engine.deploy.cells import Cell, Step, needs
from embedded_engine.deploy.defaults import DefaultProviders
from embedded_engine.deploy.generator import Generator
from embedded_engine.deploy.goals import Goal, ReadGoal
from embedded_engine.deploy.history import History
from embedded_engine.deploy.journal import Journal, Persist
from embedded_engine.deploy.options import Options
from embedded_engine.deploy.registration import BailError, ProgramEndedError, Result, Source, StepFailedError
from embedded_engine.deploy.registry import Registry
from embedded_engine.deploy.texts import pending_warning, shown_config
from embedded_engine.errors import EngineError
from embedded_engine.events import Diagnostic, Sink
from embedded_engine.model import Properties, Resource, Snapshot
from embedded_engine.plugins.find import Finder


class Deployment:
    """One run over one snapshot. `persist` is None in a preview; `emit` gets every event, in order."""

    def __init__(
        self,
        options: Options,
        base: Snapshot,
        emit: Sink,
        finder: Finder,
        persist: Persist | None = None,
        stack_outputs: StackOutputs | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.options = options
        self.base = base
        self.changes: dict[str, int] = {}
        # Set when nothing more is to be begun.
        self.stopping = asyncio.Event()
        self.emit = emit
        self._clock = clock
        self.history = History(base.resources, self._rename)
        self.journal = Journal(base, self.history.cells, None if options.dry_run else persist)
        self.builtin = Builtin(stack_outputs or _no_stacks, self._lookup)
        self.registry = Registry(finder, self._plugin_said, self.builtin, options.dry_run)
        self.registry.use_state(self.history.references)
        self._slots = asyncio.Semaphore(max(1, options.parallel))
        self.generator = Generator(
            self.history, options, self.registry, emit, self._slots, lambda steps: asyncio.ensure_future(self.do(steps))
        )
        self._doer = Doer(self.registry, options.dry_run, self.history.deletes, self._warn)
        # Steps by the URN that they registered, for outputs that come later.
        self._registered: dict[str, Step] = {}
        self._stack_outputs: tuple[str, Properties] | None = None
        self._failed_steps: list[Step] = []
        self._skipped: set[str] = set()
        self._step_failed = False
        self._unwritten = False
        self._only_refreshes = False
        self._bailed = False
        self._cancelled = False
        self.defaults = DefaultProviders(options, self._registered_state)
        self._running: set[asyncio.Task[Any]] = set()

    # -- whole runs

    async def update(self, source: Source | None) -> bool:
        """Preview, up or (without a source) destroy. True if all went well."""
        return await self._whole(self._update(source))

    async def refresh(self) -> bool:
        """The same for a run that only refreshes."""
        self._only_refreshes = True
        return await self._whole(self._refresh())

    async def _whole(self, work: Coroutine[Any, Any, None]) -> bool:
        started = self._clock()
        self.emit(events.Prelude(shown_config(self.options)))
        if self.base.operations:
            self._warn("", pending_warning(self.base))
        try:
            await work
        except BailError:
            self._bailed = True
        except EngineError as error:
            self._bailed = True
            self.emit(Diagnostic("error", str(error), aftermath=isinstance(error, ProgramEndedError)))
        return await self._finish(started)

    async def _update(self, source: Source | None) -> None:
        if self.options.refresh:
            await self._refresh()
        elif any(r.refresh_before_update for r in self.base.resources):
            await self._refresh(flagged=True)
        if self._step_failed:
            return
        if source is not None:
            self._check_targets(self.options.replace.literals)
            await self._run(source)
        if self.stopping.is_set():
            return
        unknown_target = self._missing_targets(self.options.targets.literals)
        try:
            sames, deletes = await removal.plan(self.history, self.generator, self.options, self.registry)
        except removal.UntargetedError:
            return  # told; the run counts as failed
        await self.do(sames)
        await self._delete(deletes)
        if unknown_target:
            raise BailError("one or more targets could not be found in the stack")

    async def _run(self, source: Source) -> None:
        """Until the program has ended, or the run stops."""
        running = asyncio.ensure_future(source.run())
        # Where the run is ended at once, nobody asks any more how its program ended.
        running.add_done_callback(lambda task: task.cancelled() or task.exception())
        stopping = asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
            # How a program ends that was shut out because a step failed says nothing.
            if running.done() and not self.stopping.is_set():
                running.result()
        finally:
            stopping.cancel()
            if self.stopping.is_set() or not running.done():
                await source.stop()
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
            elif running.exception() is not None:
                self.stopping.set()
            await self._settle()

    async def _settle(self) -> None:
        """Waits for what has begun."""
        while self._running:
            await asyncio.wait(self._running)

    async def _finish(self, started: float) -> bool:
        kind = "preview" if self.options.dry_run else "update"
        await self._settle()
        errored = self._bailed or self._step_failed or self.generator.errored or self._cancelled
        try:
            if self._stack_outputs is not None:
                await self._put_outputs(*self._stack_outputs, merge=errored)
            await self.journal.close(well=not errored)
        except EngineError as error:
            errored = True
            self._not_written(error)
        if self._cancelled:
            self._error("", f"{kind} canceled")
        elif errored and not self._bailed:
            self._error("", f"{kind} failed")
        await self.registry.close()
        duration = self._clock() - started
        self.emit(events.Summary(dict(self.changes), duration, not errored, preview=self.options.dry_run))
        return not errored

    def cancel(self) -> None:
        """Begins nothing more; what is under way is asked to give up."""
        if not self._cancelled:
            self._cancelled = True
            self.stopping.set()
            self.track(self.registry.cancel())

    def abort(self) -> None:
        """Ends at once: the state keeps what was under way as pending operations."""
        self.journal.freeze()
        self.stopping.set()
        self.registry.kill()

    def track(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Work that the run waits for before it ends."""
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    # -- what programs ask for

    async def register(self, goal: Goal) -> Result:
        """Raises `BailError` where the run ends, told or not."""
        registration = None
        try:
            registration = self.generator.begin(goal)
            steps = await self.generator.steps(registration)
            return await self._registered_steps(steps, registration.new)
        except StepFailedError:
            if registration is None or not self._goes_on():
                raise
            self._skipped.add(registration.urn)
            return Result(registration.new.state, "failed")
        except EngineError as error:
            raise self._ended(error, registration.urn if registration else "") from error

    async def _registered_state(self, goal: Goal) -> Resource:
        return (await self.register(goal)).state

    async def read(self, goal: ReadGoal) -> Result:
        """Raises `BailError` where the run ends, told or not."""
        urn = ""
        try:
            new, steps = self.generator.read_steps(goal)
            urn = new.urn
            return await self._registered_steps(steps, new)
        except StepFailedError:
            if not self._goes_on():
                raise
            self._skipped.add(urn)
            return Result(new.state, "failed")
        except EngineError as error:
            raise self._ended(error, urn) from error

    def _goes_on(self) -> bool:
        return self.options.continue_on_error and not self.stopping.is_set()

    def _ended(self, error: EngineError, urn: str) -> BailError:
        """The run ends because of it; tells why, if that was not done."""
        if not isinstance(error, BailError):
            self._error(urn, str(error))
        self.fail()
        return error if isinstance(error, BailError) else BailError(str(error))

    async def _registered_steps(self, steps: Sequence[Step], new: Cell) -> Result:
        self._skipped.update(failed.urn for failed in self._failed_steps)
        if not self._skipped.isdisjoint(needs(new.state)):
            self._skipped.add(new.urn)
            return Result(new.state, "skipped")
        for step in steps:
            if step.registered:
                self._registered[new.urn] = step
                new = step.new or new
        if not await self.do(steps):
            raise StepFailedError(new.urn)
        return Result(new.state, unknown=any(step.skipped_create for step in steps))

    async def outputs(self, urn: str, outputs: Properties) -> None:
        """The outputs of a component. Those of the stack wait until it is known how the run ends."""
        if urn not in self._registered:
            text = f"cannot complete a resource '{urn}' whose registration isn't pending"
            self._error(urn, text)
            self.fail()
            raise BailError(text)
        if self._registered[urn].cell.state.type == events.STACK_TYPE:
            self._stack_outputs = urn, outputs
            return
        await self._put_outputs(urn, outputs, merge=False)

    async def _put_outputs(self, urn: str, outputs: Properties, merge: bool) -> None:
        step = self._registered[urn]
        if step.skipped_create:
            return
        cell = step.cell
        before = step.old.state.outputs if step.old else {}
        wanted = {**before, **outputs} if merge else outputs
        same = values.equal(cell.state.outputs, wanted)
        cell.set(outputs=wanted)
        if not same:
            await self.journal.outputs()
        if step.told:
            self.emit(events.ResourceOutputs(step.metadata(), self.options.dry_run))

    # -- steps

    async def do(self, steps: Sequence[Step]) -> bool:
        """Does steps one after the other; False if one failed or the run is stopping."""
        if not steps:
            return True
        async with self._slots:
            for step in steps:
                if self.stopping.is_set():
                    return False
                if not await self._do(step):
                    return False
        return True

    async def _do(self, step: Step) -> bool:
        error: StepError | None = None
        try:
            if step.told:
                self.emit(events.ResourcePre(step.metadata(), self.options.dry_run))
            await self.journal.begin(step)
            try:
                await self._doer.apply(step)
            except StepError as failed:
                error = failed
            await self.journal.end(step, error is None or error.kept, error is not None and error.lost)
        except EngineError as failed:
            self._not_written(failed)
            return False
        if error is None:
            self._succeeded(step)
            return True
        self._failed(step, error)
        return False

    def _not_written(self, error: EngineError) -> None:
        """The state could not be written: nothing more may be begun. Told once, however many steps meet it."""
        if not self._unwritten:
            self._error("", str(error))
        self._unwritten = self._step_failed = True
        self.stopping.set()

    def _succeeded(self, step: Step) -> None:
        if not step.told:
            return
        # In a run that refreshes first, what the refresh found is not what the run is about.
        refreshing = step.op == "refresh"
        op = step.result_op if refreshing and self._only_refreshes else step.op
        if self._counted(step):
            self.changes[op] = self.changes.get(op, 0) + 1
        # A component's outputs come later, with RegisterResourceOutputs.
        if self.options.dry_run or step.cell.state.custom or refreshing or step.op == "delete":
            self.emit(events.ResourceOutputs(step.metadata(op), self.options.dry_run))

    def _counted(self, step: Step) -> bool:
        if step.op == "refresh":
            return self._only_refreshes
        if step.op == "read":
            # One that changed nothing is no operation.
            return step.old is not None and not values.equal(step.old.state.outputs, step.cell.state.outputs)
        return step.logical and step.op != "remove-pending-replace"

    def _failed(self, step: Step, error: StepError) -> None:
        prefix = "Preview failed: " if self.options.dry_run else ""
        self._error(step.urn if step.told else "", prefix + error.message)
        if step.told and not self.options.dry_run:
            self.emit(events.ResourceFailed(step.metadata()))
        self._step_failed = True
        self._failed_steps.append(step)
        if not self.options.continue_on_error and not error.protected and step.op != "refresh":
            self.stopping.set()

    async def _delete(self, steps: Sequence[Step]) -> None:
        await removal.carry_out(steps, self.history.cells, self.do)

    # -- refresh

    async def _refresh(self, flagged: bool = False) -> None:
        """Reads everything that is (targeted and) there; afterwards that is the old state.

        `flagged`: only what its provider wants to see before every update.
        """
        self._check_targets(self.options.targets.literals)
        cells = [c for c in self.history.cells if c.state.refresh_before_update or not flagged]
        reached: set[str] = set()
        chosen = [c for c in cells if removal.refreshed(c, self.options, reached)]
        for reference in dict.fromkeys(c.state.provider for c in chosen if c.state.provider):
            await self.registry.ensure(reference)
        steps = {cell: Step(op="refresh", old=cell, new=cell, logical=False) for cell in chosen}
        await asyncio.gather(*(self.do([step]) for step in steps.values()))
        cells = removal.rebuilt(self.history.cells, {cell: step.new for cell, step in steps.items()})
        self.history.use(cells)
        self.journal.rebase(cells)
        self.registry.use_state(self.history.references)

    # -- small things

    def _check_targets(self, literals: Iterable[str]) -> None:
        if self._missing_targets(literals):
            raise BailError("one or more targets could not be found in the stack")

    def _missing_targets(self, literals: Iterable[str]) -> bool:
        missing = [u for u in literals if u not in self.history.all_urns and u not in self.history.urns]
        for urn in missing:
            hint = "" if "$" in urn else " Did you forget to escape $ in your shell?"
            self._error("", f"Target '{urn}' could not be found in the stack.{hint}")
        return bool(missing)

    def _lookup(self, urn: str) -> tuple[str, Properties] | None:
        step = self._registered.get(urn)
        if step is None:
            return None
        return step.cell.state.id, step.cell.state.outputs

    def _rename(self, old: str, new: str) -> None:
        self.journal.rename(old, new)

    def _plugin_said(self, stream: str, line: str) -> None:
        self.emit(Diagnostic("info" if stream == "out" else "info#err", line))

    def fail(self) -> None:
        """Why the run fails has been told; nothing more is begun."""
        self._bailed = True
        self.stopping.set()

    def _warn(self, urn: str, message: str) -> None:
        self.emit(Diagnostic("warning", message, urn))

    def _error(self, urn: str, message: str) -> None:
        self.emit(Diagnostic("error", message, urn))


def _no_stacks(name: str) -> Properties:
    raise EngineError(f"stack {name}: stack references need a backend")
