"""Certificates for TLS on the front: read and proven when a policy loads, chosen by server name."""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic_core import PydanticCustomError

MAX_BYTES = 1024 * 1024
WARN_BEFORE = timedelta(days=7)
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

log = logging.getLogger("edgeproxy")


type Files = tuple[str, str]
"""Where a certificate and its key are; the same file may hold both."""

type Stamp = tuple[tuple[int, ...], ...]
"""What changes when one of the files is written, or another takes its place."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate as its files had it at one moment."""

    files: Files
    stamp: Stamp
    names: tuple[str, ...]  # DNS names in lower case, `*.example.org` among them
    not_after: datetime
    context: ssl.SSLContext
    chain: tuple[x509.Certificate, ...]  # itself, then those that lead to its authority
    key: PrivateKeyTypes

    def __str__(self) -> str:
        return f"the certificate for {', '.join(self.names) or '(no name)'}"


def check_certificate(file: str) -> str:
    """`file`, if it holds a certificate. Raises a fault."""
    _leaf(file)
    return file


def check_key(file: str) -> str:
    """`file`, if it holds a private key that can be used. Raises a fault."""
    _key(file)
    return file


def _key(file: str) -> PrivateKeyTypes:
    data = _content(file)
    try:
        return load_pem_private_key(data, None)
    except TypeError:
        raise _fault(
            f"the key in {file!r} has a passphrase, and nobody is there to type it; "
            "write it without one: openssl pkey -in KEY -out PLAIN"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise _fault(f"{file!r} holds no private key in PEM (BEGIN PRIVATE KEY)") from None


def load_pair(certificate: str, key: str) -> Certificate:
    """A certificate with its chain and its key, ready to serve. Raises a fault."""
    stamp = stamp_of((certificate, key))  # before they are read: what changes meanwhile is new
    context = server_context()
    try:
        context.load_cert_chain(certificate, key, password=lambda: b"")  # never ask a terminal
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        if reason == "KEY_VALUES_MISMATCH":
            reason = "it belongs to another certificate"
        raise _fault(f"the key in {key!r} does not fit {certificate!r}: {reason}") from None
    chain, private = _chain(certificate), _key(key)
    leaf, files = chain[0], (certificate, key)
    if leaf.public_key() != private.public_key():  # one has been replaced in this moment
        raise _fault(f"the key in {key!r} does not fit {certificate!r}: they are being replaced")
    return Certificate(
        files, stamp, _names(leaf), leaf.not_valid_after_utc, context, chain, private
    )


def lifetime(file: str) -> tuple[datetime, datetime] | None:
    """From when to when the certificate in `file` is good; None if none can be read."""
    try:
        leaf = _leaf(file)
    except PydanticCustomError:
        return None
    return leaf.not_valid_before_utc, leaf.not_valid_after_utc


def server_context() -> ssl.SSLContext:
    """What a handshake begins with, as yet without a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


def _loaded(files: Files) -> Certificate | None:
    """What is in `files`; None if nothing is there. What is bad is told, and counts as nothing."""
    if not all(stamp_of(files)):
        return None
    try:
        return load_pair(*files)
    except PydanticCustomError as error:
        log.warning("%s", error.message())
        return None


def stamp_of(files: Files) -> Stamp:
    """The stamp of `files` as they are, wherever links lead; of what is not there, an empty one."""

    def of(file: str) -> tuple[int, ...]:
        try:
            found = os.stat(file)
        except (OSError, ValueError):
            return ()
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    return tuple(of(file) for file in files)


def _leaf(file: str) -> x509.Certificate:
    return _chain(file)[0]


def _chain(file: str) -> tuple[x509.Certificate, ...]:
    data = _content(file)
    try:
        return tuple(x509.load_pem_x509_certificates(data))
    except ValueError:
        raise _fault(f"{file!r} holds no certificate in PEM (BEGIN CERTIFICATE)") from None


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(name.lower() for name in names.get_values_for_type(x509.DNSName))


def _content(file: str) -> bytes:
    try:
        with Path(file).open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _fault(f"cannot read {file!r}: {reason}") from None
    if len(data) > MAX_BYTES:
        raise _fault(f"{file!r} is larger than 1 MiB: is it the right file?")
    return data


def _fault(reason: str) -> PydanticCustomError:
    return PydanticCustomError("bad_certificate", "{reason}", {"reason": reason})


class ServerNames:
    """Which certificate a client gets: the first that has the name it asks for, else the first.

    `context` is what a handshake begins with. Of `protocols`, the first that the client knows, too,
    is spoken (RFC 7301). `others` are files of certificates that may not be there yet. While there
    is none at all, no handshake comes to its end.
    """

    context: ssl.SSLContext

    def __init__(
        self,
        certificates: Sequence[Certificate],
        min_version: str,
        protocols: Sequence[str],
        others: Sequence[Files] = (),
    ) -> None:
        self._min_version = VERSIONS[min_version]
        self._protocols = protocols
        self.files = (*(one.files for one in certificates), *others)
        self._use([*certificates, *(found for files in others if (found := _loaded(files)))])

    def _use(self, certificates: Sequence[Certificate]) -> None:
        self._by_name: dict[str, Certificate] = {}
        for certificate in certificates:
            certificate.context.minimum_version = self._min_version
            certificate.context.set_alpn_protocols(self._protocols)
            for name in certificate.names:
                self._by_name.setdefault(name, certificate)
        self.certificates = tuple(certificates)
        self.context = certificates[0].context if certificates else server_context()
        self.context.sni_callback = self._choose

    def of(self, files: Files) -> Certificate | None:
        """The certificate that came from `files`, if there is one."""
        return next((one for one in self.certificates if one.files == files), None)

    def take(self, renewed: Certificate) -> None:
        """Use `renewed` in the place of the one from the same files, from the next handshake on."""
        found = {one.files: one for one in (*self.certificates, renewed)}
        self._use([found[files] for files in self.files if files in found])

    def context_for(self, name: str) -> ssl.SSLContext:
        """The context for a server name."""
        found = self.certificate_for(name)
        return self.context if found is None else found.context

    def certificate_for(self, name: str | None) -> Certificate | None:
        """The certificate for a server name, if there is any; `*.` stands for one label (RFC 9525,
        section 6.3)."""
        name = (name or "").lower()
        found = self._by_name.get(name) or self._by_name.get(f"*.{name.partition('.')[2]}")
        return found or next(iter(self.certificates), None)

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        if name is not None:
            connection.context = self.context_for(name)

    def warn_of_ends(self, now: datetime | None = None) -> None:
        """Log a line for each certificate that has ended, or will soon."""
        now = now or datetime.now(UTC)
        for certificate in self.certificates:
            if certificate.not_after < now + WARN_BEFORE:
                verb = "ended" if certificate.not_after < now else "ends"
                log.warning("%s %s on %s", certificate, verb, certificate.not_after)
