"""The journal of a cluster's manager is found again by whoever makes the next one."""

from __future__ import annotations

import socket

import pytest

from rlplatform.cluster.manager_process import journal_name


@pytest.mark.parametrize(
    ("host", "name"),
    [("10.0.0.1", "10.0.0.1-6379"), ("2001:db8::1", "2001-db8--1-6379"), ("127.0.0.1", f"{socket.gethostname()}-6379")],
)
def test_a_journal_is_called_after_the_head_and_on_loopback_after_its_machine(host: str, name: str) -> None:
    assert journal_name(host, "6379") == name
