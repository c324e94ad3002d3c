"""The component host: strict inputs, all errors at once, each with its property path.

The base class drops names that it does not know, stops at the first missing input, empties an object that is an output
as a whole, and wraps the errors of a component into a text with a traceback. Here names are mapped without judging:
what is unknown or missing reaches the component, whose own rules say everything in one error; what the component cannot
see (a container that is an output as a whole) is found here.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pulumi
from pulumi.provider.experimental.analyzer import Analyzer, ComponentDefinition, PropertyDefinition, TypeDefinition
from pulumi.provider.experimental.component import ComponentProvider
from pulumi.provider.provider import ConstructResult
from pulumi.provider.server import ComponentInitError

import aks_inference
from aks_inference_provider import PACKAGE, package_version
from aks_inference_provider.fields import Failure, did_you_mean
from aks_inference_provider.schema import merged_schema
from aks_inference_provider.wire import Value, join_path

Problem = pulumi.InputPropertyErrorDetails


def make_host() -> "Host":
    """The host of all components."""
    return Host(list(aks_inference.COMPONENTS), PACKAGE, None, package_version())


@contextlib.contextmanager
def _no_docstrings() -> Iterator[None]:
    """The analyzer parses all sources for the docstrings of properties, which takes a fifth of the plugin's start."""
    found = Analyzer.get_docstring
    Analyzer.get_docstring = lambda *_: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Analyzer.get_docstring = found  # type: ignore[method-assign]


class Host(ComponentProvider):
    """Constructs components from the raw inputs of any Pulumi language."""

    def __init__(
        self, hosted: list[type[pulumi.ComponentResource]], name: str, namespace: str | None, version: str
    ) -> None:
        self._given = (hosted, name, namespace, version)
        self._schema: str | None = None
        with _no_docstrings():
            super().__init__(*self._given)

    @property
    def schema(self) -> str | None:
        """With what the docstrings say: made when somebody asks, which no preview and no update does."""
        if self._schema is None:
            self._schema = merged_schema(ComponentProvider(*self._given).schema or "{}")
        return self._schema

    @schema.setter
    def schema(self, bare: str | None) -> None:
        """The base class has one without descriptions."""

    def construct(
        self,
        name: str,
        resource_type: str,
        inputs: Mapping[str, Any],
        options: pulumi.ResourceOptions | None = None,
    ) -> ConstructResult:
        """Raises InputPropertiesError with everything that is wrong."""
        kind = resource_type.rsplit(":", maxsplit=1)[-1]
        definition = self._component_defs.get(kind)
        if definition is None:
            known = ", ".join(sorted(self._component_defs))
            raise pulumi.RunError(f"no component {resource_type!r}; there are {known}")
        found = list(self._strict("", definition.inputs, inputs))
        message = f"Invalid arguments for {kind} {name!r}"
        try:
            result = super().construct(name, resource_type, inputs, options)
        except ComponentInitError as error:
            inner = error.inner
            if isinstance(inner, pulumi.InputPropertiesError):
                raise pulumi.InputPropertiesError(inner.message, merge(inner.errors or [], found)) from None
            if isinstance(inner, pulumi.InputPropertyError):
                own = Problem(property_path=inner.property_path, reason=inner.reason)
                raise pulumi.InputPropertiesError(message, merge([own], found)) from None
            if isinstance(inner, pulumi.RunError):
                raise inner from None
            raise
        if found:
            raise pulumi.InputPropertiesError(message, merge([], found))
        return result

    def map_inputs(self, inputs: Mapping[str, Any], component_def: ComponentDefinition) -> dict[str, Any]:
        """The inputs under their Python names; what has no definition keeps its name for the component to refuse."""
        return self._mapped(inputs, component_def.inputs, component_def.inputs_mapping)

    def _mapped(
        self, inputs: Mapping[str, Any], properties: Mapping[str, PropertyDefinition], names: Mapping[str, str]
    ) -> dict[str, Any]:
        return {
            names.get(key, key): self._mapped_value(value, properties.get(key))
            for key, value in inputs.items()
            if value is not None
        }

    def _mapped_value(self, value: Value, prop: PropertyDefinition | None) -> Value:
        if prop is None:
            return value
        if isinstance(value, dict) and (definition := self._object(prop)):
            return self._mapped(value, definition.properties, definition.properties_mapping)
        if isinstance(value, list) and prop.items:
            return [self._mapped_value(item, prop.items) for item in value]
        if isinstance(value, dict) and prop.additional_properties:
            return {key: self._mapped_value(item, prop.additional_properties) for key, item in value.items()}
        return value

    def _object(self, prop: PropertyDefinition) -> TypeDefinition | None:
        """The definition of an object type of this package."""
        definition = self.get_type_definition(prop) if prop.ref else None
        return None if definition is None or definition.enum else definition

    def _strict(
        self, path: str, properties: Mapping[str, PropertyDefinition], inputs: Mapping[str, Any]
    ) -> Iterator[Failure]:
        """Names without a definition, and containers that are not there to look into, at every depth."""
        for key, value in inputs.items():
            where = join_path(path, key)
            if key in properties:
                yield from self._strict_value(where, properties[key], value)
            else:
                yield Failure(where, did_you_mean(key, properties))

    def _strict_value(self, path: str, prop: PropertyDefinition, value: Value) -> Iterator[Failure]:
        definition = self._object(prop)
        container = definition or prop.items or prop.additional_properties
        if container and isinstance(value, pulumi.Output | pulumi.output.Unknown):
            yield Failure(path, "is an output as a whole; give the structure plain, with outputs only inside")
        elif definition and isinstance(value, dict):
            yield from self._strict(path, definition.properties, value)
        elif prop.items and isinstance(value, list):
            for index, item in enumerate(value):
                yield from self._strict_value(join_path(path, index), prop.items, item)
        elif prop.additional_properties and isinstance(value, dict):
            for key, item in value.items():
                yield from self._strict_value(join_path(path, key), prop.additional_properties, item)


def merge(own: Sequence[Problem], found: Sequence[Failure]) -> list[Problem]:
    """The component's errors, and those of the host about other properties."""
    known = {each["property_path"] for each in own}
    return [
        *own,
        *(Problem(property_path=each.path, reason=each.reason) for each in found if each.path not in known),
    ]
