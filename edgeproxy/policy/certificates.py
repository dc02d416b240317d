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

    def __str__(self) -> str:
        return f"the certificate for {', '.join(self.names) or '(no name)'}"


def check_certificate(file: str) -> str:
    """`file`, if it holds a certificate. Raises a fault."""
    _leaf(file)
    return file


def check_key(file: str) -> str:
    """`file`, if it holds a private key that can be used. Raises a fault."""
    data = _content(file)
    try:
        load_pem_private_key(data, None)
    except TypeError:
        raise _fault(
            f"the key in {file!r} has a passphrase, and nobody is there to type it; "
            "write it without one: openssl pkey -in KEY -out PLAIN"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise _fault(f"{file!r} holds no private key in PEM (BEGIN PRIVATE KEY)") from None
    return file


def load_pair(certificate: str, key: str) -> Certificate:
    """A certificate with its chain and its key, ready to serve. Raises a fault."""
    stamp = stamp_of((certificate, key))  # before they are read: what changes meanwhile is new
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(certificate, key, password=lambda: b"")  # never ask a terminal
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        if reason == "KEY_VALUES_MISMATCH":
            reason = "it belongs to another certificate"
        raise _fault(f"the key in {key!r} does not fit {certificate!r}: {reason}") from None
    leaf = _leaf(certificate)
    files = (certificate, key)
    return Certificate(files, stamp, _names(leaf), leaf.not_valid_after_utc, context)


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
    data = _content(file)
    try:
        return x509.load_pem_x509_certificates(data)[0]
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
    is spoken (RFC 7301).
    """

    context: ssl.SSLContext

    def __init__(
        self, certificates: Sequence[Certificate], min_version: str, protocols: Sequence[str]
    ) -> None:
        self._min_version = VERSIONS[min_version]
        self._protocols = protocols
        self._use(certificates)

    def _use(self, certificates: Sequence[Certificate]) -> None:
        self._contexts: dict[str, ssl.SSLContext] = {}
        for certificate in certificates:
            certificate.context.minimum_version = self._min_version
            certificate.context.set_alpn_protocols(self._protocols)
            for name in certificate.names:
                self._contexts.setdefault(name, certificate.context)
        self.certificates = tuple(certificates)
        self.context = certificates[0].context
        self.context.sni_callback = self._choose

    def take(self, renewed: Certificate) -> None:
        """Use `renewed` in the place of the one from the same files, from the next handshake on."""
        self._use([renewed if one.files == renewed.files else one for one in self.certificates])

    def context_for(self, name: str) -> ssl.SSLContext:
        """The context for a server name; `*.` stands for one label (RFC 9525, section 6.3)."""
        name = name.lower()
        found = self._contexts.get(name) or self._contexts.get(f"*.{name.partition('.')[2]}")
        return found or self.context

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
