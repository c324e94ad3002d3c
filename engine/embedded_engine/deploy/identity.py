"""Which resource of the state a registration is: by its URN, or by one that it had before."""

from collections.abc import Sequence

from embedded_engine.deploy.cells import Cell, make_urn
from embedded_engine.deploy.goals import Alias, former_urns
from embedded_engine.deploy.history import History
from embedded_engine.deploy.options import Options
from embedded_engine.deploy.registration import BailError
from embedded_engine.events import Diagnostic, Sink


class Identities:
    """Gives out the URNs of a run, each once."""

    def __init__(self, history: History, options: Options, emit: Sink) -> None:
        self.history = history
        self.options = options
        self._emit = emit

    def identify(
        self, parent: str, kind: str, name: str, aliases: tuple[Alias, ...] = ()
    ) -> tuple[str, Cell | None, str, bool]:
        """(URN, the old resource, the alias that matched, whether the aliases conflict).

        Raises `BailError` for a name that is taken.
        """
        history, options = self.history, self.options
        urn = self._new_urn(parent, kind, name)
        former = former_urns(
            name,
            kind,
            parent,
            aliases,
            history.aliases.get(parent),
            history.aliases,
            options.stack,
            options.project,
        )
        return (urn, *self._old(urn, former))

    def _new_urn(self, parent: str, kind: str, name: str) -> str:
        urn = make_urn(self.options.stack, self.options.project, parent, kind, name)
        if urn in self.history.urns:
            self._error(urn, f"Duplicate resource URN '{urn}'; try giving it a unique name")
            raise BailError(urn)
        self.history.urns.add(urn)
        return urn

    def _old(self, urn: str, aliases: Sequence[str]) -> tuple[Cell | None, str, bool]:
        """(the old resource, the alias that matched, whether that is an error)"""
        history = self.history
        invalid = False
        if previous := history.aliased.get(urn):
            invalid = True
            self._error(urn, f"Duplicate resource URN '{urn}' conflicting with alias on resource with URN '{previous}'")
        if urn in history.olds:
            return history.olds[urn], "", invalid
        for alias in aliases:
            if alias not in history.olds:
                continue
            taken = alias if alias in history.urns else history.aliased.get(alias)
            if taken:
                invalid = True
                self._error(
                    urn,
                    f"Duplicate resource alias '{alias}' applied to resource with URN '{urn}' conflicting with "
                    f"resource with URN '{urn if taken == alias else taken}'",
                )
            history.rename(alias, urn)
            return history.olds[alias], alias, invalid
        return None, "", invalid

    def _error(self, urn: str, message: str) -> None:
        self._emit(Diagnostic("error", message, urn))
