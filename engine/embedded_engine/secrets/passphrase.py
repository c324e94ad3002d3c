"""Pulumi's passphrase encryption: PBKDF2 with SHA-256 gives the key, AES-256-GCM the ciphertexts.

The salt is stored as `v1:<salt>:v1:<nonce>:<ciphertext of a known word>`, so that a wrong passphrase is noticed before
anything is encrypted with it. A ciphertext is `v1:<nonce>:<ciphertext and tag>`; all parts are base64.
"""

import base64
import binascii
import hashlib
import os
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from embedded_engine.errors import SecretsError

ROUNDS = 1_000_000
KEY_BYTES = 32
SALT_BYTES = 8
NONCE_BYTES = 12
_VERSION = "v1"
_KNOWN_WORD = "pulumi"


class Crypter:
    """Encrypts and decrypts texts with one key. Safe to use from several threads."""

    def __init__(self, key: bytes, random: Callable[[int], bytes] = os.urandom) -> None:
        self._cipher = AESGCM(key)
        self._random = random

    def encrypt(self, text: str) -> str:
        nonce = self._random(NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, text.encode(), None)
        return f"{_VERSION}:{_encode(nonce)}:{_encode(sealed)}"

    def decrypt(self, ciphertext: str) -> str:
        """Raises `SecretsError` where the text is no ciphertext of this key."""
        version, _, rest = ciphertext.partition(":")
        nonce, _, sealed = rest.partition(":")
        if version != _VERSION:
            raise SecretsError(f"a ciphertext must begin with `{_VERSION}:`")
        try:
            return self._cipher.decrypt(_decode(nonce), _decode(sealed), None).decode()
        except (InvalidTag, ValueError):
            # The reason would not help, and a text that did not come out whole must not be shown.
            raise SecretsError("a ciphertext is damaged, or was made with another passphrase") from None


def crypter_of(passphrase: str, salt_state: str) -> Crypter:
    """The crypter of a stored salt. Raises `SecretsError` for another passphrase or a damaged salt."""
    version, _, rest = salt_state.partition(":")
    salt, _, check = rest.partition(":")
    if version != _VERSION or not salt or not check:
        raise SecretsError("the encryption salt must be `v1:<salt>:v1:<nonce>:<ciphertext>`")
    try:
        raw_salt = _decode(salt)
    except ValueError:
        raise SecretsError("the encryption salt is not base64") from None
    crypter = Crypter(derive_key(passphrase, raw_salt))
    try:
        word = crypter.decrypt(check)
    except SecretsError:
        word = ""
    if word != _KNOWN_WORD:
        raise SecretsError("incorrect passphrase")
    return crypter


def new_salt(passphrase: str, random: Callable[[int], bytes] = os.urandom) -> str:
    """A new salt in its stored form."""
    salt = random(SALT_BYTES)
    check = Crypter(derive_key(passphrase, salt), random).encrypt(_KNOWN_WORD)
    return f"{_VERSION}:{_encode(salt)}:{check}"


def derive_key(passphrase: str, salt: bytes) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", passphrase.encode(), salt, ROUNDS, KEY_BYTES)


def _encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
