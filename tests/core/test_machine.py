"""Tests for core/machine.py."""

import socket
from pathlib import Path

import pytest

from tinyr1.core import machine
from tinyr1.core.errors import UserError


@pytest.mark.parametrize(
    ("flags", "multiplies"),
    [
        ({"avx2", "avx512f", "avx512_bf16"}, True), ({"avx2", "avx_ne_convert"}, True), ({"asimd", "bf16"}, True),
        ({"avx2"}, False), ({"avx2", "avx512f", "avx512bw"}, False), ({"asimd", "sve"}, False), (set(), True),
    ],
)  # fmt: skip
def test_a_cpu_without_instructions_for_bf16_products_answers_in_fp32(monkeypatch, flags, multiplies):
    monkeypatch.setattr(machine, "processor_flags", lambda: frozenset(flags))
    assert machine.multiplies_bf16() is multiplies
    assert machine.inference_dtype(on_gpu=False) == ("bfloat16" if multiplies else "float32")
    assert machine.inference_dtype(on_gpu=True) == "bfloat16"


def test_the_flags_of_this_processor_are_those_that_linux_lists():
    listed = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    assert machine.processor_flags() <= set(listed)
    assert machine.processor_flags()


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
