"""Each check says ok where all is well, and what is wrong, why and how to mend it where not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest

from edgeproxy.claims import DataFile, Folder
from edgeproxy.doctor import CHECKS
from edgeproxy.doctor.verdict import Verdict
from edgeproxy.doctor.view import AcmeName, Asked, FolderSeen, KeyFile, Memory, Port, View
from edgeproxy.http import Headers, Origin
from edgeproxy.policy.load import parse
from edgeproxy.policy.policy import Policy
from tests.certificates import Authority

NOW = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
GIB, MIB = 2**30, 2**20

POLICY = """\
version: 1
origins: {pages: {url: "https://you.github.io/project/"}}
"""
BY_COUNTRY = POLICY + "routes: [{name: all, match: {country: DE}}, {name: rest}]\n"


def view(text: str = "", **seen: object) -> View:
    policy: Policy | None = parse(text, "site.yaml") if text else None
    return replace(View(NOW, user="edge", policy=policy), **seen)  # type: ignore[arg-type]


def verdicts(name: str, seen: View) -> list[Verdict]:
    (check,) = [check for check in CHECKS if check.name == name]
    return check.verdicts(seen)


def verdict(name: str, seen: View) -> Verdict:
    (found,) = verdicts(name, seen)
    return found


def told(name: str, seen: View) -> tuple[str, str]:
    found = verdict(name, seen)
    assert found.why
    assert bool(found.mend) == (found.state != "ok")
    return found.state, found.says


def test_names_of_checks_are_their_own() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)


def test_a_verdict_says_why_and_how_to_mend_it_unless_it_is_ok() -> None:
    bad = verdict("packages", view(packages={"aiohttp": ""}))
    assert str(bad).splitlines() == [
        "fault    packages: aiohttp cannot be found",
        "         why:  edgeproxy cannot start without the packages that it is made of",
        "         mend: install again: pip install --force-reinstall edgeproxy",
    ]
    good = verdict("packages", view(python="3.13.0", packages={"aiohttp": "3.14"}))
    assert str(good) == "ok       packages: Python 3.13.0; aiohttp 3.14"


# ------------------------------------------------------------------- the machine


def test_plugins_that_cannot_be_loaded_are_named() -> None:
    assert verdicts("plugin", view()) == []
    found = verdict("plugin", view(broken_plugins={"acme": "it needs foo"}))
    assert (found.state, found.subject, found.says) == ("warning", "acme", "it needs foo")


def test_root_is_a_warning() -> None:
    assert told("user", view()) == ("ok", "this is edge")
    assert told("user", view(is_root=True))[0] == "warning"


def test_descriptors_are_enough_for_clients_and_origins() -> None:
    assert verdicts("descriptors", view()) == []  # not known
    assert told("descriptors", view(POLICY, descriptors=4096 + 64 + 128))[0] == "ok"
    state, says = told("descriptors", view(POLICY, descriptors=1024))
    assert state == "warning"
    assert "may open 1024 files" in says
    assert "may take 4288" in says
    few = f"{POLICY}limits: {{connections: 500}}\n"
    assert told("descriptors", view(few, descriptors=1024))[0] == "ok"


@pytest.mark.parametrize(
    ("total", "free", "state"),
    [(8 * GIB, 4 * GIB, "ok"), (8 * GIB, GIB // 2, "warning"), (GIB // 2, GIB // 2, "fault")],
)
def test_memory_holds_caches_and_bodies(total: int, free: int, state: str) -> None:
    text = f"{POLICY}cache: {{memory: {{max_size: 256MiB}}}}\n"
    seen = view(text, memory=Memory(total, free))
    assert told("memory", seen)[0] == state
    assert (
        "622MiB (edgeproxy 110MiB, limits.body_memory 256MiB, cache.memory 256MiB)"
        in (told("memory", seen)[1])
    )


def test_every_worker_has_memory_of_its_own() -> None:
    four = f"{POLICY}workers: 4\n"
    found = told("memory", view(four, memory=Memory(GIB, GIB)))
    assert found[0] == "fault"
    assert "each of 4 workers" in found[1]
    many = f"{POLICY}workers: auto\n"
    assert "each of 3 workers" in told("memory", view(many, memory=Memory(GIB, GIB), cores=3))[1]


CACHE = Folder("disk cache", Path("/var/cache/edge"), 10 * GIB)


@pytest.mark.parametrize(
    ("seen", "state", "says"),
    [
        (FolderSeen(CACHE, free_bytes=20 * GIB), "ok", "may grow by 10GiB, and 20GiB"),
        (FolderSeen(CACHE, free_bytes=GIB, used_bytes=9 * GIB), "ok", "may grow by 1GiB"),
        (FolderSeen(CACHE, free_bytes=GIB, used_bytes=11 * GIB), "ok", "may grow by 0B"),
        (FolderSeen(CACHE, free_bytes=GIB), "warning", "may grow by 10GiB, and 1GiB"),
        (FolderSeen(CACHE, owner="www-data"), "fault", "belongs to www-data, and this is edge"),
        (FolderSeen(CACHE, others_write=True), "fault", "others could write into it"),
        (FolderSeen(CACHE, is_writable=False), "fault", "it cannot be written to by edge"),
        (FolderSeen(CACHE, exists=False, is_writable=False), "fault", "the folder above"),
        (FolderSeen(CACHE, is_folder=False), "fault", "not a folder"),
        (FolderSeen(CACHE, exists=False, owner="root", others_write=True, free_bytes=20 * GIB),
         "ok", "may grow"),
        (FolderSeen(Folder("state", Path("/s")), free_bytes=GIB), "ok", "1GiB are free"),
    ],
)  # fmt: skip
def test_folders_can_be_written_and_have_room(seen: FolderSeen, state: str, says: str) -> None:
    found = verdict("folder", view(folders=(seen,)))
    assert found.state == state
    assert says in found.says
    assert found.subject.startswith(str(seen.folder.path))


@pytest.mark.parametrize(("days", "state"), [(30, "ok"), (300, "warning"), (900, "fault")])
def test_data_goes_out_of_date(days: int, state: str) -> None:
    file = DataFile("geo.database", Path("/x/city.mmdb"), NOW - timedelta(days=days))
    found = told("data", view(data_files=(file,)))
    assert found == (state, f"its data is {days} days old, of {file.built:%Y-%m-%d}")


# ------------------------------------------------------------------- where clients come in


@pytest.mark.parametrize(
    ("port", "state", "says", "mend"),
    [
        (Port("0.0.0.0:80", "HTTP"), "ok", "it is free", ""),
        (Port("0.0.0.0:80", "HTTP", is_taken=True, holder="nginx (process 8)"),
         "fault", "in use by nginx (process 8)", "another address with --listen"),
        (Port("0.0.0.0:443", "HTTPS", is_taken=True),
         "fault", "in use by another program", "with --listen-tls"),
        (Port("0.0.0.0:443", "HTTP/3", is_taken=True), "fault", "in use", "with --listen-tls"),
        (Port("127.0.0.1:8079", "admin", is_taken=True), "fault", "in use", "with admin.listen"),
        (Port("0.0.0.0:80", "HTTP", is_taken=True, holder="edgeproxy (process 9)", is_ours=True),
         "ok", "edgeproxy (process 9) serves there now", ""),
        (Port("0.0.0.0:80", "HTTP", is_denied=True), "fault", "below 1024", "let systemd open it"),
        (Port("192.0.2.1:80", "HTTP", trouble="Cannot assign requested address"),
         "fault", "Cannot assign requested address", "an address that this machine has"),
    ],
)  # fmt: skip
def test_ports_can_be_had(port: Port, state: str, says: str, mend: str) -> None:
    found = verdict("port", view(ports=(port,)))
    assert (found.state, found.subject) == (state, f"{port.address} ({port.use})")
    assert says in found.says
    assert mend in found.mend


def with_certificate(folder: Path, *names: str, days: int, hosts: Mapping[str, str] = {}) -> View:
    pair = Authority.in_folder(folder, "ca").sign(folder, "site", *names, until_days=days)
    lines = [
        POLICY,
        f"tls: {{certificates: [{{certificate: {pair.certificate}, key: {pair.key}}}]}}\n",
        "routes:\n",
        *(f"  - {{name: {name}, match: {{host: '{host}'}}}}\n" for name, host in hosts.items()),
        "  - {name: rest}\n",
    ]
    return replace(view("".join(lines)), now=datetime.now(UTC))


@pytest.mark.parametrize(
    ("days", "state", "says"), [(60, "ok", "in 59 days"), (9, "warning", "in 8 days")]
)
def test_certificates_last(tmp_path: Path, days: int, state: str, says: str) -> None:
    found = told("certificate", with_certificate(tmp_path, "www.example.org", days=days))
    assert found[0] == state
    assert says in found[1]


def test_a_certificate_that_has_ended_or_names_nobody_is_a_fault(tmp_path: Path) -> None:
    seen = with_certificate(tmp_path, "www.example.org", days=20)
    late = replace(seen, now=datetime.now(UTC) + timedelta(days=21))
    assert told("certificate", late)[0] == "fault"
    assert verdict("certificate", late).says.startswith("it ended on ")
    assert told("certificate", with_certificate(tmp_path, days=60))[0] == "fault"


def test_hosts_of_the_policy_have_certificates(tmp_path: Path) -> None:
    hosts = {"a": "www.example.org", "b": "*.example.net", "c": "shop.example.com"}
    names = ["www.example.org", "*.example.net", "*.example.com"]
    seen = with_certificate(tmp_path, *names, days=60, hosts=hosts)
    assert told("name", seen)[0] == "ok"
    seen = with_certificate(tmp_path, *names[:2], days=60, hosts=hosts)
    found = verdict("name", seen)
    assert (found.state, found.subject) == ("warning", "shop.example.com")
    assert verdicts("name", view(POLICY)) == []


ACME = """\
state: {{path: /var/lib/edgeproxy}}
tls: {{acme: {{names: [www.example.org], agree_terms: true, directory: {}, challenge: {}}}}}
routes: [{{name: site, match: {{host: www.example.org}}}}]
"""
PUBLIC_TLS = (Port("0.0.0.0:80", "HTTP"), Port("0.0.0.0:443", "HTTPS"))
NAME = AcmeName("www.example.org", NOW + timedelta(days=60), ("192.0.2.7",), is_here=True)


def by_acme(
    *names: AcmeName, directory: str = "production", challenge: str = "http-01",
    ports: tuple[Port, ...] = PUBLIC_TLS,
) -> View:  # fmt: skip
    text = POLICY + ACME.format(directory, challenge)
    return view(text, acme_names=names or (NAME,), ports=ports)


def test_certificates_of_acme_last_and_have_the_hosts_of_the_policy() -> None:
    assert told("certificate", by_acme())[0] == "ok"
    assert told("name", by_acme())[0] == "ok"
    late = replace(NAME, not_after=NOW + timedelta(days=5))
    assert told("certificate", by_acme(late))[0] == "warning"
    none_yet = told("certificate", by_acme(replace(NAME, not_after=None)))
    assert none_yet == ("ok", "there is none yet; it is asked for once edgeproxy serves")


@pytest.mark.parametrize(
    ("seen", "state", "says"),
    [
        (by_acme(), "ok", "it leads here: 192.0.2.7"),
        (by_acme(replace(NAME, is_here=False)), "warning", "which is not this machine's"),
        (by_acme(replace(NAME, addresses=())), "fault", "no address is found"),
        (by_acme(replace(NAME, addresses=None), directory="staging"), "warning", "of staging"),
        (by_acme(replace(NAME, addresses=None), ports=PUBLIC_TLS[1:]), "warning",
         "http-01 comes to port 80"),
        (by_acme(replace(NAME, addresses=None), ports=PUBLIC_TLS[:1], challenge="tls-alpn-01"),
         "warning", "tls-alpn-01 comes to port 443"),
    ],
)  # fmt: skip
def test_names_can_be_reached_by_the_authority(seen: View, state: str, says: str) -> None:
    found = told("acme", seen)
    assert found[0] == state
    assert says in found[1]


def test_sockets_of_systemd_may_be_on_any_port() -> None:
    assert verdicts("acme", by_acme(replace(NAME, addresses=None), ports=())) == []
    assert verdicts("acme", view(POLICY)) == []


def test_keys_are_read_by_nobody_else() -> None:
    assert told("key", view(key_files=(KeyFile("/k"),)))[0] == "ok"
    found = verdict("key", view(key_files=(KeyFile("/k", others_read=True),)))
    assert (found.state, found.mend) == ("warning", "chmod o-r /k")


LOCAL = (Port("127.0.0.1:8080", "HTTP"), Port("127.0.0.1:8079", "admin"))
PUBLIC = (Port("0.0.0.0:80", "HTTP"),)


def trusting(*networks: str) -> str:
    return f"{BY_COUNTRY}trusted_proxies: [{', '.join(networks)}]\n"


@pytest.mark.parametrize(
    ("text", "ports", "state", "says"),
    [
        (BY_COUNTRY, PUBLIC, "ok", "nobody is believed"),
        (BY_COUNTRY, LOCAL, "warning", "seem to come from 127.0.0.1"),
        (BY_COUNTRY, (Port("unix:/run/e.sock", "HTTP"),), "warning", "seem to come from 127.0.0.1"),
        (POLICY, LOCAL, "ok", "nobody is believed"),  # it does not matter to that policy
        (trusting("127.0.0.1/32"), LOCAL, "ok", "believed are 127.0.0.1/32"),
        (trusting("104.16.0.0/13", "2400:cb00::/32"), PUBLIC, "ok", "believed are 104.16.0.0/13"),
        (trusting("10.0.0.0/8"), PUBLIC, "ok", "believed are 10.0.0.0/8"),
        (trusting("96.0.0.0/4"), PUBLIC, "warning", "a large part of the internet"),
        (trusting("0.0.0.0/0"), PUBLIC, "fault", "everybody is believed"),
    ],
)
def test_who_is_trusted_is_plausible(
    text: str, ports: tuple[Port, ...], state: str, says: str
) -> None:
    found = told("trusted_proxies", view(text, ports=ports))
    assert found[0] == state
    assert says in found[1]


def admin(tmp_path: Path, token: str, more: str = "") -> View:
    (tmp_path / "token").write_text(token)
    return view(f"{POLICY}admin: {{token: '${{file:{tmp_path}/token}}'{more}}}\n")


def test_the_token_of_the_admin_listener_is_long(tmp_path: Path) -> None:
    assert verdicts("admin", view(POLICY)) == []
    assert told("admin", admin(tmp_path, "0123456789abcdef" * 4))[0] == "ok"
    for weak in ("0123456789abcdef", "ab" * 32):
        found = verdict("admin", admin(tmp_path, weak))
        assert found.state == "warning"
        assert weak not in str(found)


def test_an_admin_listener_for_other_machines_is_a_warning(tmp_path: Path) -> None:
    more = ", listen: '0.0.0.0:8079', allow_remote: true"
    states = [one.state for one in verdicts("admin", admin(tmp_path, "0123456789abcdef" * 4, more))]
    assert states == ["ok", "warning"]


# ------------------------------------------------------------------- origins

PAGES = Headers.of(("server", "GitHub.com"), ("date", "Sun, 01 Mar 2026 09:30:00 GMT"))
ORIGIN = Origin("pages", "https", "you.github.io", 443, "/project/")
GOOD = Asked(ORIGIN, ("185.199.108.153",), status=200, headers=PAGES, took_s=0.04, at=NOW,
             plain_status=301)  # fmt: skip


def test_a_good_origin_is_ok_in_all_that_is_looked_at() -> None:
    seen = view(POLICY, origins=(GOOD,))
    states = {name: told(name, seen)[0] for name in ("dns", "origin", "pages", "clock")}
    assert set(states.values()) == {"ok"}
    assert told("dns", seen)[1] == "185.199.108.153"
    assert told("origin", seen)[1] == "it answers 200 in 40 ms"


def test_a_name_that_leads_nowhere_is_told_once() -> None:
    seen = view(POLICY, origins=(Asked(ORIGIN),))
    assert told("dns", seen)[0] == "fault"
    assert [verdicts(name, seen) for name in ("origin", "pages", "clock")] == [[], [], []]


def test_an_origin_that_leads_back_here_is_a_fault() -> None:
    here = Asked(replace(ORIGIN, port=80), ("192.0.2.7",), is_here=True, status=200)
    assert told("dns", view(POLICY, origins=(here,), ports=PUBLIC))[0] == "fault"
    assert told("dns", view(POLICY, origins=(here,), ports=LOCAL))[0] == "ok"  # another port


def test_what_is_wrong_with_an_answer_is_told() -> None:
    bad = replace(GOOD, status=301, trouble="it redirects to www.example.org, which loops")
    assert told("origin", view(origins=(bad,))) == ("fault", bad.trouble)
    assert verdicts("pages", view(origins=(bad,))) == []
    slow = replace(GOOD, took_s=3.2)
    assert told("origin", view(origins=(slow,))) == ("warning", "it took 3.2 s to answer 200")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (replace(GOOD, origin=replace(ORIGIN, static=False)), "treated as an app"),
        (replace(GOOD, origin=replace(ORIGIN, scheme="http", port=80)), "asked without TLS"),
        (replace(GOOD, plain_status=200), "shows the site without TLS"),
    ],
)
def test_settings_of_pages_are_looked_at(asked: Asked, says: str) -> None:
    found = told("pages", view(origins=(asked,)))
    assert found[0] == "warning"
    assert says in found[1]


def test_other_hosts_are_not_judged_as_pages() -> None:
    other = replace(GOOD, headers=Headers.of(("server", "nginx")))
    assert verdicts("pages", view(origins=(other,))) == []
    by_id = replace(GOOD, headers=Headers.of(("x-github-request-id", "B0E4:32E0")))
    assert told("pages", view(origins=(by_id,)))[0] == "ok"


@pytest.mark.parametrize(
    ("off_s", "state", "says"),
    [(0, "ok", "agrees"), (-3, "ok", "agrees"), (60, "warning", "60 s ahead of"),
     (-90, "warning", "90 s behind"), (86400, "fault", "86400 s ahead of")],
)  # fmt: skip
def test_the_clock_is_compared_with_that_of_the_origin(off_s: int, state: str, says: str) -> None:
    asked = replace(GOOD, at=NOW + timedelta(seconds=off_s))
    found = told("clock", view(origins=(asked,)))
    assert found[0] == state
    assert says in found[1]


@pytest.mark.parametrize("date", ["", "yesterday", "Sun, 01 Mar 2026 09:30:00 -0000"])
def test_an_origin_without_a_good_date_says_nothing_of_the_clock(date: str) -> None:
    asked = replace(GOOD, headers=Headers.of(("date", date)) if date else Headers())
    assert verdicts("clock", view(origins=(asked,))) == []


def test_networks_of_large_operators_are_not_too_wide() -> None:
    """Of what Cloudflare and Fastly publish, the widest of each family."""
    for network in ("172.64.0.0/13", "104.16.0.0/13", "2a06:98c0::/29", "151.101.0.0/16"):
        assert ip_network(network)
        assert told("trusted_proxies", view(trusting(network), ports=PUBLIC))[0] == "ok"
