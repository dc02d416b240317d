"""Which program listens on a port: from the kernel's table, and in fact."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from edgeproxy.doctor.holders import holder, is_edgeproxy, listening

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0
   1: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0
   2: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0
"""


def test_only_sockets_that_listen_count() -> None:
    assert list(listening(TABLE, 8080)) == ["4711"]
    assert list(listening(TABLE, 80)) == ["4713"]
    assert list(listening(TABLE, 443)) == []
    assert list(listening("", 80)) == []


@pytest.mark.parametrize(
    ("command", "is_ours"),
    [
        ("/opt/edge/bin/edgeproxy run site.yaml", True),
        ("/opt/edge/bin/python3 /opt/edge/bin/edgeproxy run", True),
        ("python3 -m edgeproxy run", True),
        ("/opt/edge/bin/python3 -P -m edgeproxy.engine.workers.worker 7", True),
        ("python3 -m http.server edgeproxy", False),
        ("nginx: master process /usr/sbin/nginx", False),
        ("vi edgeproxy.yaml", False),
        ("", False),
    ],
)
def test_edgeproxy_is_known_by_its_command(command: str, is_ours: bool) -> None:
    assert is_edgeproxy(command.split(" ")) is is_ours


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_program_that_listens_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = holder(port)
        assert found is not None
        assert f"(process {os.getpid()})" in found.name
        assert not found.is_ours
    assert holder(port) is None
