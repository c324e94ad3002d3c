"""What a run tells of its stack: sentences that are longer than a line, and the configuration."""

from embedded_engine.deploy.options import Options
from embedded_engine.model import Snapshot
from embedded_engine.values import REDACTED


def pending_warning(base: Snapshot) -> str:
    found = "".join(f"  * {o.resource.urn}, interrupted while {o.kind.value}\n" for o in base.operations)
    return (
        "Attempting to deploy or update resources with pending operations from a previous run.\n"
        f"{found}"
        "These were under way when the previous run ended, and what became of them is not known. A resource that was "
        "being created is settled when it has been created; one that is no longer in the program stays listed until "
        "`refresh --clear-pending-creates` takes it off the list: look first whether it is there, and remove it. "
        "The others are settled by the next update or refresh."
    )


def protected_message(urn: str) -> str:
    return (
        f'resource "{urn}" cannot be deleted\n'
        "because it is protected. To unprotect the resource, either remove the `protect` flag from the resource in "
        f"your Pulumi program and run `pulumi up`, or use the command:\n`pulumi state unprotect '{urn}'`"
    )


def shown_config(options: Options) -> dict[str, str]:
    """The configuration without what is secret in it."""
    return {key: REDACTED if key in options.secret_keys else value for key, value in options.config.items()}
