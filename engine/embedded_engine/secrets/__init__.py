"""Encryption of secrets in the state and in the configuration."""

from embedded_engine.secrets.manager import SecretsManager, find_passphrase, salt_of_state
from embedded_engine.secrets.passphrase import Crypter, crypter_of, new_salt
from embedded_engine.secrets.values import StateCipher, show_secrets

__all__ = [
    "Crypter",
    "SecretsManager",
    "StateCipher",
    "crypter_of",
    "find_passphrase",
    "new_salt",
    "salt_of_state",
    "show_secrets",
]
