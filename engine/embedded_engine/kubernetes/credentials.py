"""The credentials of a call: a token that may change, or those that a command prints."""

import asyncio
import base64
import json
import os
from datetime import UTC, datetime
from typing import Any

from embedded_engine.kubernetes.errors import KubeconfigError
from embedded_engine.kubernetes.kubeconfig import Connection, ExecPlugin, exec_info

_PLUGIN_LIMIT_S = 60.0


class Credentials:
    """Headers for each call; certificates are for the whole connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._printed: dict[str, Any] = {}

    async def certificate(self) -> tuple[str, str] | None:
        """Certificate and key of the client, PEM."""
        one = self._connection
        if one.certificate and one.key:
            return one.certificate, one.key
        if one.plugin is not None:
            status = await self._of_plugin(one.plugin)
            if status.get("clientCertificateData") and status.get("clientKeyData"):
                return status["clientCertificateData"], status["clientKeyData"]
        return None

    async def headers(self) -> dict[str, str]:
        """Raises KubeconfigError."""
        one = self._connection
        token = one.token
        if one.token_file is not None:
            # Read again each time: such tokens are replaced in place.
            try:
                token = one.token_file.read_text().strip()
            except OSError as error:
                raise KubeconfigError(f"the token {one.token_file} cannot be read: {error.strerror}") from error
        elif one.plugin is not None:
            token = (await self._of_plugin(one.plugin)).get("token")
        elif one.basic is not None:
            pair = base64.b64encode(":".join(one.basic).encode()).decode()
            return {"Authorization": f"Basic {pair}"}
        return {"Authorization": f"Bearer {token}"} if token else {}

    def forget(self) -> None:
        """The server did not take them: the next call asks the plugin anew."""
        self._printed = {}

    async def _of_plugin(self, plugin: ExecPlugin) -> dict[str, Any]:
        expires = self._printed.get("expirationTimestamp")
        if self._printed and not (expires and datetime.fromisoformat(expires) <= datetime.now(UTC)):
            return self._printed
        environment = {**os.environ, **plugin.environment, "KUBERNETES_EXEC_INFO": exec_info(plugin)}
        try:
            process = await asyncio.create_subprocess_exec(
                plugin.command,
                *plugin.arguments,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            hint = f"\n{plugin.hint}" if plugin.hint else ""
            raise KubeconfigError(
                f"{plugin.command} of the kubeconfig cannot be run: {error.strerror}{hint}"
            ) from error
        try:
            out, err = await asyncio.wait_for(process.communicate(), _PLUGIN_LIMIT_S)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise KubeconfigError(f"{plugin.command} of the kubeconfig did not end in {_PLUGIN_LIMIT_S:g} s") from None
        except asyncio.CancelledError:
            # Whoever asked waits no longer; it may still ask somebody at the terminal.
            if process.returncode is None:
                process.kill()
                await process.wait()
            raise
        if process.returncode:
            said = err.decode(errors="replace").strip()
            raise KubeconfigError(f"{plugin.command} of the kubeconfig ended with {process.returncode}: {said}")
        try:
            status = json.loads(out)["status"]
        except (ValueError, KeyError, TypeError) as error:
            raise KubeconfigError(f"{plugin.command} of the kubeconfig printed no ExecCredential") from error
        self._printed = dict(status)
        return self._printed
