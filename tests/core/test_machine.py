"""Tests for core/machine.py."""

import socket
from pathlib import Path

import pytest

from tinyr1.core import machine
from tinyr1.core.errors import UserError


def test_a_free_port_is_none_that_the_system_gives_to_whoever_asks_for_any():
    """One of those was taken by another program in the seconds before DeepSpeed listened there."""
    first, _ = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert {machine.free_port() < first for _ in range(50)} == {True}


def test_a_port_in_use_is_not_free_whatever_address_it_is_used_at(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.2", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(machine, "PORTS", [port] * 100)
        with pytest.raises(UserError, match="100 ports between"):
            machine.free_port()
    assert machine.free_port() == port
