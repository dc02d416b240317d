"""The Containerfile, taken apart: its steps run in namespaces, for want of a container engine.

`uv` stands in for pip, so that what is installed comes from its cache. The layers of an image, and
what an engine adds to them, have no part in it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL, SIGTERM
from subprocess import PIPE, Popen

import pytest

from tests.packaged import ROOT, UV, wheel_of

FILE = ROOT / "docs" / "deploy" / "Containerfile"
UNSHARED = ("unshare", "--mount", "--pid", "--net", "--fork", "--kill-child=KILL", "sh", "-ec")

POLICY = """\
version: 1
origins: {site: {url: "http://127.0.0.1:9/"}}
state: {path: /var/lib/edgeproxy/state}
cache: {disk: {path: /var/cache/edgeproxy/answers}}
geo: {database: builtin}
routes: [{name: word, match: {path: /word}, respond: {body: WORD}}, {name: site}]
"""

# A fresh /opt, /etc, /var and /tmp. This Python may live in a home that only root may enter.
BEGIN = """\
mount --make-rprivate /
mount -t proc proc /proc
ip link set lo up
mount -t tmpfs run /run
mkdir /run/etc /run/etc.work /run/python /run/here /run/cache
cp "$UV" /run/uv
mount --bind "$HERE" /run/here
mount --bind "$UV_CACHE_DIR" /run/cache
export UV_CACHE_DIR=/run/cache
mount -t overlay over -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/etc.work /etc
mount --bind "$PYTHON" /run/python
for each in /opt /var/lib /var/cache /tmp /root; do mount -t tmpfs -o mode=755 none $each; done
chmod 1777 /tmp
mkdir -p "$PYTHON"
mount --bind /run/python "$PYTHON"
mkdir -p /opt/src /etc/edgeproxy
cp /run/here/dist/* /opt/src
cp /run/here/site.yaml /etc/edgeproxy
chmod -R a+rX /etc/edgeproxy
"""
# As `--read-only` and `--cap-drop=all` have it.
END = """\
rm -rf /opt/src
for each in / /etc /opt; do mount -o remount,bind,ro $each; done
! touch /opt/x /etc/x /x 2>/dev/null
cd {workdir}
exec setpriv --reuid {user} --regid {group} --clear-groups --no-new-privs --bounding-set -all \\
    --inh-caps -all {command}
"""


def instructions() -> list[tuple[str, str]]:
    """The instructions of the file, and what stands behind each."""
    text = re.sub(r"^#.*\n", "", FILE.read_text(), flags=re.M).replace("\\\n", " ")
    found = (line.partition(" ") for line in text.splitlines() if line)
    return [(name, rest.strip()) for name, _, rest in found]


def the_only(name: str) -> str:
    (found,) = [rest for word, rest in instructions() if word == name]
    return found


def health_check() -> list[str]:
    command: list[str] = json.loads(the_only("HEALTHCHECK").partition(" CMD ")[2])
    return command


def steps() -> str:
    """What `RUN` runs, with uv for pip, and `python` for the image's."""
    runs = [rest for name, rest in instructions() if name == "RUN"]
    uv = "/run/uv pip install --offline --python /opt/edgeproxy/bin/python"
    script = "\n".join(runs).replace("/opt/edgeproxy/bin/pip install --no-cache-dir", uv)
    return script.replace("python -m venv", f"{sys.base_prefix}/bin/python3 -m venv")


def pins() -> str:
    """What `make wheel` puts beside the wheel."""
    done = subprocess.run([ROOT / ".ci" / "pins"], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"needs the index of packages once: {done.stderr.strip()[-200:]}")
    return done.stdout


def can_run() -> bool:
    tools = ("unshare", "nsenter", "ip", "setpriv", "useradd")
    if sys.platform != "linux" or os.geteuid() != 0 or not all(map(shutil.which, tools)):
        return False
    return subprocess.run([*UNSHARED, "mount --make-rprivate /"]).returncode == 0


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Popen[str]]:
    if not can_run():
        pytest.skip("needs root on a Linux that lets root make namespaces")
    here = tmp_path_factory.mktemp("container")
    (here / "dist").mkdir()
    shutil.copy(wheel_of(ROOT), here / "dist")
    (here / "dist" / "requirements.txt").write_text(pins())
    (here / "site.yaml").write_text(POLICY)
    user, _, group = the_only("USER").partition(":")
    command = json.loads(the_only("ENTRYPOINT")) + json.loads(the_only("CMD"))
    end = END.format(
        workdir=the_only("WORKDIR"), user=user, group=group, command=shlex.join(command)
    )
    run = Popen(
        [*UNSHARED, BEGIN + steps() + "\n" + end],
        env={
            "PATH": os.environ["PATH"], "HERE": str(here), "PYTHON": sys.base_prefix,
            "UV": str(UV.resolve()), "UV_CACHE_DIR": cache_of_uv(),
        },
        stdout=PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        yield run
    finally:
        # Another user's process does not end with its parent.
        if run.poll() is None:
            os.kill(inside(run), SIGKILL)
        run.communicate()


def cache_of_uv() -> str:
    return subprocess.run([UV, "cache", "dir"], capture_output=True, text=True).stdout.strip()


def inside(container: Popen[str]) -> int:
    """The first process in there, which becomes edgeproxy."""
    return int(Path(f"/proc/{container.pid}/task/{container.pid}/children").read_text().split()[0])


def test_what_is_made_of_its_steps_serves_and_is_healthy(container: Popen[str]) -> None:
    assert container.stdout is not None
    said: list[str] = []
    for line in container.stdout:
        said.append(line)
        if line.startswith("edgeproxy serves "):
            break
    else:
        raise AssertionError("".join(said))
    process = inside(container)
    status = Path(f"/proc/{process}/status").read_text()
    assert re.search(r"^Uid:\t10001\t10001", status, re.M)
    assert re.search(r"^CapEff:\t0+$", status, re.M)
    enter = ["nsenter", "--target", str(process), "--all"]
    assert subprocess.run([*enter, *health_check()]).returncode == 0
    # What it may write to has been written to.
    here = Path(f"/proc/{process}/root/var")
    assert (here / "cache/edgeproxy/answers/current").exists()
    assert (here / "lib/edgeproxy/state").is_dir()
    os.kill(process, SIGTERM)
    assert container.wait(30) == 0


def test_the_health_check_fails_where_nobody_answers() -> None:
    python, flag, code = health_check()
    assert (python, flag) == ("/opt/edgeproxy/bin/python", "-c")
    dead = code.replace("8080", "9")
    assert subprocess.run([sys.executable, "-c", dead], stderr=PIPE).returncode != 0


def test_pins_are_those_of_the_repository_with_their_hashes() -> None:
    all_pins = (ROOT / "requirements.txt").read_text()
    blocks = re.split(r"^(?=[a-z0-9])", pins(), flags=re.M)[1:]
    names = {re.split("[=; ]", block)[0] for block in blocks}
    assert {"mitmproxy", "aiohttp", "cryptography", "uvloop"} <= names
    assert names.isdisjoint({"pytest", "ruff", "sphinx", "mypy"})
    assert all(block in all_pins and "--hash=sha256:" in block for block in blocks)
