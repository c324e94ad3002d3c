"""What the listener with TLS has that changes while it serves: its certificate, and who answers challenges."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from aks_inference_runtime.api.certificates import Certificate
from aks_inference_runtime.api.errors import OperationFailed, RuntimeUnavailable
from aks_inference_runtime.router.admin import AdminSocket, word
from aks_inference_runtime.router.process import write_private
from aks_inference_runtime.router.tls import MOST_SOLVERS, OPEN, Tls

_TAKEN = ("created for certificate", "updated for certificate", "Success!")
AGAIN_S = 60.0
"""Between tries of a certificate that HAProxy refused."""
_NONE = "# no certificate yet\n"
"""How a file with the placeholder begins: what stands before the first part of a PEM file is not read."""
_log = logging.getLogger(__name__)

Solver = tuple[str, int]
"""Host and port."""


class Listener:
    """Keeps certificate and challenges as they should be in the first process."""

    def __init__(
        self,
        file: Path,
        admin: Callable[[], AdminSocket],
        dead: Callable[[], bool],
        *,
        tls: Tls | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            file: Required. The certificate with its key, as the first process reads it when it starts.
            admin: Required. Of the first process.
            dead: Required. Whether that process is gone; it then begins with the file.
            tls: Required. None: there is no such listener, and nothing here does anything.
            clock: Optional. In seconds.
        """
        self._tls = tls
        self._clock = clock
        self._file = file
        self._admin = admin
        self._dead = dead
        self._solvers: tuple[Solver, ...] = ()
        self._refused: Certificate | None = None
        self._again_at = 0.0
        self._closed = False
        """Whether the plain port was closed for good: with its file, each later process begins so."""

    def prepare(self) -> None:
        """Before the first process starts: it needs a certificate, if not yet the right one."""
        if self._tls is not None and not self._file.exists():
            write_private(self._file, _placeholder())

    async def declare(self, certificate: Certificate | None, solvers: Sequence[Solver]) -> None:
        """Serves new connections with this certificate; None, or one that HAProxy refuses: with the one before.

        Raises RuntimeUnavailable when HAProxy does not answer.
        """
        if self._tls is None:
            return
        if certificate != self._refused:
            self._refused = None
            if certificate is not None:
                await self._take(certificate)
        if self._tls.closes and not self._closed and not begun(self._tls, self._file).waits:
            await self._run([f"set server {OPEN}/all state maint"])
            self._closed = True
            _log.info("there is a certificate: what is asked without TLS is refused")
        wanted = tuple(solvers[:MOST_SOLVERS])
        if wanted != self._solvers:
            await self._run(_solver_commands(wanted))
            self._solvers = wanted

    async def again(self) -> None:
        """Tries a refused certificate once more, now and then: what HAProxy lacked may be there.

        Raises RuntimeUnavailable when HAProxy does not answer.
        """
        if self._refused is not None and self._clock() >= self._again_at:
            await self._take(self._refused)

    async def restarted(self) -> None:
        """The first process has begun anew: it knows no solvers."""
        if self._solvers:
            await self._run(_solver_commands(self._solvers))

    async def _take(self, certificate: Certificate) -> None:
        if certificate.pem == self._file.read_text():
            return
        try:
            await self._replace(certificate)
        except OperationFailed as error:
            # Everything else that is declared goes on; so does the certificate that is there.
            if certificate != self._refused:
                _log.error("the certificate stays as it was, and is tried every %g s: %s", AGAIN_S, error)
            self._refused, self._again_at = certificate, self._clock() + AGAIN_S
        else:
            self._refused = None

    async def _replace(self, certificate: Certificate) -> None:
        name = word(self._file)
        try:
            await self._admin().must([f"set ssl cert {name} <<\n{certificate.pem}"], accept=_TAKEN)
            await self._admin().must([f"commit ssl cert {name}"], accept=_TAKEN)
        except OperationFailed:
            # Half of a change must not stay: the next one would begin with it.
            await self._admin().run(f"abort ssl cert {name}")
            raise
        except RuntimeUnavailable:
            if not self._dead():
                raise
        write_private(self._file, certificate.pem)
        _log.info("new connections get another certificate")

    async def _run(self, commands: Sequence[str]) -> None:
        try:
            for command in commands:
                # It answers with what it changed.
                await self._admin().run(command)
        except RuntimeUnavailable:
            if not self._dead():
                raise


def begun(tls: Tls, file: Path) -> Tls:
    """How a process begins: whether it waits for its certificate."""
    return replace(tls, waits=tls.closes and file.read_text().startswith(_NONE))


def _solver_commands(solvers: Sequence[Solver]) -> list[str]:
    commands = []
    for number in range(MOST_SOLVERS):
        name = f"challenges/s{number}"
        if number < len(solvers):
            host, port = solvers[number]
            commands += [f"set server {name} addr {host} port {port}", f"set server {name} state ready"]
        else:
            commands.append(f"set server {name} state maint")
    return commands


@cache
def _placeholder() -> str:
    """A certificate that nobody trusts, until the right one is there: without any HAProxy would not start."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "no certificate yet")])
    begin = datetime.now(UTC) - timedelta(days=1)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=3_650))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return _NONE + (made.public_bytes(Encoding.PEM) + private).decode()
