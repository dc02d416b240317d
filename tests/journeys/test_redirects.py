"""An origin's redirects: repaired where they leave the public name, refused where they loop."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.pages import Pages
from edgeproxy.testing import running

POLICY = """\
version: 1
origins:
  site: {url: "https://example.github.io/"}
routes:
  - {name: site}
"""

HTTP_ORIGIN = POLICY.replace('io/"}', 'io/", kind: http}')


async def test_a_custom_domain_that_is_the_public_name_is_a_loop(make_site: Any) -> None:
    root = make_site(index="home", guide="guide")
    async with (
        Pages(root, host="127.0.0.1", domain="www.example.org") as site,
        running(POLICY, origins={"site": site.url}) as proxy,
    ):
        for target in ("/", "/guide", "/guide?x=1"):
            reply = await proxy.get(target, headers={"host": "www.example.org"})
            assert reply.status == 502, target
            assert "location" not in reply.headers
            assert 'error=proxy_loop_detected; next-hop="site"' in reply.headers["proxy-status"]
            assert reply.headers["cache-control"] == "no-store"
            said = proxy.log[-1]["error"]
            assert "www.example.org" in said
            assert "remove that custom domain" in said
            assert "origin.www.example.org" in said
        assert proxy.log[-1]["status"] == 502


async def test_the_loop_is_seen_on_a_project_site_too(make_site: Any) -> None:
    root = make_site(index="home", guide="guide")
    async with (
        Pages(root, base="/docs/", host="127.0.0.1", domain="www.example.org") as site,
        running(POLICY, origins={"site": site.url}) as proxy,
    ):
        reply = await proxy.get("/guide", headers={"host": "WWW.Example.org:80"})
        assert reply.status == 502
        assert "proxy_loop_detected" in reply.headers["proxy-status"]


async def test_another_name_for_the_same_site_is_a_redirect_and_not_a_loop(make_site: Any) -> None:
    root = make_site(index="home", guide="guide")
    async with (
        Pages(root, host="127.0.0.1", domain="www.example.org") as site,
        running(POLICY, origins={"site": site.url}) as proxy,
    ):
        reply = await proxy.get("/guide", headers={"host": "mirror.example.net"})
        assert reply.status == 301
        assert reply.headers["location"] == "http://www.example.org/guide"


async def test_an_http_origin_that_insists_on_https_is_a_loop(make_site: Any) -> None:
    async with (
        Pages(make_site(index="home"), enforce_https=True) as site,
        running(POLICY, origins={"site": site.url}) as proxy,
    ):
        reply = await proxy.get("/")
        assert reply.status == 502
        assert "proxy_loop_detected" in reply.headers["proxy-status"]
        assert "write its url as https://127.0.0.1" in proxy.log[-1]["error"]


async def test_a_loop_has_the_page_that_the_policy_gives_to_failures(make_site: Any) -> None:
    policy = POLICY.replace("{name: site}", '{name: site, error_page: {body: "back soon"}}')
    async with (
        Pages(make_site(index="home"), enforce_https=True) as site,
        running(policy, origins={"site": site.url}) as proxy,
    ):
        reply = await proxy.get("/")
        assert (reply.status, reply.body) == (503, b"back soon")
        assert "it redirects to https" in proxy.log[-1]["error"]


def redirect(location: str, status: int = 301) -> bytes:
    return f"HTTP/1.1 {status} X\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("base", "location", "expected"),
    [
        # The origin's own name, in every spelling, becomes the public one.
        ("", "http://ORIGIN/next/", "http://PUBLIC/next/"),
        ("", "https://HOST/next/?a=b&c", "http://PUBLIC/next/?a=b&c"),
        ("", "https://HOST:443/next/#part", "http://PUBLIC/next/#part"),
        ("", "http://HOST:80/next/", "http://PUBLIC/next/"),
        ("", "//ORIGIN/next/", "http://PUBLIC/next/"),
        ("", "http://ORIGIN", "http://PUBLIC/"),
        # Without the base path.
        ("project/", "http://ORIGIN/project/next/", "http://PUBLIC/next/"),
        ("project/", "http://ORIGIN/project/", "http://PUBLIC/"),
        ("project/", "http://ORIGIN/project", "http://PUBLIC/"),
        ("project/", "http://ORIGIN/projects/", "http://PUBLIC/projects/"),
        ("project/", "/project/next/?a=b", "/next/?a=b"),
        # What is relative stays relative.
        ("", "/next/", "/next/"),
        ("", "next/", "next/"),
        ("", "?page=2", "?page=2"),
        # Other places are left alone.
        ("", "https://other.example/next/", "https://other.example/next/"),
        ("project/", "https://other.example/project/", "https://other.example/project/"),
        ("", "http://HOST:1/next/", "http://HOST:1/next/"),
        ("", "http://x.HOST/next/", "http://x.HOST/next/"),
        ("", "mailto:me@example.org", "mailto:me@example.org"),
        ("", "http://[bad/", "http://[bad/"),
        # A path can never turn into the name of another host.
        ("project/", "/project//evil.example/", "/evil.example/"),
        ("project/", "http://ORIGIN/project//evil.example/", "http://PUBLIC/evil.example/"),
    ],
)
@pytest.mark.parametrize("policy", [POLICY, HTTP_ORIGIN], ids=["pages", "http"])
async def test_location_is_repaired(
    raw_origin: Any, policy: str, base: str, location: str, expected: str
) -> None:
    async with raw_origin() as origin:
        name = origin.url.removeprefix("http://").rstrip("/")

        def filled(text: str) -> str:
            return text.replace("ORIGIN", name).replace("HOST", name.partition(":")[0])

        origin.answers = [redirect(filled(location))]
        async with running(policy, origins={"site": origin.url + base}) as proxy:
            public = "www.example.org:8080"
            reply = await proxy.get("/start/", headers={"host": public})
            assert reply.status == 301
            assert reply.headers["location"] == filled(expected).replace("PUBLIC", public)


async def test_a_stored_redirect_is_repaired_for_the_name_each_visitor_used(
    raw_origin: Any,
) -> None:
    async with raw_origin() as origin:
        origin.answers = [redirect(origin.url + "next/")]
        policy = POLICY.replace("{name: site}", "{name: site, cache: r}").replace(
            "routes:",
            "cache: {memory: {max_size: 1MiB}, rules: {r: {status_ttl: {301: 1h}}}}\nroutes:",
        )
        async with running(policy, origins={"site": origin.url}) as proxy:
            for public in ("one.example", "two.example:81", "one.example"):
                reply = await proxy.get("/start/", headers={"host": public})
                assert reply.headers["location"] == f"http://{public}/next/"
            assert "hit" in reply.cache_status
            assert len(origin.heads) == 1


async def test_an_app_may_redirect_to_itself_with_another_query(raw_origin: Any) -> None:
    async with (
        raw_origin(redirect("http://app.example/login?next=%2F", 302)) as origin,
        running(HTTP_ORIGIN, origins={"site": origin.url}) as proxy,
    ):
        reply = await proxy.get("/login", headers={"host": "app.example"})
        assert reply.status == 302
        assert reply.headers["location"] == "http://app.example/login?next=%2F"


async def test_an_app_may_send_its_visitors_from_http_to_https(raw_origin: Any) -> None:
    async with (
        raw_origin(redirect("https://app.example/login", 308)) as origin,
        running(HTTP_ORIGIN, origins={"site": origin.url}) as proxy,
    ):
        reply = await proxy.get("/login", headers={"host": "app.example"})
        assert reply.status == 308
        assert reply.headers["location"] == "https://app.example/login"


async def test_location_of_a_created_resource_is_no_redirect(raw_origin: Any) -> None:
    created = b"HTTP/1.1 201 Created\r\nLocation: /things/1\r\nContent-Length: 0\r\n\r\n"
    async with (
        raw_origin(created) as origin,
        running(HTTP_ORIGIN, origins={"site": origin.url}) as proxy,
    ):
        reply = await proxy.get("/things", method="POST", data=b"{}")
        assert (reply.status, reply.headers["location"]) == (201, "/things/1")


@pytest.fixture
def authority(tmp_path: Path) -> Callable[[str], tuple[ssl.SSLContext, Path]]:
    """A certificate for a name, and the file of the authority that made it: itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def make(name: str) -> tuple[ssl.SSLContext, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        san: x509.GeneralName = x509.DNSName(name)
        if name[0].isdigit():
            san = x509.IPAddress(ipaddress.ip_address(name))
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([san]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        file = tmp_path / f"{name}.pem"
        file.write_bytes(certificate.public_bytes(pem))
        private = tmp_path / f"{name}.key"
        private.write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file, private)
        return context, file

    return make


async def test_an_https_origin_that_enforces_https_just_answers(
    make_site: Any, authority: Any
) -> None:
    tls, file = authority("localhost")
    policy = POLICY.replace('io/"}', f'io/", ca_file: "{file}"}}')
    async with Pages(make_site(index="home"), enforce_https=True, tls=tls) as site:
        url = f"https://localhost:{site.port}/"
        async with running(policy, origins={"site": url}) as proxy:
            reply = await proxy.get("/", headers={"host": "www.example.org"})
            assert reply.status == 200
            # One name for Host, TLS and verification, and it is the origin's.
            assert site.log[-1].headers["Host"] == f"localhost:{site.port}"
            assert site.log[-1].tls_name == "localhost"


async def test_a_certificate_for_another_name_is_not_taken(make_site: Any, authority: Any) -> None:
    tls, file = authority("www.example.org")
    policy = POLICY.replace('io/"}', f'io/", ca_file: "{file}"}}')
    async with Pages(make_site(index="home"), tls=tls) as site:
        url = f"https://localhost:{site.port}/"
        async with running(policy, origins={"site": url}) as proxy:
            reply = await proxy.get("/", headers={"host": "www.example.org"})
            assert reply.status == 502
            assert "error=tls_certificate_error" in reply.headers["proxy-status"]
            assert not site.log


async def test_a_certificate_of_nobody_is_not_taken(make_site: Any, authority: Any) -> None:
    tls, _ = authority("localhost")
    async with Pages(make_site(index="home"), tls=tls) as site:
        url = f"https://localhost:{site.port}/"
        async with running(POLICY, origins={"site": url}) as proxy:
            reply = await proxy.get("/")
            assert reply.status == 502
            assert "error=tls_certificate_error" in reply.headers["proxy-status"]
