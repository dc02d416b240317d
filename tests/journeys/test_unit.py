"""The units that the documentation ships, as a real systemd runs them: sealed off, and serving.

A systemd of its own is booted in namespaces (processes, mounts, network, control groups), with its
own /etc, /opt, /run and /var/lib, gone afterwards. That needs root, and leave to make namespaces.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess, Popen

import pytest

from tests.certificates import Authority
from tests.journeys.conftest import small_site
from tests.packaged import ROOT

DEPLOY = ROOT / "docs" / "deploy"
UNITS = sorted([*DEPLOY.glob("*.service"), *DEPLOY.glob("*.socket")])
SYSTEMD = Path("/lib/systemd/systemd")
EDGEPROXY = Path(sys.executable).with_name("edgeproxy")
WORST_EXPOSURE = 1.5  # of 10; systemd 252 says 1.3, and every version counts a little differently

BOOT = """\
set -e
mount --make-rprivate /
mount -t tmpfs run /run
mount -t proc proc /proc
mkdir -p /run/systemd/system /run/over
for name in etc opt; do
    upper=/run/over/$name
    mkdir -p $upper $upper.work
    mount -t overlay over -o lowerdir=/$name,upperdir=$upper,workdir=$upper.work /$name
done
mount -t tmpfs state /var/lib
mount -t tmpfs cache /var/cache
umount -R /sys/fs/cgroup
mount -t cgroup2 groups /sys/fs/cgroup
ip link set lo up
mkdir -p /opt/edgeproxy/bin /etc/edgeproxy
ln -s "$EDGEPROXY" /opt/edgeproxy/bin/edgeproxy
cp "$HERE"/etc/* /etc/edgeproxy
chmod 644 /etc/edgeproxy/*
exec "$SYSTEMD" --system --unit=here.target --log-target=null
"""

# This Python may live in a home, which the unit hides; elsewhere it is where a package puts it.
DROP_IN = f"""\
[Service]
ProtectHome=tmpfs
BindReadOnlyPaths={sys.base_prefix} {ROOT}
StandardOutput=append:/run/edgeproxy.log
StandardError=append:/run/edgeproxy.log
"""

POLICY = """\
version: 1
origins: {site: {url: "http://127.0.0.1:9000/"}}
tls: {certificates: [{certificate: /etc/edgeproxy/site.pem, key: /etc/edgeproxy/site.key}]}
state: {path: /var/lib/edgeproxy/state}
cache:
  disk: {path: /var/cache/edgeproxy/answers}
  rules: {pages: {ttl: 1h}}
routes:
  - {name: word, match: {path: /word}, respond: {body: "WORD"}}
  - {name: site, cache: pages}
"""

ASK = """\
import json, ssl, sys, urllib.request
context = ssl.create_default_context(cafile=sys.argv[2])
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}),
                                     urllib.request.HTTPSHandler(context=context))
with opener.open(sys.argv[1], timeout=20) as reply:
    print(json.dumps([reply.status, reply.headers.get("cache-status", ""), reply.read().decode()]))
"""


UNSHARED = [
    *("unshare", "--mount", "--pid", "--net", "--cgroup", "--ipc", "--uts", "--fork"),
    *("--kill-child=KILL", "sh", "-c"),
]


def control_groups() -> Path:
    """Where version 2 of the control groups is mounted."""
    text = Path("/proc/self/mountinfo").read_text()
    found = re.search(r"^\S+ \S+ \S+ \S+ (\S+) .* - cgroup2 ", text, re.M)
    assert found is not None
    return Path(found[1])


def removed(folder: Path) -> bool:
    """Whether a control group is gone: it cannot be while a process in it ends."""
    try:
        folder.rmdir()
    except OSError:
        return False
    return True


# Four clients, each on a new connection for every request, until the input ends.
VISIT = """\
import http.client, json, sys, threading
over, answers, failures = threading.Event(), [], []
def visit():
    while not over.is_set():
        connection = http.client.HTTPConnection("127.0.0.1", 80, timeout=40)
        try:
            connection.request("GET", "/word", headers={"Connection": "close"})
            answers.append(connection.getresponse().status)
        except OSError as error:
            failures.append(repr(error))
        finally:
            connection.close()
clients = [threading.Thread(target=visit) for _ in range(4)]
for client in clients:
    client.start()
print("begun", flush=True)
sys.stdin.read()
over.set()
for client in clients:
    client.join()
print(json.dumps([len(answers), sorted(set(answers)), failures]))
"""


def can_boot() -> bool:
    needed = (SYSTEMD.exists(), *(shutil.which(name) for name in ("unshare", "nsenter", "ip")))
    if sys.platform != "linux" or not all(needed) or os.geteuid() != 0:
        return False
    tried = "mount --make-rprivate / && mount -t cgroup2 groups /sys/fs/cgroup"
    return subprocess.run([*UNSHARED, tried], capture_output=True).returncode == 0


class Machine:
    """A booted systemd, by the process that is the first one in it."""

    def __init__(self, folder: Path, authority: Path) -> None:
        self.folder, self.authority = folder, authority
        self._group = control_groups() / f"edgeproxy-test-{os.getpid()}"
        self._group.mkdir()
        self._outer = Popen(
            ["sh", "-c", 'echo $$ >"$GROUP/cgroup.procs" && exec "$@"', "sh", *UNSHARED, BOOT],
            env={
                **os.environ, "container": "unshare", "HERE": str(folder),
                "SYSTEMD": str(SYSTEMD), "EDGEPROXY": str(EDGEPROXY),
                "GROUP": str(self._group),
                "SYSTEMD_UNIT_PATH": str(folder / "units"),
            },
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self.process = self._first_child()

    def _first_child(self) -> int:
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children")
        return int(until(lambda: children.read_text().split())[0])

    def entered(self, *command: str | Path, namespaces: str = "--all") -> list[str]:
        """The command line that runs `command` in there."""
        return ["nsenter", "--target", str(self.process), namespaces, *map(str, command)]

    def systemctl(self, *arguments: str) -> CompletedProcess[str]:
        return subprocess.run(
            self.entered("systemctl", *arguments), capture_output=True, text=True, timeout=50
        )

    def show(self, name: str) -> str:
        return self.systemctl("show", "--value", "-p", name, "edgeproxy.service").stdout.strip()

    def ask(self, url: str) -> tuple[int, str, str]:
        """The status, Cache-Status and body that a client on the machine gets."""
        command = self.entered(sys.executable, "-c", ASK, url, self.authority, namespaces="--net")
        done = subprocess.run(command, capture_output=True, text=True, timeout=40)
        assert done.returncode == 0, done.stderr
        status, cache, body = json.loads(done.stdout)
        return status, cache, body

    def start(self, *command: str | Path) -> Popen[bytes]:
        """A program in the same network, outside of what systemd knows, once it says something."""
        started = Popen(
            self.entered(*command, namespaces="--net"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert started.stdout is not None
        assert started.stdout.readline()
        return started

    def of_service(self, *command: str) -> CompletedProcess[str]:
        """A program of root's that sees the files as the service does."""
        return subprocess.run(
            ["nsenter", "--target", str(self.main_process()), "--mount", *command],
            capture_output=True,
            text=True,
        )

    def main_process(self) -> int:
        """The service's process, by the number that it has outside."""
        group = Path(f"/proc/{self.process}/root/sys/fs/cgroup")
        (processes,) = group.rglob("edgeproxy.service/cgroup.procs")
        inside = self.show("MainPID")
        for line in processes.read_text().split():
            status = Path(f"/proc/{line}/status").read_text()
            if re.search(rf"^NSpid:.*\b{inside}$", status, re.M):
                return int(line)
        raise AssertionError(f"no process {inside}")

    def stop(self) -> None:
        self._outer.kill()
        self._outer.wait()
        for folder in sorted(self._group.rglob("**/"), reverse=True):
            until(lambda folder=folder: removed(folder))


def until[T](find: Callable[[], T]) -> T:
    """What `find` gives once that is something; it has 30 seconds."""
    end = time.monotonic() + 30
    while not (found := find()):
        assert time.monotonic() < end
    return found


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    if not can_boot():
        pytest.skip("needs root on a Linux with systemd, and leave to make namespaces")
    folder = tmp_path_factory.mktemp("machine")
    units = folder / "units"
    (units / "edgeproxy.service.d").mkdir(parents=True)
    (units / "edgeproxy.service.d" / "python.conf").write_text(DROP_IN)
    for unit in UNITS:
        shutil.copy(unit, units)
    for name in ("here", "sysinit", "basic", "sockets", "shutdown", "network-online"):
        (units / f"{name}.target").write_text("[Unit]\nDefaultDependencies=no\n")
    etc = folder / "etc"
    etc.mkdir()
    (etc / "site.yaml").write_text(POLICY)
    authority = Authority.in_folder(folder, "authority")
    authority.sign(etc, "site", "127.0.0.1")
    booted = Machine(folder, authority.file)
    origin = None
    try:
        until(
            lambda: booted.systemctl("is-system-running").stdout.strip() in ("running", "degraded")
        )
        site = small_site(folder / "site", index="home")
        origin = booted.start(EDGEPROXY, "pages", site, "--listen", "127.0.0.1:9000")
        yield booted
        print(Path(f"/proc/{booted.process}/root/run/edgeproxy.log").read_text())
    finally:
        if origin is not None:
            origin.kill()
            origin.communicate()
        booted.stop()


def test_it_serves_from_sockets_of_systemd(machine: Machine) -> None:
    started = machine.systemctl("start", "edgeproxy.service")
    assert started.returncode == 0, started.stderr + machine.systemctl("status").stdout
    assert machine.ask("http://127.0.0.1/word")[::2] == (200, "WORD")
    assert machine.ask("https://127.0.0.1/word")[::2] == (200, "WORD")
    assert "serves" in machine.show("StatusText")


def test_it_has_a_user_of_its_own_and_no_rights(machine: Machine) -> None:
    status = Path(f"/proc/{machine.main_process()}/status").read_text()
    found = dict(line.split(":\t", 1) for line in status.splitlines())
    assert "0" not in found["Uid"].split()
    assert {int(found[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert found["NoNewPrivs"].strip() == "1"
    assert found["Seccomp"].strip() == "2"  # system calls are filtered


def test_it_can_write_to_its_folders_and_nowhere_else(machine: Machine) -> None:
    for path in ("/etc/edgeproxy/x", "/usr/x", "/opt/edgeproxy/x", "/var/lib/x", "/x"):
        done = machine.of_service("touch", path)
        assert "Read-only file system" in done.stderr, (path, done)
    for folder in ("/var/lib/edgeproxy", "/var/cache/edgeproxy", "/run/edgeproxy", "/tmp"):
        assert machine.of_service("touch", f"{folder}/x").returncode == 0, folder


def test_a_reload_puts_a_new_policy_in_force(machine: Machine) -> None:
    site = Path(f"/proc/{machine.process}/root/etc/edgeproxy/site.yaml")
    site.write_text(POLICY.replace("WORD", "NEWS"))
    assert machine.systemctl("reload", "edgeproxy.service").returncode == 0
    until(lambda: machine.ask("http://127.0.0.1/word")[2] == "NEWS")
    assert machine.show("ActiveState") == "active"


def test_the_disk_cache_is_there_after_a_restart(machine: Machine) -> None:
    until(lambda: "hit" in machine.ask("http://127.0.0.1/")[1])
    until(lambda: "detail=disk" in machine.ask("http://127.0.0.1/")[1] or restarted(machine))
    assert machine.ask("http://127.0.0.1/")[0] == 200


def restarted(machine: Machine) -> bool:
    """Begin again, with nothing in memory. The answer may not yet have been on the disk."""
    assert machine.systemctl("restart", "edgeproxy.service").returncode == 0
    return False


def test_a_restart_fails_no_request(machine: Machine) -> None:
    """Not one that was under way, nor one that came while nobody served."""
    visitors = Popen(
        machine.entered(sys.executable, "-c", VISIT, namespaces="--net"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert visitors.stdout is not None
    assert visitors.stdout.readline() == "begun\n"
    before = machine.show("MainPID")
    assert machine.systemctl("restart", "edgeproxy.service").returncode == 0
    assert machine.show("MainPID") != before
    until(lambda: machine.ask("http://127.0.0.1/word")[0] == 200)
    count, statuses, failures = json.loads(visitors.communicate("")[0])
    assert (statuses, failures) == ([200], [])
    assert count > 100


def test_a_client_that_comes_while_it_is_stopped_is_served(machine: Machine) -> None:
    """Its connection waits in the socket, and starts the service."""
    assert machine.systemctl("stop", "edgeproxy.service").returncode == 0
    assert machine.show("ActiveState") == "inactive"
    assert machine.ask("http://127.0.0.1/word")[0] == 200
    assert machine.show("ActiveState") == "active"


# ------------------------------------------------------------------- without a boot

analyzes = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd")


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, with a program that is there."""
    for unit in UNITS:
        text = unit.read_text().replace("/opt/edgeproxy/bin/edgeproxy", str(EDGEPROXY))
        (tmp_path / unit.name).write_text(text)
    return tmp_path


def analyze(*arguments: str | Path) -> str:
    done = subprocess.run(
        ["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, timeout=50
    )
    return done.stdout + done.stderr


@analyzes
def test_systemd_finds_nothing_wrong_with_the_units(units: Path) -> None:
    assert analyze("verify", *units.iterdir()) == ""


@analyzes
def test_exposure_stays_as_low_as_the_documentation_says(units: Path) -> None:
    said = analyze("security", "--offline=true", units / "edgeproxy.service")
    found = re.search(r"Overall exposure level for edgeproxy.service: ([0-9.]+)", said)
    assert found is not None, said
    assert float(found[1]) <= WORST_EXPOSURE


def test_pyopenssl_needs_memory_that_can_be_written_and_run() -> None:
    """Once this fails, MemoryDenyWriteExecute belongs into the unit."""
    script = """\
import ctypes, sys
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1
if ctypes.CDLL(None).prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) != 0:
    sys.exit("this system cannot refuse it")
from OpenSSL import SSL
try:
    SSL.Context(SSL.TLS_METHOD).set_verify(SSL.VERIFY_PEER, lambda *_: True)
except MemoryError:
    print("refused")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    if "cannot refuse" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.stdout == "refused\n", done.stderr
