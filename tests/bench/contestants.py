"""The proxies: edgeproxy and its peers, each configured from `peers/` to do the same work."""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.load import Round
from tests.bench.mix import Stream, countries, ranges
from tests.bench.processes import free_port

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BIN = Path(sys.executable).parent
DATABASE = ROOT / "geoip" / "iptoasn-country.mmdb"


@dataclass(frozen=True, slots=True)
class Peer:
    """A kind of proxy. In its files and its command, words between `@` are filled in."""

    name: str
    program: str
    files: tuple[str, ...]
    command: tuple[str, ...]
    version: str = "--version"
    lacks: str = ""  # what it does less of than the others

    @property
    def path(self) -> str | None:
        """Where its program is; None if it is not installed."""
        return shutil.which(self.program, path=f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}")


NGINX_RUN = ("-e", "stderr", "-g", "daemon off;", "-c")
MITM_RUN = ("-q", "--set", "flow_detail=0", "--mode", "reverse:http://@ORIGIN@@127.0.0.1:@PORT@")
EDGE_RUN = ("--listen", "127.0.0.1:@PORT@", "--access-log", "off")
EDGEPROXY = Peer(
    "edgeproxy", "edgeproxy", ("edgeproxy.yaml",), ("run", "@FOLDER@/edgeproxy.yaml", *EDGE_RUN)
)
PEERS = (
    Peer("nginx", "nginx", ("nginx.conf",), (*NGINX_RUN, "@FOLDER@/nginx.conf"), "-v"),
    Peer(
        "varnish",
        "varnishd",
        ("varnish.vcl",),
        (
            *("-F", "-j", "none", "-a", "127.0.0.1:@PORT@", "-f", "@FOLDER@/varnish.vcl"),
            *("-n", "@FOLDER@/varnish", "-s", "malloc,256m", "-p", "http_gzip_support=off"),
        ),
        "-V",
        "it knows no countries",
    ),
    Peer("haproxy", "haproxy", ("haproxy.cfg",), ("-db", "-f", "@FOLDER@/haproxy.cfg"), "-v"),
    Peer(
        "workerd", "workerd", ("workerd.capnp", "workerd.js"), ("serve", "@FOLDER@/workerd.capnp")
    ),
    Peer(
        "mitmproxy",
        "mitmdump",
        ("mitmproxy_script.py",),
        (*MITM_RUN, "-s", "@FOLDER@/mitmproxy_script.py"),
    ),
)
NGINX_PASS = Peer(
    "nginx", "nginx", ("nginx-pass.conf",), (*NGINX_RUN, "@FOLDER@/nginx-pass.conf"), "-v"
)
MITMPROXY_PASS = Peer("mitmproxy", "mitmdump", (), MITM_RUN)
EDGEPROXY_PASS = Peer(
    "edgeproxy",
    "edgeproxy",
    ("edgeproxy-pass.yaml",),
    ("run", "@FOLDER@/edgeproxy-pass.yaml", *EDGE_RUN),
)
EDGEPROXY_CACHE = Peer(
    "edgeproxy",
    "edgeproxy",
    ("edgeproxy-cache.yaml", "token"),
    ("run", "@FOLDER@/edgeproxy-cache.yaml", *EDGE_RUN),
)
EDGEPROXY_SIZE = Peer(
    "edgeproxy",
    "edgeproxy",
    ("edgeproxy-size.yaml",),
    ("run", "@FOLDER@/edgeproxy-size.yaml", *EDGE_RUN),
)


@dataclass(slots=True)
class Contestant:
    """A proxy ready to be started, what it is asked, and what was measured of it."""

    name: str
    command: list[str]
    port: int
    folder: Path
    stream: Stream
    warm_up: Sequence[bytes] = ()
    proof: str = "HTTP/1.1 200"  # stands in the head of the last answer of the warm-up
    connections: int | None = None  # that are busy, if not as many as for the others
    idle: int = 0  # further connections, which were used once and stay open
    cores: int = 1
    lacks: str = ""
    pid: int = 0
    rounds: list[Round] = field(default_factory=list)
    costs_us: list[float] = field(default_factory=list)  # CPU microseconds a request, by round
    memory_bytes: int = 0


def configured(
    peer: Peer, folder: Path, stream: Stream, *, name: str = "", origin: str, **words: str
) -> Contestant:
    """The peer with its files in a folder of its own. Its program must be installed.

    `origin` is HOST:PORT; further `words` are filled in as well.
    """
    program, port = peer.path, free_port()
    assert program is not None
    own = folder / f"{peer.program}-{port}"
    own.mkdir()
    host, _, origin_port = origin.partition(":")
    known = {
        **words,
        "ORIGIN": origin,
        "ORIGIN_HOST": host,
        "ORIGIN_PORT": origin_port,
        "PORT": str(port),
        "FOLDER": str(own),
        "DATABASE": str(DATABASE),
        "COUNTRIES": str(folder / "countries.map"),
        "USER": getpass.getuser(),
    }
    for file in peer.files:
        (own / file).write_text(filled((HERE / "peers" / file).read_text(), known))
    if peer.program == "workerd":
        shutil.copy(folder / "countries.json", own)
    command = [program, *(filled(word, known) for word in peer.command)]
    return Contestant(name or peer.name, command, port, own, stream, lacks=peer.lacks)


def filled(text: str, words: dict[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(f"@{word}@", value)
    return text


def write_countries(folder: Path) -> None:
    """The country database as the peers want it that read no MMDB."""
    networks = list(countries(DATABASE))
    (folder / "countries.map").write_text(
        "".join(f"{network} {code}\n" for network, code in networks)
    )
    table = list(ranges(networks))
    columns = {"firsts": [int(first) for first, _ in table], "codes": [code for _, code in table]}
    (folder / "countries.json").write_text(json.dumps(columns))


def fault_of(policy: Path) -> str:
    """The first fault that `edgeproxy check` finds in a policy, in short; empty if it is good."""
    command = [str(BIN / "edgeproxy"), "check", str(policy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    return done.stderr.partition("\n")[0].partition(": ")[2].partition(";")[0]


def versions(peers: Iterable[Peer]) -> Iterator[str]:
    """Name and version of each peer that is installed, by its own word."""
    for peer in peers:
        if peer.path is not None:
            command = [peer.path, peer.version]
            said = subprocess.run(command, capture_output=True, text=True, check=False)
            number = re.search(r"\d+(\.\d+)+|\d{4}-\d\d-\d\d", said.stdout + said.stderr)
            yield f"{peer.name} {number[0] if number else '?'}"
