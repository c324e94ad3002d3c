"""Passphrase encryption as Pulumi has it."""

import base64
from pathlib import Path
from typing import Any

import pytest

from embedded_engine.errors import SecretsError
from embedded_engine.secrets import Crypter, SecretsManager, crypter_of, find_passphrase, new_salt, salt_of_state

# Made by the pulumi CLI 3.260 with the passphrase "x".
CLI_SALT = "v1:fXzlv8jotfE=:v1:ieTyVVKSWX0nl+mJ:Aumk86Qp7BmQSzDPsNQtmY07dL08bg=="
CLI_CIPHERTEXT = "v1:f401M3p+w8CXXsu8:8MFHgvGfuMoVk00kmGfkKPpfxiR8uzgtyU/ADOMOHQ=="


@pytest.fixture(scope="module")
def crypter() -> Crypter:
    return crypter_of("x", CLI_SALT)


def test_what_the_cli_encrypted_can_be_read(crypter: Crypter) -> None:
    assert crypter.decrypt(CLI_CIPHERTEXT) == "password-s3cret"


def test_a_new_salt_has_the_cli_s_form_and_works() -> None:
    salt = new_salt("ü secret")
    version, raw, check_version, nonce, check = salt.split(":")
    assert (version, check_version) == ("v1", "v1")
    assert [len(base64.b64decode(part)) for part in (raw, nonce, check)] == [8, 12, len("pulumi") + 16]
    made = crypter_of("ü secret", salt)
    assert made.decrypt(made.encrypt("text ü")) == "text ü"


def test_a_wrong_passphrase_is_noticed_before_anything_is_encrypted() -> None:
    with pytest.raises(SecretsError, match="incorrect passphrase"):
        crypter_of("y", CLI_SALT)


def test_the_same_text_never_gives_the_same_ciphertext(crypter: Crypter) -> None:
    assert crypter.encrypt("a") != crypter.encrypt("a")


@pytest.mark.parametrize(
    "damaged",
    [
        CLI_CIPHERTEXT[:-6] + "AAAA==",
        CLI_CIPHERTEXT.replace("v1:f", "v1:g"),
        CLI_CIPHERTEXT[:-3],
        "v1:AAAA",
        "v2" + CLI_CIPHERTEXT[2:],
        "v1:!!!:???",
        "",
    ],
)
def test_a_damaged_ciphertext_is_refused(crypter: Crypter, damaged: str) -> None:
    with pytest.raises(SecretsError):
        crypter.decrypt(damaged)


@pytest.mark.parametrize("salt", ["", "v1", "v2:AAAA:v1:AAAA:AAAA", "v1:!:v1:AAAA:AAAA", "v1:AAAA:"])
def test_a_damaged_salt_is_refused(salt: str) -> None:
    with pytest.raises(SecretsError):
        crypter_of("x", salt)


@pytest.mark.parametrize(
    ("environment", "passphrase"),
    [
        ({"PULUMI_CONFIG_PASSPHRASE": "a"}, "a"),
        ({"PULUMI_CONFIG_PASSPHRASE": ""}, ""),
        ({"PULUMI_CONFIG_PASSPHRASE": "a", "PULUMI_CONFIG_PASSPHRASE_FILE": "{file}"}, "a"),
        ({"PULUMI_CONFIG_PASSPHRASE_FILE": "{file}"}, "from the file"),
        ({}, "asked"),
    ],
)
def test_where_the_passphrase_comes_from(environment: dict[str, str], passphrase: str, tmp_path: Path) -> None:
    file = tmp_path / "passphrase"
    file.write_text("from the file\n")
    filled = {key: value.replace("{file}", str(file)) for key, value in environment.items()}
    assert find_passphrase(filled, lambda: "asked") == passphrase


def test_a_missing_passphrase_is_said_with_the_mend() -> None:
    with pytest.raises(SecretsError, match="PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE"):
        find_passphrase({}, None)


def test_a_missing_passphrase_file_is_named() -> None:
    with pytest.raises(SecretsError, match="no-such-file"):
        find_passphrase({"PULUMI_CONFIG_PASSPHRASE_FILE": "/no-such-file"}, None)


def test_a_person_is_asked_once() -> None:
    asked: list[int] = []

    def ask() -> str:
        asked.append(1)
        return "x"

    manager = SecretsManager(CLI_SALT, {}, ask)
    assert manager.crypter().decrypt(CLI_CIPHERTEXT) == manager.crypter(CLI_SALT).decrypt(CLI_CIPHERTEXT)
    assert asked == [1]


def test_without_a_salt_nothing_is_encrypted() -> None:
    with pytest.raises(SecretsError, match="encryptionsalt"):
        SecretsManager("", {"PULUMI_CONFIG_PASSPHRASE": "x"}).crypter()


@pytest.mark.parametrize(
    ("providers", "salt"),
    [(None, ""), ({}, ""), ({"type": "passphrase", "state": {"salt": "s"}}, "s"), ({"type": "passphrase"}, "")],
)
def test_the_salt_of_a_state(providers: dict[str, Any] | None, salt: str) -> None:
    assert salt_of_state(providers) == salt


def test_other_secrets_providers_are_refused_by_name() -> None:
    with pytest.raises(SecretsError, match="'azurekeyvault' is not supported"):
        salt_of_state({"type": "azurekeyvault", "state": {}})
