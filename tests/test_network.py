"""The tests themselves cannot reach a network, so what passes here works without one."""

import socket

import pytest


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_network_sockets_are_refused(family):
    with pytest.raises(RuntimeError, match="without a network"):
        socket.socket(family)


def test_connections_and_names_are_refused():
    with pytest.raises(RuntimeError, match="without a network"):
        socket.create_connection(("127.0.0.1", 9))
    with pytest.raises(RuntimeError, match="without a network"):
        socket.getaddrinfo("example.org", 443)


def test_local_sockets_work():
    left, right = socket.socketpair()
    with left, right:
        left.sendall(b"x")
        assert right.recv(1) == b"x"
