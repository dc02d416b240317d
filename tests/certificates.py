"""Certificates for tests: an authority, and what it signs."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import NameOID

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


class Pair(NamedTuple):
    """The files of a certificate and of its key."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Authority:
    """Signs certificates. What it is trusted for is decided by who has its file."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    file: Path

    @classmethod
    def in_folder(cls, folder: Path, name: str) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            _builder(subject, subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(_usage(signs=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        file = folder / f"{name}.pem"
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return cls(key, certificate, file)

    def context(
        self, folder: Path, *names: str, from_days: int = -1, until_days: int = 1
    ) -> ssl.SSLContext:
        """For a server with these names, trusted for so long."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(
            *self.sign(folder, "server", *names, from_days=from_days, until_days=until_days)
        )
        return context

    def sign(
        self, folder: Path, stem: str, *names: str, from_days: int = -1, until_days: int = 1
    ) -> Pair:
        """A certificate for these names, in files of its own that may replace others."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.certify(key.public_key(), names, from_days, until_days, stem=stem)
        files = Pair(folder / f"{stem}.pem", folder / f"{stem}.key")
        files.certificate.write_text(certificate)
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return files

    def certify(
        self,
        key: CertificatePublicKeyTypes,
        names: Sequence[str],
        from_days: int = -1,
        until_days: int = 1,
        *,
        stem: str = "",
    ) -> str:
        """A certificate in PEM for the key of somebody else."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, stem or names[0])])
        alternatives: list[x509.GeneralName] = [
            x509.IPAddress(IPv4Address(name)) if name[0].isdigit() else x509.DNSName(name)
            for name in names
        ]
        certificate = (
            _builder(subject, self.certificate.subject, key, from_days, until_days)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
            .sign(self.key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: CertificatePublicKeyTypes,
    from_days: int = -1,
    until_days: int = 1,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + from_days * DAY)
        .not_valid_after(NOW + until_days * DAY)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, key_cert_sign=signs, crl_sign=signs, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
