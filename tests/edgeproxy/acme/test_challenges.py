"""Proofs: there while an authority is to see them, for it alone, and for nothing else."""

from __future__ import annotations

import contextlib
import hashlib
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeproxy.acme.challenges import HTTP_PATH, TLS_PROTOCOL, Challenges

TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ"


def test_a_token_is_answered_while_the_proof_lasts(tmp_path: Path) -> None:
    challenges, target = Challenges(tmp_path), HTTP_PATH + TOKEN.encode()
    assert challenges.http(b"GET", target) is None
    with challenges.http_proof(TOKEN, f"{TOKEN}.thumbprint"):
        assert challenges.http(b"GET", target) == f"{TOKEN}.thumbprint".encode()
        assert challenges.http(b"POST", target) is None
        assert (tmp_path / "http" / TOKEN).stat().st_mode & 0o777 == 0o600
    assert challenges.http(b"GET", target) is None
    assert list(tmp_path.iterdir()) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60) | st.sampled_from([b"../secret", b"..%2fsecret", b"secret\x00"]))
def test_no_other_file_is_ever_read(tmp_path: Path, rest: bytes) -> None:
    (tmp_path / "secret").write_text("secret")
    challenges = Challenges(tmp_path)
    with challenges.http_proof(TOKEN, "proof"):
        for target in (rest, HTTP_PATH + rest, HTTP_PATH + b"../" + rest):
            found = challenges.http(b"GET", target)
            assert found is None or target == HTTP_PATH + TOKEN.encode()


@pytest.mark.parametrize("token", ["../../account", "a/b" * 9, "", "short", "x" * 600])
def test_a_token_that_is_no_token_is_refused(token: str, tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="not one that can be served"),
        Challenges(tmp_path).http_proof(token, "proof"),
    ):
        pass


def test_a_handshake_shows_what_was_to_be_proved(tmp_path: Path) -> None:
    """RFC 8737, section 3."""
    challenges = Challenges(tmp_path)
    assert not challenges.has_tls
    with challenges.tls_proof("one.example", "authorization"):
        assert challenges.has_tls
        assert challenges.tls("two.example") is None
        assert challenges.tls("../../etc") is None
        context = challenges.tls("one.example")
        assert context is not None
        leaf = x509.load_der_x509_certificate(presented(context))
    assert not challenges.has_tls
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["one.example"]
    proof = leaf.extensions.get_extension_for_oid(x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31"))
    assert proof.critical
    assert isinstance(proof.value, x509.UnrecognizedExtension)
    digest = hashlib.sha256(b"authorization").digest()
    assert proof.value.value == b"\x04\x20" + digest


def presented(context: ssl.SSLContext) -> bytes:
    """The certificate that a client of the authority sees, in memory."""
    client = ssl.create_default_context()
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.set_alpn_protocols([TLS_PROTOCOL])
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(down, up, server_hostname="one.example")
    far = context.wrap_bio(up, down, server_side=True)
    for handshake in (near.do_handshake, far.do_handshake, near.do_handshake, far.do_handshake):
        attempt(handshake)
    assert near.selected_alpn_protocol() == TLS_PROTOCOL
    shown = near.getpeercert(binary_form=True)
    assert shown is not None
    return shown


def attempt(handshake: Callable[[], None]) -> None:
    with contextlib.suppress(ssl.SSLWantReadError):
        handshake()


def test_what_a_dead_process_has_left_goes(tmp_path: Path) -> None:
    challenges = Challenges(tmp_path)
    for folder in ("http", "tls"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / TOKEN).write_text("left")
    challenges.clear()
    assert list(tmp_path.iterdir()) == []
    challenges.clear()
