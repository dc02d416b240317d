"""Row 20, over TLS: an origin that cannot prove its name is no origin."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from edgeproxy.testing import running
from tests.certificates import Authority
from tests.threats.raw import Origin, ask


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
