"""The findings of a whole program: one RunError after its body, and nothing registered before that.

The SDK queues every registration on the event loop while the body of the program runs, and runs the queue even when
the body raised: an exception alone would still let `up --skip-preview` apply what stands beside the mistake. So each
component, and through a stack transformation each resource declared after `import aks_inference`, waits for a gate
(an output in `depends_on` that adds no dependency). The gate decides when the body gives control back to the event
loop: it opens, or fails with the one error, which the language host prints without a traceback and with exit code 1.
Children wait for their component. An asynchronous program (`pulumi.run`) has a gate for each stretch between awaits.

In a plugin there is no program: each component raises InputPropertiesError with its own findings, and knows only the
components that the same deployment constructed before it.
"""

import asyncio
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import pulumi
from pulumi.runtime import get_root_resource, register_stack_transformation
from pulumi.runtime.sync_await import _sync_await

from aks_inference._version import PACKAGE
from aks_inference.findings import Finding, show_value
from aks_inference.spelling import Spelling

if TYPE_CHECKING:
    from aks_inference.component import Component


@dataclass(frozen=True)
class ComponentFindings:
    """What is wrong with one component."""

    kind: str
    name: str
    findings: tuple[Finding, ...]


LONGEST_WAIT_S = 5
"""A synchronous invoke runs the event loop in the middle of the body; the gate waits until it is over. One that waits
itself for a resource behind the gate would never end: then the gate decides by what is declared so far."""
_WAIT_S = 0.01


class Gate:
    """Holds registrations until the body of the program has been checked."""

    def __init__(self, decide: Callable[[], str | None]) -> None:
        """`decide`, called once when the body is over, returns the error's text or None."""
        self._loop = loop = asyncio.get_running_loop()
        self._latest = loop.time() + LONGEST_WAIT_S
        self._decide = decide
        self._result: asyncio.Future[list[pulumi.Resource]] = loop.create_future()
        self.passed: pulumi.Output[list[pulumi.Resource]] = pulumi.Output(
            set(), self._result, _immediately(loop, True), _immediately(loop, False)
        )
        loop.call_soon(self._end)

    def _end(self) -> None:
        if _body_waits() and self._loop.time() < self._latest:
            self._loop.call_later(_WAIT_S, self._end)
            return
        error = self._decide()
        if error is None:
            self._result.set_result([])
        else:
            self._result.set_exception(pulumi.RunError(error))


def _body_waits() -> bool:
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code is _sync_await.__code__:
            return True
        frame = frame.f_back
    return False


def _immediately(loop: asyncio.AbstractEventLoop, value: bool) -> asyncio.Future[bool]:
    future: asyncio.Future[bool] = loop.create_future()
    future.set_result(value)
    return future


@dataclass(eq=False)
class Program:
    """The running program, as far as its components know of each other."""

    components: list["Component"] = field(default_factory=list)
    _findings: list[ComponentFindings] = field(default_factory=list)
    _checks: list[Callable[[], Iterable[ComponentFindings]]] = field(default_factory=list)
    _messages: list[Callable[[], None]] = field(default_factory=list)
    _gate: Gate | None = None

    def report(self, component: ComponentFindings) -> None:
        """Adds findings to the one error."""
        self._findings.append(component)

    def at_end(self, check: Callable[[], Iterable[ComponentFindings]]) -> None:
        """A check that needs the whole program; once, when the body is over."""
        self._checks.append(check)

    def when_sound(self, message: Callable[[], None]) -> None:
        """What is said only when there is no finding."""
        self._messages.append(message)

    def gate(self) -> Gate:
        """The gate of what is being declared now."""
        if self._gate is None:
            self._gate = Gate(self._close)
        return self._gate

    def hold(self, args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult | None:
        """Makes another resource of the program wait for the gate; this package's own wait by themselves."""
        if args.type_.startswith(f"{PACKAGE}:"):
            return None
        held = pulumi.ResourceOptions(depends_on=self.gate().passed)
        return pulumi.ResourceTransformationResult(args.props, pulumi.ResourceOptions.merge(args.opts, held))

    def _close(self) -> str | None:
        self._gate = None
        checks, self._checks = self._checks, []
        for check in checks:
            self._findings += check()
        messages, self._messages = self._messages, []
        if self._findings:
            return summary(self._findings, {(c._kind, c._resource_name): c._spelling for c in self.components})
        for message in messages:
            message()
        return None


_programs: WeakKeyDictionary[pulumi.Resource, Program] = WeakKeyDictionary()


def current_program() -> Program | None:
    """The program that is running; None in a plugin and outside of Pulumi."""
    root: Any = get_root_resource()
    if root is None:
        return None
    program = _programs.get(root)
    if program is None:
        program = _programs[root] = Program()
        register_stack_transformation(program.hold)
    return program


@dataclass(frozen=True)
class GivenTarget:
    """What a plugin was given as `target`; the component itself gets an output, whatever is known of it."""

    text: str | None = field(default=None, repr=False)
    """Where it is known already. May be secret."""
    secret: bool = False
    urns: frozenset[str] = frozenset()
    """What the output comes from: a component that the same deployment constructed is known by it, also while its
    target is not."""


NO_TARGET = GivenTarget()
_deployment: ContextVar[str] = ContextVar("deployment", default="")
_target: ContextVar[GivenTarget] = ContextVar("target", default=NO_TARGET)
_newest: ContextVar[list["Component"] | None] = ContextVar("newest", default=None)
_constructed: OrderedDict[str, list["Component"]] = OrderedDict()
_KEPT_DEPLOYMENTS = 4


def use_deployment(monitor: str, target: GivenTarget = NO_TARGET) -> None:
    """Tells a plugin which deployment (by its monitor's address) the component to construct belongs to.

    Without it components in a plugin do not know of each other.
    """
    _deployment.set(monitor)
    _target.set(target)
    _newest.set([])


def is_constructed(urn: str) -> None:
    """Tells a plugin the URN of the component that it has constructed: its outputs are known by it."""
    if newest := _newest.get():
        # What it is made of came after it.
        newest[0]._known_urn = urn


def given_target() -> GivenTarget:
    """In a plugin: the target of the component under construction."""
    return _target.get()


def peers(newcomer: tuple[type, str] | None = None) -> Sequence["Component"]:
    """The components declared before, in this program or, in a plugin, in this deployment.

    `newcomer`: class and name of the one who asks; in a plugin an earlier construction of the same is not a peer.
    """
    program = current_program()
    if program:
        return program.components
    return [c for c in _constructed.get(_deployment.get(), []) if (type(c), c._resource_name) != newcomer]


def join(component: "Component") -> None:
    """Makes a component known to those that come after it."""
    program = current_program()
    if program:
        program.components.append(component)
    elif monitor := _deployment.get():
        if (newest := _newest.get()) is not None:
            newest.append(component)
        others = peers((type(component), component._resource_name))
        _constructed[monitor] = [*others, component]
        while len(_constructed) > _KEPT_DEPLOYMENTS:
            _constructed.popitem(last=False)


def summary(findings: Iterable[ComponentFindings], spellings: Mapping[tuple[str, str], Spelling]) -> str:
    """The text of the one error. `spellings`: of the components, by kind and name."""
    merged: dict[tuple[str, str], list[Finding]] = {}
    for item in findings:
        merged.setdefault((item.kind, item.name), []).extend(item.findings)
    count = sum(len(group) for group in merged.values())
    head = f"{count} {'error' if count == 1 else 'errors'}; nothing was changed"
    return "\n".join([head, *(render(*who, group, spellings.get(who, Spelling())) for who, group in merged.items())])


def render(component: str, name: str, findings: Iterable[Finding], spelling: Spelling) -> str:
    """The findings of one component, one a line."""
    lines = [f"{component} {show_value(name)}:"]
    lines += [f"  {spelling.text(finding)}" for finding in findings]
    return "\n".join(lines)
