"""The command `token`."""

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from aks_inference_runtime.api.endpoint import AuthMode
from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.cli.access_token import AccessToken, Wanted, by_azure_cli, by_client_credentials
from aks_inference_runtime.cli.context import Context, command

SECRET_VARIABLE = "AKS_INFERENCE_CLIENT_SECRET"  # noqa: S105 - its name


@click.command("token")
@click.argument("name", required=False)
@click.option("--issuer", help="Instead of an endpoint's name: the issuer of the token.")
@click.option("--audience", help="For whom it is. Default: the endpoint's first.")
@click.option("--scope", help="Asked of the issuer. Default: <audience>/.default of Entra ID; of others none.")
@click.option("--client-id", envvar="AKS_INFERENCE_CLIENT_ID", show_envvar=True, help="Of the application that asks.")
@click.option(
    "--client-secret-file",
    type=click.Path(path_type=Path, allow_dash=True),
    help=f"Its secret; - is standard input. Default: the variable {SECRET_VARIABLE}.",
)
@command
async def token_command(
    context: Context,
    name: str | None,
    issuer: str | None,
    audience: str | None,
    scope: str | None,
    client_id: str | None,
    client_secret_file: Path | None,
) -> int:
    """A token for an endpoint with token_auth_enabled, on standard output; when to get the next one beside it.

    With a client id and its secret by OAuth's client credentials, else from the Azure CLI for who is logged in there.
    """
    wanted = await _wanted(context, name, issuer, audience, scope)
    if client_id is not None:
        secret = _secret(client_secret_file)
        found = await by_client_credentials(wanted, client_id, secret)
    else:
        found = await by_azure_cli(wanted)
    if context.as_json:
        click.echo(json.dumps(found.as_json()))
    else:
        click.echo(found.access_token)
        click.echo(_about(found), err=True)
    return 0


async def _wanted(
    context: Context, name: str | None, issuer: str | None, audience: str | None, scope: str | None
) -> Wanted:
    if name is None:
        if issuer is None or audience is None:
            raise InvalidInput("name an endpoint, or give --issuer and --audience")
        return Wanted(issuer, (audience,), scope)
    if issuer is not None:
        raise InvalidInput(f"the endpoint {name} says its issuer: leave out --issuer, or the name")
    async with context.source() as source:
        spec = (await source.declared(name)).spec
    if spec.auth is not AuthMode.TOKEN or spec.token is None:
        mend = f"`aks-inference keys {name}` says where they are" if spec.auth is AuthMode.KEY else "none is needed"
        raise InvalidInput(f"endpoint {name} takes no tokens (auth {spec.auth}): {mend}")
    if audience is not None and audience not in spec.token.audiences:
        there = ", ".join(map(repr, spec.token.audiences))
        raise InvalidInput(f"endpoint {name} takes no tokens for {audience!r}, but those for {there}")
    return Wanted(spec.token.issuer, (audience,) if audience is not None else spec.token.audiences, scope)


def _secret(file: Path | None) -> str:
    if file is None:
        secret = os.environ.get(SECRET_VARIABLE, "")
    elif str(file) == "-":
        secret = sys.stdin.readline().strip()
    else:
        try:
            secret = file.read_text().strip()
        except (OSError, ValueError) as error:
            raise InvalidInput(f"--client-secret-file: {error}") from None
    if not secret:
        raise InvalidInput(f"no secret of the client: set {SECRET_VARIABLE}, or give --client-secret-file")
    return secret


def _about(found: AccessToken) -> str:
    return (
        f"token of {found.issuer} for {found.audience}; get the next one after {_time(found.refresh_after)}, "
        f"it ends at {_time(found.expiry_on)}"
    )


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
