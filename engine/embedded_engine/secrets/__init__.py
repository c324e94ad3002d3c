"""Encryption of secrets in the state and in the configuration."""

from embedded_engine.secrets.manager import SecretsManager, find_passphrase, salt_of_state
from embedded_engine.secrets.passphrase import Crypter, crypter_of, new_salt
from embedded_engine.secrets.values import MASK, StateCipher, is_secret, masked, show_secrets, unwrapped

__all__ = [
    "MASK",
    "Crypter",
    "SecretsManager",
    "StateCipher",
    "crypter_of",
    "find_passphrase",
    "is_secret",
    "masked",
    "new_salt",
    "salt_of_state",
    "show_secrets",
    "unwrapped",
]
