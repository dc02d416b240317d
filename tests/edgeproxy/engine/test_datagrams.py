"""Datagrams on the port of a listener: answered from where they came to, or kept for one client."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from edgeproxy.engine.datagrams import DatagramSocket

PLACES = {
    "127.0.0.1": (socket.AF_INET, "127.0.0.1"),
    "0.0.0.0": (socket.AF_INET, "127.0.0.2"),
    "::1": (socket.AF_INET6, "::1"),
    "::": (socket.AF_INET6, "::1"),
}


@contextmanager
def listening(host: str) -> Iterator[tuple[DatagramSocket, socket.socket]]:
    family, _ = PLACES[host]
    with socket.socket(family, socket.SOCK_STREAM) as beside:
        try:
            beside.bind((host, 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        sock = DatagramSocket.beside(beside)
        try:
            yield sock, beside
        finally:
            sock.close()


def received(sock: DatagramSocket) -> tuple[bytes, Any, Any]:
    """What comes next; on one machine that is at once."""
    with socket.fromfd(sock.fileno(), socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.settimeout(5)
        other.recv(1, socket.MSG_PEEK)
    return sock.receive()


@pytest.mark.parametrize("host", PLACES)
def test_an_answer_comes_from_where_the_question_went_to(host: str) -> None:
    family, address = PLACES[host]
    with listening(host) as (sock, beside), socket.socket(family, socket.SOCK_DGRAM) as client:
        assert sock.port == beside.getsockname()[1]
        client.settimeout(5)
        client.sendto(b"hello", (address, sock.port))
        data, peer, local = received(sock)
        assert (data, local[:2]) == (b"hello", (address, sock.port))
        sock.send(b"answer", peer, local)
        assert client.recvfrom(100)[1][:2] == (address, sock.port)
        with pytest.raises(BlockingIOError):
            sock.receive()


def test_over_ipv6_clients_of_ipv4_are_answered_too() -> None:
    with listening("::") as (sock, _), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.sendto(b"hello", ("127.0.0.2", sock.port))
        _, peer, local = received(sock)
        assert local[0] == "::ffff:127.0.0.2"
        sock.send(b"answer", peer, local)
        assert client.recvfrom(100) == (b"answer", ("127.0.0.2", sock.port))


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_socket_for_one_client_gets_what_that_sends_whoever_else_listens(host: str) -> None:
    _, address = PLACES[host]
    with (
        listening(host) as (sock, beside),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger,
    ):
        client.settimeout(5)
        client.sendto(b"hello", (address, sock.port))
        own = sock.for_one(*received(sock)[1:])
        others = [DatagramSocket.beside(beside) for _ in range(5)]
        try:
            for _ in range(20):
                client.sendto(b"more", (address, sock.port))
                assert received(own)[0] == b"more"
            own.send_back(b"answer")
            assert client.recvfrom(100)[0] == b"answer"
            stranger.sendto(b"hello", (address, sock.port))
            with pytest.raises(BlockingIOError):
                own.receive()
        finally:
            for one in (own, *others):
                one.close()
