"""Certificates that a policy names: what is taken, what is told, and to whom each is shown."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import PydanticCustomError

from edgeproxy.policy.certificates import ServerNames, check_key, load_pair
from tests.certificates import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.in_folder(tmp_path, "authority")


def test_the_names_are_those_in_the_certificate(tmp_path: Path, authority: Authority) -> None:
    files = authority.sign(tmp_path, "one", "One.example", "*.two.example", "127.0.0.1")
    loaded = load_pair(str(files.certificate), str(files.key))
    assert loaded.names == ("one.example", "*.two.example")


def test_a_chain_is_served_whole_and_the_first_is_the_own(
    tmp_path: Path, authority: Authority
) -> None:
    files = authority.sign(tmp_path, "one", "one.example")
    files.certificate.write_text(files.certificate.read_text() + authority.file.read_text())
    assert load_pair(str(files.certificate), str(files.key)).names == ("one.example",)


def test_a_key_of_another_certificate_is_refused(tmp_path: Path, authority: Authority) -> None:
    one, two = (authority.sign(tmp_path, stem, f"{stem}.example") for stem in ("one", "two"))
    with pytest.raises(PydanticCustomError, match=r"does not fit .*belongs to another certificate"):
        load_pair(str(one.certificate), str(two.key))


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked(
    tmp_path: Path, authority: Authority
) -> None:
    files = authority.sign(tmp_path, "one", "one.example")
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "pkey", "-aes256", "-passout", "pass:secret", "-in", files.key, "-out", locked],
        check=True,
    )
    with pytest.raises(PydanticCustomError, match=r"has a passphrase.*openssl pkey -in KEY"):
        check_key(str(locked))
    with pytest.raises(PydanticCustomError, match="does not fit"):
        load_pair(str(files.certificate), str(locked))


def test_the_first_certificate_with_a_name_serves_it(tmp_path: Path, authority: Authority) -> None:
    loaded = [
        load_pair(*map(str, authority.sign(tmp_path, stem, *names)))
        for stem, *names in (
            ("one", "one.example"),
            ("two", "one.example", "*.two.example"),
            ("three", "a.two.example"),
        )
    ]
    names = ServerNames(loaded, "1.2", ["http/1.1"])
    one, two, three = (each.context for each in loaded)
    for name, context in {
        "one.example": one, "ONE.example": one, "b.two.example": two, "a.two.example": three,
        "two.example": one, "b.b.two.example": one, "": one, "*.two.example": two,
    }.items():  # fmt: skip
        assert names.context_for(name) is context, name


def test_a_renewed_one_takes_the_place_of_the_old(tmp_path: Path, authority: Authority) -> None:
    files = [authority.sign(tmp_path, stem, f"{stem}.example") for stem in ("one", "two")]
    names = ServerNames([load_pair(*map(str, pair)) for pair in files], "1.3", ["http/1.1"])
    authority.sign(tmp_path, "one", "one.example", "new.example")
    renewed = load_pair(*map(str, files[0]))
    names.take(renewed)
    assert names.certificates[0] is renewed
    assert names.context is renewed.context is names.context_for("new.example")
    assert renewed.context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert names.context_for("two.example") is names.certificates[1].context


def test_one_that_ends_soon_is_told(tmp_path: Path, authority: Authority, caplog: Any) -> None:
    pairs = [
        authority.sign(tmp_path, "past", "past.example", from_days=-9, until_days=-1),
        authority.sign(tmp_path, "soon", "soon.example", until_days=5),
        authority.sign(tmp_path, "later", "later.example", until_days=50),
    ]
    ServerNames([load_pair(*map(str, pair)) for pair in pairs], "1.2", ["http/1.1"]).warn_of_ends()
    past, soon = caplog.messages
    assert past.startswith("the certificate for past.example ended on ")
    assert soon.startswith("the certificate for soon.example ends on ")
