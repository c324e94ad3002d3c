"""The base of all components: check first, register afterwards."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

import pulumi
from pydantic.alias_generators import to_camel, to_snake

from aks_inference._version import PACKAGE
from aks_inference.findings import Casing, Finding, Severity, in_casing, show_path
from aks_inference.packages import without
from aks_inference.program import ComponentFindings, Program, current_program, join
from aks_inference.sendable import unsendable
from aks_inference.spelling import Spelling, arguments_of, spelled, spelling_of
from aks_inference.values import SECRETS

T = TypeVar("T")
V = TypeVar("V")

NO_ARGS: Any = {}
"""The default of `args`: programs may give keyword arguments instead."""


class Component(pulumi.ComponentResource):
    """A component whose arguments are checked before anything is registered."""

    _known_urn: str | None = None
    """In a plugin, once it is constructed."""

    def __init__(
        self,
        name: str,
        declared: Mapping[str, Any],
        findings: Iterable[Finding],
        opts: pulumi.ResourceOptions | None,
    ) -> None:
        """Registers the component, or reports its findings.

        `declared`: the arguments as given. In a plugin errors are raised as InputPropertiesError; in a program they
        are collected, and the component goes on as one that will never be registered.
        """
        self._program: Program | None = current_program()
        self._declared = declared
        self._kind = type(self).__name__
        self._resource_name = name
        self._given_options = opts or pulumi.ResourceOptions()
        # Values may be of any kind, also such as have no hash.
        findings = [*findings, *unsendable(declared)]
        if asked := [finding for finding in findings if finding.severity is Severity.ASKED]:
            findings = [*findings, *self._ask(name, asked)]
        found = list({self._text(finding): finding for finding in without(findings)}.values())
        errors = tuple(f for f in found if f.severity is Severity.ERROR)
        warnings = [f for f in found if f.severity is Severity.WARNING]
        self._refused = bool(errors)
        if self._program:
            if errors:
                self._program.report(ComponentFindings(self._kind, name, errors))
            gate = pulumi.ResourceOptions(depends_on=self._program.gate().passed)
            opts = pulumi.ResourceOptions.merge(opts, gate)
        elif errors:
            raise input_error(self._kind, name, errors)
        join(self)
        # What is wrong may be nothing that can be sent; it is never registered.
        inputs = {} if errors else shown_inputs(declared, arguments_of(type(self)))
        super().__init__(f"{PACKAGE}:index:{self._kind}", name, inputs, opts)
        for warning in warnings:
            self._say(pulumi.log.warn, self._text(warning))

    @cached_property
    def _spelling(self) -> Spelling:
        """Asked for only where something is to be said: other languages write camelCase, Python what it likes."""
        return spelling_of(arguments_of(type(self)), self._declared) if self._program else Spelling(Casing.CAMEL)

    def _text(self, finding: Finding) -> str:
        return self._spelling.text(finding)

    def _sound(self, plan: V | None) -> V | None:
        """The plan, unless anything is wrong with the component: what it would be made of is then not even prepared,
        since the SDK turns inputs into messages before it waits, and some cannot be one.
        """
        return None if self._refused else plan

    def _ask(self, name: str, asked: Sequence[Finding]) -> Sequence[Finding]:
        """Has packages looked for; in a plugin there is no later to say what came out of it."""
        from aks_inference.package_index import ask_at_once, ask_in_program

        if self._program is None:
            return ask_at_once(self._kind, name, asked)
        ask_in_program(self._program, self._kind, name, asked)
        return ()

    def _info(self, *lines: str) -> None:
        """One message with the checks and their figures; names of arguments as in findings."""
        self._say(pulumi.log.info, in_casing("\n".join(lines), self._spelling.casing))

    def _say(self, log: Callable[..., None], message: str) -> None:
        if self._program:
            # A component that fails never gets a URN, and its messages would fail with it.
            self._program.when_sound(lambda: log(message, resource=self))
        else:
            log(message, resource=self)

    def _child(self, delete_before_replace: bool | None = None) -> pulumi.ResourceOptions:
        """Options of a child. Of a component's own only `protect` and providers reach it by themselves."""
        return pulumi.ResourceOptions(
            parent=self,
            delete_before_replace=delete_before_replace,
            retain_on_delete=self._given_options.retain_on_delete,
            custom_timeouts=self._given_options.custom_timeouts,
        )

    @property
    def _reference(self) -> pulumi.Output[str]:
        """The output that stands for the component where it is an argument of another."""
        return self.urn


class Cluster(Component):
    """A component that services can name as their target."""

    _local: bool
    _target: pulumi.Output[str]
    _url: pulumi.Output[str] | None = None
    """Where clients reach the router; None: there is no runtime, or it is not planned."""
    _made = False
    """Whether the stack makes the cluster itself: nothing can be installed on it before it is there."""

    @property
    def _reference(self) -> pulumi.Output[str]:
        return self._target

    def _misfits(self, plans: Mapping[Component, Any]) -> Iterator[tuple[Component, Finding]]:
        """Which of these services (with their EndpointPlans) do not fit on its nodes, as far as those are known."""
        return iter(())


def input_error(kind: str, name: str, errors: Iterable[Finding]) -> pulumi.InputPropertiesError:
    """The structured error of a plugin: property paths in camelCase."""
    details: list[pulumi.InputPropertyErrorDetails] = []
    for found in errors:
        path, reason = show_path(found.path, Casing.CAMEL), found.reason(Casing.CAMEL)
        # Of a place within the argument, or in a file that it names, what the path does not say already.
        place = found.location(Casing.CAMEL).removeprefix(path).removeprefix(": ")
        details.append({"property_path": path, "reason": f"{place}: {reason}" if place else reason})
    return pulumi.InputPropertiesError(f"Invalid arguments for {kind} {name!r}", details)


def merged(args: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of either style; what is None was not given."""
    return {key: value for key, value in {**args, **settings}.items() if value is not None}


def unknown(kind: type[T]) -> pulumi.Output[T]:
    """An output that stays unknown: of a component that has findings."""
    nothing: Any = None
    return pulumi.Output(set(), _done(nothing), _done(False), _done(False))


def known(value: T, resource: pulumi.Resource) -> pulumi.Output[T]:
    """An output of a resource whose value is known before the resource is there; who uses it waits all the same."""
    return pulumi.Output({resource}, _done(value), _done(True), _done(False))


def _done(value: V) -> "asyncio.Future[V]":
    future: asyncio.Future[V] = asyncio.get_running_loop().create_future()
    future.set_result(value)
    return future


def shown_inputs(declared: Mapping[str, Any], kind: object = None) -> dict[str, Any]:
    """A component's inputs as its state and diffs show them: camelCase, keys secret, components by their outputs.

    `kind`: the TypedDict of the arguments, by which the names in groups are known. Default: only those of `declared`.
    """
    given = {key: value for key, value in declared.items() if value is not None}
    named: Any = spelled(kind, {to_camel(key): value for key, value in given.items()})
    return {key: _shown(key, value) for key, value in named.items()}


def _shown(key: str, value: object) -> object:
    if to_snake(key) in SECRETS:
        # Also where it stands in a deployment configuration.
        return pulumi.Output.secret(value)
    if isinstance(value, Component):
        return value._reference
    if isinstance(value, Mapping):
        return {name: _shown(str(name), item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_shown("", item) for item in value]
    return value
