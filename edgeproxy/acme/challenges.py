"""Proofs that an authority comes to see while it validates a name (RFC 8555, section 8; RFC 8737).

They are files in a folder: any process that serves can answer, one that begins anew too, and nobody
has to be told. There are some for a few seconds every two months.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID, ObjectIdentifier

from edgeproxy.private_file import write_private

HTTP_PATH = b"/.well-known/acme-challenge/"
TLS_PROTOCOL = "acme-tls/1"

_TOKEN = re.compile(rb"[A-Za-z0-9_-]{16,512}")
_NAME = re.compile(r"[a-z0-9._-]{1,253}")
_ACME_IDENTIFIER = ObjectIdentifier("1.3.6.1.5.5.7.1.31")
_MAX_BYTES = 4096


class Challenges:
    """Those in one folder, which need not exist."""

    def __init__(self, folder: Path) -> None:
        self._http = folder / "http"
        self._tls = folder / "tls"

    # ------------------------------------------------------------ asked by the front

    def http(self, method: bytes, target: bytes) -> bytes | None:
        """What to answer to a request; None if nobody waits for that."""
        if method != b"GET":
            return None
        token = target.removeprefix(HTTP_PATH)
        if token == target or not _TOKEN.fullmatch(token):
            return None
        try:
            with (self._http / token.decode("ascii")).open("rb") as stream:
                return stream.read(_MAX_BYTES)
        except OSError:
            return None

    @property
    def has_tls(self) -> bool:
        """Whether a handshake may come that asks for a proof."""
        return self._tls.is_dir()

    def tls(self, name: str | None) -> ssl.SSLContext | None:
        """What proves `name` in a handshake; None if nobody waits for that."""
        file = self._tls / f"{name}.pem"
        if not name or not _NAME.fullmatch(name) or not file.is_file():
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols([TLS_PROTOCOL])
        with contextlib.suppress(OSError):
            context.load_cert_chain(file)
        return context

    # ------------------------------------------------------------ made by who asks for certificates

    @contextlib.contextmanager
    def http_proof(self, token: str, authorization: str) -> Iterator[None]:
        """While it lasts, `token` is answered with `authorization`."""
        if not _TOKEN.fullmatch(token.encode()):
            raise ValueError("the token is not one that can be served")
        with _there(self._http, token, authorization.encode()):
            yield

    @contextlib.contextmanager
    def tls_proof(self, name: str, authorization: str) -> Iterator[None]:
        """While it lasts, handshakes of the authority for `name` show `authorization`."""
        with _there(self._tls, f"{name}.pem", _tls_certificate(name, authorization)):
            yield

    def clear(self) -> None:
        """Remove what a process has left that did not come to its end."""
        for folder in (self._http, self._tls):
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _there(folder: Path, name: str, data: bytes) -> Iterator[None]:
    write_private(folder / name, data)
    try:
        yield
    finally:
        (folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def _tls_certificate(name: str, authorization: str) -> bytes:
    """A certificate that is good for nothing but this proof (RFC 8737, section 3), with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ACME challenge")])
    digest = hashlib.sha256(authorization.encode()).digest()
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(
            x509.UnrecognizedExtension(_ACME_IDENTIFIER, b"\x04\x20" + digest), critical=True
        )
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM) + key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
