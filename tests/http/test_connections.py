"""Connections: both families of addresses, idle ones, and those of a service that stops."""

import os
import signal
import socket
from collections.abc import Callable
from http.client import HTTPResponse
from time import monotonic

import pytest

from tests.support.connections import (
    LIVE,
    answer_on,
    assert_each_family_is_known_by_its_own_address,
    has_ipv6,
    is_listening,
    raw_connection,
)
from tests.support.hostile import head
from tests.support.servers import STARTUP, Muster, wait_for
from tests.support.sockets import new_room

pytestmark = pytest.mark.one_database

ROUND = 0.1  # seconds by which a timer may seem early: it counts from the beginning of a round of the event loop


def seconds_until_closed(connection: socket.socket, began: float) -> float:
    """The seconds since `began` until the service closes the connection; what it sends before is passed over."""
    while connection.recv(1000):
        pass
    return monotonic() - began


def test_one_socket_for_both_families_knows_each_client_by_its_own_address(serve: Callable[..., Muster]) -> None:
    if not has_ipv6():
        pytest.skip("this machine has no IPv6 loopback")
    assert_each_family_is_known_by_its_own_address(serve(HOST="::", TRUSTED_PROXIES="127.0.0.1,10.0.0.0/8"))


@pytest.mark.slow
@pytest.mark.parametrize("sent", [b"", b"GET /health/live HTTP/1.1\r\nHo", LIVE, LIVE + b"GET"], ids=len)
def test_a_connection_waits_for_a_head_as_long_as_keep_alive_says(serve: Callable[..., Muster], sent: bytes) -> None:
    muster = serve(KEEP_ALIVE="1")
    began = monotonic()
    with raw_connection(muster) as connection:
        connection.sendall(sent)
        assert 1 - ROUND < seconds_until_closed(connection, began) < 30


@pytest.mark.slow
def test_a_head_that_begins_beside_a_slow_request_is_not_waited_for_forever(serve: Callable[..., Muster]) -> None:
    muster = serve(KEEP_ALIVE="1")
    bearer = muster.new_account().tokens().bearer
    began = monotonic()
    with raw_connection(muster) as connection:
        connection.sendall(head("GET", f"/api/chat/messages?room={new_room()}&wait=2", **bearer) + b"G")
        with HTTPResponse(connection) as response:
            response.begin()
            assert (response.status, response.read()) == (200, b"[]")
        connection.sendall(b"E")
        assert 2 + 1 - 2 * ROUND < seconds_until_closed(connection, began) < 30


@pytest.mark.slow
def test_a_request_that_arrives_while_the_service_stops_is_answered(serve: Callable[..., Muster]) -> None:
    muster = serve()
    with raw_connection(muster) as connection:
        assert answer_on(connection).headers["connection"] is None
        assert muster.process is not None
        muster.process.terminate()
        wait_for(lambda: not is_listening(muster), what="the end of new connections")
        assert answer_on(connection).headers["connection"] == "close"
        assert connection.recv(1000) == b""


@pytest.mark.slow
def test_two_interrupts_stop_the_service_quietly(serve: Callable[..., Muster]) -> None:
    muster = serve()
    assert muster.process is not None
    for _ in range(2):
        os.kill(muster.process.pid, signal.SIGINT)
    assert muster.process.wait(STARTUP) == 0
    assert "Traceback" not in muster.log
    assert "ERROR" not in muster.log
