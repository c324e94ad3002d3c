"""The tree of errors that the engine shows to people: a sentence each, never a traceback."""


class EngineError(Exception):
    """What the user is told. `exit_code` is that of the command that it ends."""

    exit_code = 255


class UsageError(EngineError):
    """The command line, the project or the configuration asks for what cannot be."""


class ConfigError(EngineError):
    """`Pulumi.yaml` or `Pulumi.<stack>.yaml` is not as it must be."""


class SecretsError(EngineError):
    """A passphrase that is missing or wrong, or a ciphertext that is damaged."""


class StateError(EngineError):
    """The state of a stack cannot be used as it is."""


class StateWriteError(StateError):
    """The state could not be written; what was stored before is whole."""


class StackNotFoundError(StateError):
    """The backend has no stack of that name."""


class LockedError(StateError):
    """Another process works on the stack."""
