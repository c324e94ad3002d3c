"""Secrets inside property values: encrypted on the way to the disk, plain in memory.

In memory a secret is `{<signature key>: <secret>, "value": …}`. In a checkpoint it has `ciphertext` in place of `value`
(the JSON text, encrypted), and in an export with shown secrets `plaintext` (the JSON text).
"""

import json
from collections.abc import Callable

from embedded_engine.errors import SecretsError, StateError
from embedded_engine.model import Json, Value
from embedded_engine.secrets.passphrase import Crypter
from embedded_engine.values import SECRET, SIGNATURE, is_secret
from embedded_engine.wirejson import dumps_sorted, plain_numbers

# Where in a checkpoint a secret stands: the resource, inputs or outputs, the path in it.
Place = tuple[str | int, ...]
_PROPERTIES = ("inputs", "outputs")


class StateCipher:
    """Encrypts and decrypts the secrets of a checkpoint's resources.

    A secret that stands unchanged where it stood keeps its ciphertext, so that an update which changes nothing leaves
    the state file as it was. The crypter is asked for when the first secret is met: deriving its key takes a while.
    """

    def __init__(self, crypter: Callable[[], Crypter]) -> None:
        self._crypter = crypter
        self._known: dict[tuple[Place, str], str] = {}

    def encode(self, resource: Json) -> Json:
        """The stored form of a resource in wire form."""
        return self._properties(resource, self._sealed)

    def decode(self, resource: Json) -> Json:
        """The wire form of a stored resource. Raises `SecretsError` or `StateError`."""
        return self._properties(resource, self._opened)

    def _properties(self, resource: Json, change: Callable[[Place, Json], Json]) -> Json:
        changed = dict(resource)
        for part in _PROPERTIES:
            if part in resource:
                place = (str(resource.get("urn", "")), part)
                changed[part] = _change_secrets(resource[part], place, change)
        return changed

    def _sealed(self, place: Place, secret: Json) -> Json:
        inner = _change_secrets(secret.get("value"), (*place, "value"), self._sealed)
        text = dumps_sorted(inner)
        ciphertext = self._known.get((place, text))
        if ciphertext is None:
            ciphertext = self._known[place, text] = self._crypter().encrypt(text)
        return {SIGNATURE: SECRET, "ciphertext": ciphertext}

    def _opened(self, place: Place, secret: Json) -> Json:
        if "ciphertext" in secret:
            crypter = self._crypter()
            try:
                text = crypter.decrypt(str(secret["ciphertext"]))
            except SecretsError as error:
                raise SecretsError(f"{place[0]}: {'.'.join(map(str, place[1:]))}: {error}") from None
            self._known[place, text] = str(secret["ciphertext"])
        elif "plaintext" in secret:
            text = str(secret["plaintext"])
        else:
            raise StateError(f"{place[0]}: a secret in {place[1]} has neither ciphertext nor plaintext")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            raise SecretsError(f"{place[0]}: a secret in {place[1]} does not hold JSON") from None
        return {SIGNATURE: SECRET, "value": _change_secrets(value, (*place, "value"), self._opened)}


def show_secrets(resource: Json) -> Json:
    """A resource in wire form with its secrets as `plaintext`, for an export that shows them."""
    changed = dict(resource)
    for part in _PROPERTIES:
        if part in resource:
            changed[part] = _change_secrets(resource[part], (), _shown)
    return changed


def _shown(_: Place, secret: Json) -> Json:
    inner = _change_secrets(secret.get("value"), (), _shown)
    return {SIGNATURE: SECRET, "plaintext": dumps_sorted(inner)}


def _change_secrets(value: Value, place: Place, change: Callable[[Place, Json], Json]) -> Value:
    if is_secret(value):
        return change(place, value)
    if isinstance(value, dict):
        return {key: _change_secrets(entry, (*place, key), change) for key, entry in value.items()}
    if isinstance(value, list):
        return [_change_secrets(entry, (*place, index), change) for index, entry in enumerate(value)]
    return plain_numbers(value)
