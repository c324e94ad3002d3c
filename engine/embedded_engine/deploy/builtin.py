"""The provider `pulumi`, which is the engine itself: stack references and reading resources of this run."""

from collections.abc import Callable, Sequence

from embedded_engine import values
from embedded_engine.errors import EngineError
from embedded_engine.model import Properties
from embedded_engine.plugins.answers import Diff, Failure, Protocol, State

# The outputs of another stack, secrets as secrets. Raises `EngineError` if there is no such stack.
StackOutputs = Callable[[str], Properties]
# (id, outputs) of a resource of this run, or None.
Lookup = Callable[[str], tuple[str, Properties] | None]


class Builtin:
    """Has the calls of `plugins.client.Provider` that its types need."""

    configured = True
    protocol = Protocol(True, True, True, True)
    name = "pulumi"

    def __init__(self, stack_outputs: StackOutputs, lookup: Lookup) -> None:
        self._stack_outputs = stack_outputs
        self._lookup = lookup

    async def check_config(
        self, urn: str, olds: Properties, news: Properties, unknowns: bool
    ) -> tuple[Properties, list[Failure]]:
        return news, []

    async def diff_config(self, urn: str, old_inputs: Properties, old_outputs: Properties, news: Properties) -> Diff:
        return Diff(not values.equal(old_inputs, news))

    async def configure(self, urn: str, identity: str, inputs: Properties) -> None:
        return None

    async def check(
        self, urn: str, olds: Properties, news: Properties, seed: bytes, unknowns: bool
    ) -> tuple[Properties, list[Failure]]:
        failures = [Failure(key, "unknown property") for key in news if key not in ("name", "outputs")]
        if not isinstance(values.unwrap(news.get("name")), str):
            failures.append(Failure("name", "property name must be a string"))
        return {"name": news.get("name")}, failures

    async def diff(
        self,
        urn: str,
        identity: str,
        old_inputs: Properties,
        old_outputs: Properties,
        news: Properties,
        ignore: Sequence[str],
        unknowns: bool,
    ) -> Diff:
        changed = not values.equal(old_inputs.get("name"), news.get("name"))
        return Diff(changed, ("name",) if changed else ())

    async def create(self, urn: str, inputs: Properties, timeout_s: float, preview: bool) -> State:
        return State(urn, self._reference(inputs))

    async def update(
        self,
        urn: str,
        identity: str,
        old_inputs: Properties,
        old_outputs: Properties,
        news: Properties,
        timeout_s: float,
        ignore: Sequence[str],
        preview: bool,
    ) -> State:
        raise EngineError(f"{urn}: a stack reference cannot be updated")

    async def delete(self, urn: str, identity: str, inputs: Properties, outputs: Properties, timeout_s: float) -> None:
        return None

    async def read(self, urn: str, identity: str, inputs: Properties | None, state: Properties | None) -> State:
        return State(identity, self._reference(inputs or {"name": identity}), inputs)

    def _reference(self, inputs: Properties) -> Properties:
        name = values.unwrap(inputs.get("name"))
        if values.is_unknown(name):
            return {"name": name, "outputs": values.UNKNOWN, "secretOutputNames": values.UNKNOWN}
        outputs = self._stack_outputs(str(name))
        hidden = sorted(key for key, value in outputs.items() if values.contains_secret(value))
        return {"name": name, "outputs": outputs, "secretOutputNames": hidden}

    async def invoke(self, token: str, args: Properties, preview: bool) -> tuple[Properties, list[Failure]]:
        if token == "pulumi:pulumi:getResource":  # noqa: S105 - the name of a function
            urn = str(values.unwrap(args.get("urn")))
            found = self._lookup(urn)
            if found is None:
                raise EngineError(f"unknown resource {urn}")
            return {"urn": urn, "id": found[0], "state": found[1]}, []
        if token in ("pulumi:pulumi:readStackOutputs", "pulumi:pulumi:readStackResourceOutputs"):
            return {"name": args.get("name"), "outputs": self._stack_outputs(str(values.unwrap(args.get("name"))))}, []
        raise EngineError(f"unrecognized function name: '{token}'")
