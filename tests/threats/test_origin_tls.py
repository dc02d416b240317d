"""Row 20, over TLS: an origin that cannot prove its name is no origin."""

from __future__ import annotations

import datetime
import ssl
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edgeproxy.testing import running
from tests.threats.raw import Origin, ask

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


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
            _builder(subject, subject, key)
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
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
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
        file = folder / "server.pem"
        file.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    from_days: int = -1,
    until_days: int = 1,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
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


def policy(ca_file: Path) -> str:
    return (
        "version: 1\n"
        f"origins: {{site: {{url: https://127.0.0.1:1/, kind: http, ca_file: {ca_file}, "
        "connect_timeout: 500ms, first_byte_timeout: 500ms}}\n"
        "routes: [{name: all, origin: site, cache: false}]\n"
    )


@pytest.fixture
def trusted(tmp_path: Path) -> Authority:
    return Authority.in_folder(tmp_path, "trusted")


async def _status(trusted: Authority, context: ssl.SSLContext | None) -> tuple[int, str, bytes]:
    listen = {} if context is None else {"ssl": context}
    async with (
        Origin(**listen) as origin,
        running(policy(trusted.file), origins={"site": f"https://{origin.authority}/"}) as proxy,
    ):
        reply = await ask(proxy.port, "/", "Authorization: secret")
        return reply.status, reply.get("proxy-status") or "", origin.received


async def test_origin_with_a_good_certificate_is_served(tmp_path: Path, trusted: Authority) -> None:
    status, _, _ = await _status(trusted, trusted.context(tmp_path, "127.0.0.1"))
    assert status == 200


@pytest.mark.parametrize("fault", ["another name", "expired", "not yet", "self-signed", "unknown"])
async def test_origin_with_a_bad_certificate_learns_nothing(
    fault: str, tmp_path: Path, trusted: Authority
) -> None:
    other = Authority.in_folder(tmp_path, "other")
    context = {
        "another name": lambda: trusted.context(tmp_path, "other.example", "127.0.0.2"),
        "expired": lambda: trusted.context(tmp_path, "127.0.0.1", from_days=-9, until_days=-1),
        "not yet": lambda: trusted.context(tmp_path, "127.0.0.1", from_days=1, until_days=9),
        "self-signed": lambda: other.context(tmp_path, "127.0.0.1"),
        "unknown": lambda: Authority.in_folder(tmp_path, "trusted2").context(tmp_path, "127.0.0.1"),
    }[fault]()
    status, cause, received = await _status(trusted, context)
    assert status == 502
    assert "error=tls_certificate_error" in cause
    assert not received


async def test_origin_that_does_not_speak_tls_is_a_502(trusted: Authority) -> None:
    status, cause, received = await _status(trusted, None)
    assert status in (502, 504)
    assert "error=" in cause
    assert b"secret" not in received


async def test_plain_http_to_a_tls_port_is_a_502(tmp_path: Path, trusted: Authority) -> None:
    text = policy(trusted.file).replace("https://127", "http://127")
    async with (
        Origin(ssl=trusted.context(tmp_path, "127.0.0.1")) as origin,
        running(text, origins={"site": origin.url}) as proxy,
    ):
        assert (await ask(proxy.port)).status in (502, 504)
        assert not origin.received
