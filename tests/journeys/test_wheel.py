"""What `pip install edgeproxy` gives: the command, every first-party plugin, the database."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from tests.packaged import ROOT, environment, running


def test_the_command_is_there_and_tells_its_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    made = environment()
    done = made.run("edgeproxy", "--version")
    assert done.stdout == f"edgeproxy {project['version']}\n"
    assert made.run("python", "-m", "edgeproxy", "--version").stdout == done.stdout


def test_every_first_party_plugin_is_listed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = environment().run("edgeproxy", "plugins").stdout
    entries = dict(re.findall(r"^(\w+)  \(edgeproxy\b[^-].*\n((?: .*\n)*)", listed, re.M))
    assert set(entries) == set(project["entry-points"]["edgeproxy"])
    assert [name for name, adds in entries.items() if "cannot be loaded" in adds] == []


def test_nothing_of_the_checkout_is_used() -> None:
    done = environment().run("python", "-c", "import edgeproxy; print(edgeproxy.__file__)")
    assert Path(done.stdout.strip()).is_relative_to(environment().folder)


def test_geo_works_with_the_default_database(tmp_path: Path) -> None:
    (tmp_path / "geo.yaml").write_text(
        """
        version: 1
        trusted_proxies: [127.0.0.1/32]
        routes:
          - name: france
            match: {country: FR}
            redirect: /fr/
          - name: others
            respond: {body: "hello from elsewhere"}
        """
    )
    with running("geo.yaml", cwd=tmp_path) as proxy:
        french = proxy.get("/", {"X-Forwarded-For": "193.51.208.13"})
        assert (french.status, french.headers["location"]) == (302, "/fr/")
        assert proxy.get("/").body == "hello from elsewhere"


def test_without_its_extra_acme_says_what_to_install(tmp_path: Path) -> None:
    policy = tmp_path / "acme.yaml"
    policy.write_text(
        """
        version: 1
        origins: {site: {url: "https://you.github.io/"}}
        state: {path: state}
        tls: {acme: {names: [www.example.org], agree_terms: true}}
        """
    )
    done = environment().run("edgeproxy", "check", policy)
    assert done.returncode == 2
    wanted = "tls.acme needs acme, which is not installed; run: pip install 'edgeproxy[acme]'"
    assert f"acme.yaml:5:21: {wanted} [missing-extra]" in done.stdout + done.stderr
