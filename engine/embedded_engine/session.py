"""One stack of one project, opened: its settings, its secrets, its state."""

import contextlib
import dataclasses
import datetime
import functools
import hashlib
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping

from embedded_engine.backend import FileBackend, Serializer, StackName, intact, parse_stack_name
from embedded_engine.config import Blind, Configuration, Project, StackSettings, load_settings, resolve, settings_path
from embedded_engine.config.edit import set_salt
from embedded_engine.errors import StateError
from embedded_engine.model import Json, Snapshot
from embedded_engine.secrets import Crypter, SecretsManager, StateCipher, salt_of_state

STACK_TYPE = "pulumi:pulumi:Stack"


class StackSession:
    """What commands and the deployment need of a stack.

    `environment` is where the passphrase is looked for; `ask` asks a person for it. Optional: without it a missing
    passphrase is an error. `clock` gives the time of the manifest.
    """

    def __init__(
        self,
        project: Project,
        name: StackName,
        backend: FileBackend,
        environment: Mapping[str, str],
        ask: Callable[[], str] | None = None,
        clock: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self.project = project
        self.name = name
        self.backend = backend
        self.environment = environment
        self.settings: StackSettings = load_settings(settings_path(project.settings_folder, name.stack), project.name)
        self.secrets = SecretsManager(self.settings.salt, environment, ask)
        self._clock = clock
        # The state's secrets may have another salt than the settings: what is written has the settings' one.
        self._serializer = Serializer(StateCipher(self.secrets.crypter).encode)

    @property
    def stack(self) -> str:
        return self.name.stack

    @functools.cached_property
    def configuration(self) -> Configuration:
        """What the program gets. Raises `ConfigError` or `SecretsError`."""
        return resolve(self.project, self.stack, self.settings, self.secrets.crypter)

    def configuration_as_it_is(self, show_secrets: bool) -> Configuration:
        """The same, though it may lack what the project asks for; without secrets no passphrase is needed."""
        crypter = self.secrets.crypter if show_secrets else Blind
        return resolve(self.project, self.stack, self.settings, crypter, check=False)

    def crypter(self) -> Crypter:
        return self.secrets.crypter()

    def ensure_salt(self) -> None:
        """Gives a stack that cannot encrypt yet its salt, in its settings. Raises `SecretsError` or `ConfigError`."""
        if not self.secrets.salt:
            set_salt(self.settings.path, self.secrets.create_salt())
            self.settings = load_settings(self.settings.path, self.project.name)

    def load(self) -> Snapshot:
        """The stack's state with its secrets decrypted; empty where it was never updated.

        Raises `StackNotFoundError`, `StateError` or `SecretsError`.
        """
        deployment = self.backend.read(self.name).deployment
        if deployment is None:
            return Snapshot()
        return intact(self.decoded(deployment), self.backend.path(self.name))

    def decoded(self, deployment: Json) -> Snapshot:
        """A deployment as it was exported or stored, with its secrets decrypted. Raises `StateError`, `SecretsError`.

        What was encrypted with the stack's own salt keeps its ciphertexts when it is written.
        """
        salt = salt_of_state(deployment.get("secrets_providers"))
        if salt and not self.secrets.salt:
            self.secrets.salt = salt
        cipher = StateCipher(lambda: self.secrets.crypter(salt))
        if salt == self.secrets.salt:
            self._serializer = Serializer(cipher.encode)
        return Snapshot.from_deployment(deployment, cipher.decode)

    def persist(self, snapshot: Snapshot) -> None:
        """Writes the state, whole or not at all. Raises `StateWriteError`."""
        stored = dataclasses.replace(
            snapshot,
            manifest=self.manifest(),
            secrets_providers=self.secrets.to_state() or snapshot.secrets_providers,
        )
        self.backend.write(self.name, self._serializer(str(self.name), stored))

    def manifest(self) -> Json:
        version = f"v{importlib.metadata.version('pulumi-aks-inference')}+embedded-engine"
        time = self._clock().isoformat().replace("+00:00", "Z")
        return {"time": time, "magic": hashlib.sha256(version.encode()).hexdigest(), "version": version}

    @contextlib.contextmanager
    def locked(self, tell: Callable[[str], None]) -> Iterator[None]:
        """Keeps every other process off the stack. Raises `LockedError`; `tell` gets what was found out."""
        with self.backend.lock(self.name, tell):
            self.backend.sweep(self.name)
            yield

    def stack_outputs(self, name: str) -> Json:
        """The outputs of another stack of this backend, for a StackReference: `stack` or `organization/project/stack`.

        Secrets are in their wire form with plain values. Raises `StackNotFoundError`, `StateError`, `SecretsError`.
        """
        other = parse_stack_name(name, self.project.name)
        deployment = self.backend.read(other).deployment
        if deployment is None:
            return {}
        salt = salt_of_state(deployment.get("secrets_providers"))
        cipher = StateCipher(lambda: self.secrets.crypter(salt))
        return outputs_of(Snapshot.from_deployment(deployment, cipher.decode))


def outputs_of(snapshot: Snapshot) -> Json:
    """The stack's own outputs."""
    stacks = [r for r in snapshot.resources if r.type == STACK_TYPE and not r.delete and not r.parent]
    if len(stacks) > 1:
        raise StateError("the state has more than one stack resource")
    return dict(stacks[0].outputs) if stacks else {}
