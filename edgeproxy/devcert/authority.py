"""A local authority for development: made once, limited to names that are nobody's."""

from __future__ import annotations

import getpass
import ipaddress
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgeproxy.private_file import write_private

AUTHORITY_LIFE = timedelta(days=3650)
LIFE = timedelta(days=397)  # browsers refuse a longer one
BACKDATED = timedelta(hours=1)  # for clocks that are behind

DOMAINS = ("localhost", "test", "example", "invalid", "internal", "local", "home.arpa")
"""For tests and private networks (RFC 2606, 6761, 6762, 8375): no site of others ends so."""

NETWORKS = tuple(
    map(
        ipaddress.ip_network,
        ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7"),
    )
)


class BadName(Exception):
    """The authority signs nothing for this name."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The files of a certificate and of its key."""

    certificate: Path
    key: Path


class DevAuthority:
    """The authority in `folder`. It is made when it first signs.

    Its certificate itself says that it speaks for `DOMAINS` and `NETWORKS` alone (RFC 5280, section
    4.2.1.10). So who steals the key of a developer who trusts it cannot pass for their bank.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate = folder / "authority.pem"
        self._key = folder / "authority.key"

    @property
    def exists(self) -> bool:
        return self.certificate.exists()

    def sign(self, names: Sequence[str], now: datetime | None = None) -> Pair:
        """A certificate for `names`, DNS names and addresses. Raises BadName, or OSError."""
        now = now or datetime.now(UTC)
        alternatives = [_general_name(name) for name in names]
        key, issuer = self._opened(now)
        own_key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(_named(names[0]), issuer.subject, own_key.public_key(), now, LIFE)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()),
                critical=False,
            )
            .sign(key, hashes.SHA256())
        )
        stem = names[0].replace("*", "_").replace(":", "_")
        files = Pair(self.folder / f"{stem}.pem", self.folder / f"{stem}.key")
        write_private(files.key, _key_pem(own_key))
        write_private(files.certificate, certificate.public_bytes(Encoding.PEM), 0o644)
        return files

    def _opened(self, now: datetime) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        if not self._key.exists():
            self._make(now)
        key = load_pem_private_key(self._key.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key, x509.load_pem_x509_certificate(self.certificate.read_bytes())

    def _make(self, now: datetime) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _named(f"edgeproxy development ({getpass.getuser()}@{platform.node()})"[:64])
        certificate = (
            _builder(subject, subject, key.public_key(), now, AUTHORITY_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_SIGNS, critical=True)
            .add_extension(_LIMITS, critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        write_private(self.certificate, certificate.public_bytes(Encoding.PEM), 0o644)
        write_private(self._key, _key_pem(key))  # last: with it, all is there


_SIGNS = x509.KeyUsage(
    key_cert_sign=True, crl_sign=True, digital_signature=False, content_commitment=False,
    key_encipherment=False, data_encipherment=False, key_agreement=False,
    encipher_only=False, decipher_only=False,
)  # fmt: skip
_LIMITS = x509.NameConstraints(
    permitted_subtrees=[*map(x509.DNSName, DOMAINS), *map(x509.IPAddress, NETWORKS)],
    excluded_subtrees=None,
)


def _general_name(name: str) -> x509.GeneralName:
    """`name` as it stands in a certificate. Raises BadName."""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        pass
    else:
        if not any(address in network for network in NETWORKS):
            raise BadName(f"{name} is not an address of a private network")
        return x509.IPAddress(address)
    bare = name.lower().removeprefix("*.")
    if not any(bare == domain or bare.endswith(f".{domain}") for domain in DOMAINS):
        raise BadName(
            f"{name} may be somebody's; take one that ends in {', '.join(DOMAINS[:-1])} or "
            f"{DOMAINS[-1]}, such as {bare.partition('.')[0] or 'www'}.test"
        )
    return x509.DNSName(name.lower())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    life: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now - BACKDATED + life)
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
