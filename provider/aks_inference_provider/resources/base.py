"""What the servicer asks of a custom resource, and what it hands to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

from aks_inference_provider.differences import Diff
from aks_inference_provider.fields import Failure, Field
from aks_inference_provider.progress import Progress

Raw = Mapping[str, Any]
"""A raw object (see `wire`)."""
Computed = Mapping[str, Any]
"""Raw outputs beside the inputs."""


class Urn(NamedTuple):
    """The parts of a URN that a resource may use."""

    text: str
    stack: str
    project: str
    type: str
    name: str

    @classmethod
    def parse(cls, text: str) -> "Urn":
        """`urn:pulumi:<stack>::<project>::<parent types>$<type>::<name>`; a name may hold `::`."""
        parts = text.split("::", 3)
        if len(parts) != 4:
            return cls(text, "", "", "", text)
        stack, project, types, name = parts
        return cls(text, stack.removeprefix("urn:pulumi:"), project, types.split("$")[-1], name)


@dataclass(frozen=True)
class Checked:
    """The answer to a Check: the inputs to keep, and what is refused."""

    inputs: Raw
    failures: Sequence[Failure] = ()
    notes: Sequence[str] = ()
    """What the user should know of this change, and need not mend."""


@dataclass(frozen=True)
class Operation:
    """Who asks for an effect, how long it may take (seconds; 0: the resource's own default), and where to tell how it
    goes."""

    urn: Urn
    progress: Progress
    timeout_s: float = 0


@dataclass(frozen=True)
class State:
    """A resource as the engine knows it."""

    id: str
    inputs: Raw
    outputs: Raw = field(default_factory=dict)
    urn: str = ""
    """Empty where it does not matter."""


class Made(NamedTuple):
    """A created resource."""

    id: str
    computed: Computed


class CustomResource(Protocol):
    """One type of resource. `preview`, and Check and Diff after what they look up, decide without effects."""

    @property
    def token(self) -> str:
        """The type token."""

    @property
    def description(self) -> str:
        """For the schema."""

    @property
    def inputs(self) -> Sequence[Field]:
        """What it takes."""

    @property
    def outputs(self) -> Sequence[Field]:
        """What it gives beside its inputs."""

    async def check(self, urn: Urn, olds: Raw, news: Raw) -> Checked:
        """The inputs with defaults, and everything wrong with them; unknown values are passed over."""

    async def diff(self, state: State, news: Raw) -> Diff:
        """What has to happen to make `state` what `news` says."""

    def preview(self, inputs: Raw, state: State | None) -> Computed:
        """The outputs that can be known before it is done; None: it will be created."""

    async def create(self, operation: Operation, inputs: Raw) -> Made:
        """Makes it. The same again for one that is there already. Raises ProviderError and AksInferenceError."""

    async def update(self, operation: Operation, state: State, inputs: Raw) -> Computed:
        """Makes it what the inputs say. Raises as `create`."""

    async def read(self, operation: Operation, state: State) -> State | None:
        """As it is; None: it is gone. An empty state with an id asks for an import."""

    async def delete(self, operation: Operation, state: State) -> None:
        """Removes it; well also when it is gone. Raises as `create`."""


class Caution(str):
    """A note that is shown as a warning."""


@runtime_checkable
class Noting(Protocol):
    """A resource that has something to say in a preview."""

    async def notes(self, inputs: Raw, state: State | None) -> Sequence[str]:
        """What a person should know before it is done; None: it will be created. May look things up."""
