"""Certificates for tests."""

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def make_certificate(
    *names: str,
    days: float = 90,
    begun: float = 1,
    alone: bool = False,
    bits: int | None = None,
    subject: str = "scoring",
) -> tuple[bytes, bytes]:
    """Chain and key in PEM form for some names, issued by an authority of its own that is the chain's last.

    `days`: from now until its end; `begun`: days since its beginning; `alone`: issued by itself.
    """
    key = rsa.generate_private_key(65_537, bits) if bits else ec.generate_private_key(ec.SECP256R1())
    if alone:
        made = _issued(key, subject, names, key, subject, days, begun)
        chain = [made]
    else:
        authority = ec.generate_private_key(ec.SECP256R1())
        # Authorities of one name are taken for each other.
        named = f"authority {x509.random_serial_number():x}"
        root = _issued(authority, named, (), authority, named, 3_650, 10)
        chain = [_issued(key, subject, names, authority, named, days, begun), root]
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return b"".join(one.public_bytes(Encoding.PEM) for one in chain), private


def _issued(
    key: Key, subject: str, names: Sequence[str], by: Key, issuer: str, days: float, begun: float
) -> x509.Certificate:
    now = datetime.now(UTC)
    named = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (subject, issuer)]
    builder = (
        x509.CertificateBuilder()
        .subject_name(named[0])
        .issuer_name(named[1])
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=begun))
        .not_valid_after(now + timedelta(days=days))
    )
    if names:
        general: list[x509.GeneralName] = []
        for name in names:
            try:
                general.append(x509.IPAddress(ipaddress.ip_address(name)))
            except ValueError:
                general.append(x509.DNSName(name))
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    else:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(by, hashes.SHA256())
