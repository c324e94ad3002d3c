"""Where the passphrase comes from, and the crypters of a stack's salts."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from embedded_engine.errors import SecretsError
from embedded_engine.model import Json
from embedded_engine.secrets.passphrase import Crypter, crypter_of, new_salt

PASSPHRASE_VARIABLE = "PULUMI_CONFIG_PASSPHRASE"  # noqa: S105 - the variable's name
PASSPHRASE_FILE_VARIABLE = "PULUMI_CONFIG_PASSPHRASE_FILE"  # noqa: S105 - the variable's name


def find_passphrase(environment: Mapping[str, str], ask: Callable[[], str] | None) -> str:
    """The passphrase of the environment or, where `ask` is given, of the person. Raises `SecretsError`.

    An empty variable counts: an empty passphrase is a choice that the CLI leaves too.
    """
    if PASSPHRASE_VARIABLE in environment:
        return environment[PASSPHRASE_VARIABLE]
    if path := environment.get(PASSPHRASE_FILE_VARIABLE):
        try:
            return Path(path).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SecretsError(f"{PASSPHRASE_FILE_VARIABLE}: {error}") from None
    if ask is not None:
        return ask()
    raise SecretsError(
        "passphrase must be set with PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE environment variables"
    )


class SecretsManager:
    """The crypters of one stack, made when they are needed and once for each salt. Safe to use from several threads.

    `ask` is called at most once, and only if the environment names no passphrase.
    """

    def __init__(self, salt: str, environment: Mapping[str, str], ask: Callable[[], str] | None = None) -> None:
        self.salt = salt
        self._environment = environment
        self._ask = ask
        self._passphrase: str | None = None
        self._crypters: dict[str, Crypter] = {}
        self._lock = threading.RLock()

    def crypter(self, salt: str = "") -> Crypter:
        """The crypter of that salt. Optional: the stack's own salt. Raises `SecretsError`."""
        salt = salt or self.salt
        with self._lock:
            if salt not in self._crypters:
                if not salt:
                    raise SecretsError("the stack has no encryption salt: `encryptionsalt` is missing in its settings")
                self._crypters[salt] = crypter_of(self.passphrase(), salt)
            return self._crypters[salt]

    def passphrase(self) -> str:
        with self._lock:
            if self._passphrase is None:
                self._passphrase = find_passphrase(self._environment, self._ask)
            return self._passphrase

    def create_salt(self) -> str:
        """A new salt for a stack that has none; it is the manager's from then on."""
        with self._lock:
            self.salt = new_salt(self.passphrase())
            return self.salt

    def to_state(self) -> Json | None:
        """What the checkpoint says of the secrets: the kind and the salt."""
        return {"type": "passphrase", "state": {"salt": self.salt}} if self.salt else None


def salt_of_state(secrets_providers: Json | None) -> str:
    """The salt with which a checkpoint's secrets were encrypted; empty where it says nothing.

    Raises `SecretsError` for kinds other than `passphrase`, which need a cloud's key service.
    """
    if not secrets_providers:
        return ""
    kind = secrets_providers.get("type")
    if kind != "passphrase":
        raise SecretsError(f"secrets provider {kind!r} is not supported here: only `passphrase` is")
    state = secrets_providers.get("state")
    return str(state.get("salt", "")) if isinstance(state, dict) else ""
