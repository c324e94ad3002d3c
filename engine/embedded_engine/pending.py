"""Operations of which a run that was cut off never learnt the end."""

from collections.abc import Sequence

from embedded_engine.model import Operation


def warning_text(operations: Sequence[Operation]) -> str:
    """What a run says of them before it begins; empty where there are none."""
    if not operations:
        return ""
    lines = "\n".join(f"  * {o.resource.urn}, interrupted while {o.kind.value}" for o in operations)
    return (
        f"Attempting to deploy or update resources with {len(operations)} pending operation(s) from the previous run, "
        f"which was interrupted before it learnt how they ended:\n{lines}\n"
        "What a provider made for an interrupted create may exist without being in the state. A resource that this run "
        "creates, updates, reads or deletes anew is settled by that; `refresh` settles the ones that are in the state. "
        "What remains is kept and told again at the next run."
    )
