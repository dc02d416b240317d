"""The authority for development: what it signs, for whom, and who may read its key."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from edgeproxy.devcert.authority import BadName, DevAuthority, Pair

NAMES = ("localhost", "shop.test", "*.shop.test", "127.0.0.1", "::1", "192.168.1.20")


def verified(authority: Path, certificate: Path, *options: str) -> str:
    """What `openssl verify` says."""
    done = subprocess.run(
        ["openssl", "verify", "-CAfile", authority, "-x509_strict", *options, certificate],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_what_it_signs_is_good_for_all_names(tmp_path: Path) -> None:
    authority = DevAuthority(tmp_path / "dev")
    pair = authority.sign(NAMES)
    leaf = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
    found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert found.get_values_for_type(x509.DNSName) == ["localhost", "shop.test", "*.shop.test"]
    addresses = [ip_address(text) for text in ("127.0.0.1", "::1", "192.168.1.20")]
    assert found.get_values_for_type(x509.IPAddress) == addresses
    for check in (("-verify_hostname", "a.shop.test"), ("-verify_ip", "::1")):
        assert ": OK" in verified(authority.certificate, pair.certificate, *check)


def test_only_its_user_can_read_keys_and_nothing_else_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "dev"
    pair = DevAuthority(folder).sign(["localhost"])
    assert folder.stat().st_mode & 0o777 == 0o700
    modes = {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}
    assert modes == {"authority.pem": 0o644, "authority.key": 0o600,
                     "localhost.pem": 0o644, "localhost.key": 0o600}  # fmt: skip
    assert pair == Pair(folder / "localhost.pem", folder / "localhost.key")


def test_the_authority_is_made_once_and_certificates_anew(tmp_path: Path) -> None:
    authority = DevAuthority(tmp_path)
    first = authority.sign(["localhost"])
    own, leaf = authority.certificate.read_bytes(), first.certificate.read_bytes()
    again = DevAuthority(tmp_path).sign(["localhost"])
    assert authority.certificate.read_bytes() == own
    assert again == first
    assert first.certificate.read_bytes() != leaf
    assert ": OK" in verified(authority.certificate, first.certificate)


def test_a_certificate_lasts_no_longer_than_browsers_take(tmp_path: Path) -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    pair = DevAuthority(tmp_path).sign(["localhost"], now)
    leaf = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
    assert leaf.not_valid_before_utc < now
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc < timedelta(days=398)


@pytest.mark.parametrize(
    "name", ["www.example.org", "test.example.com", "8.8.8.8", "2606:4700::1", "mytest", "*.com"]
)
def test_it_signs_nothing_for_names_that_may_be_somebodys(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadName, match=r"somebody's|not an address of a private network"):
        DevAuthority(tmp_path).sign(["localhost", name])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["www.bank.example.org", "notlocalhost"])
def test_who_steals_its_key_cannot_pass_for_others(name: str, tmp_path: Path) -> None:
    """It is the certificate of the authority itself that forbids it."""
    authority = DevAuthority(tmp_path)
    pair = authority.sign(["localhost"])
    stolen = load_pem_private_key((tmp_path / "authority.key").read_bytes(), None)
    assert isinstance(stolen, ec.EllipticCurvePrivateKey)
    issuer = x509.load_pem_x509_certificate(authority.certificate.read_bytes())
    leaf = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
    forged = (
        x509.CertificateBuilder(
            issuer_name=issuer.subject, subject_name=leaf.subject, public_key=leaf.public_key(),
            serial_number=1, not_valid_before=leaf.not_valid_before_utc,
            not_valid_after=leaf.not_valid_after_utc,
        )
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(stolen.public_key()),
            critical=False,
        )
        .sign(stolen, hashes.SHA256())
    )  # fmt: skip
    file = tmp_path / "forged.pem"
    file.write_bytes(forged.public_bytes(Encoding.PEM))
    assert "permitted subtree violation" in verified(authority.certificate, file)
