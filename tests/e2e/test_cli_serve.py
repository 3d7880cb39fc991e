"""`rlplatform serve` refuses, in one message and before anything starts, what it could not do."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from rlplatform.serve.server import free_port
from tests.e2e.conftest import CommandLine
from tests.unit.serve.certificates import write_certificate


@pytest.fixture(autouse=True)
def _ray_is_never_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr("ray.init", fail)


def test_a_port_that_is_taken(cli: CommandLine) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        cli("serve", "--port", str(port), code=2)
    assert f"127.0.0.1:{port} cannot be listened on" in cli.err
    assert "--port" in cli.err


def test_the_network_without_a_key(cli: CommandLine) -> None:
    cli("serve", "--host", "0.0.0.0", "--port", str(free_port()), code=2)
    assert "there is no key" in cli.err
    assert "rlplatform keys create admin --scopes admin" in cli.err


def test_a_certificate_that_is_not_there(cli: CommandLine, tmp_path: Path) -> None:
    _, keyfile = write_certificate(tmp_path)
    absent = tmp_path / "absent.crt"
    cli("serve", "--ssl-certfile", str(absent), "--ssl-keyfile", str(keyfile), "--port", str(free_port()), code=2)
    assert "absent.crt" in cli.err
    assert "RL_API_SSL_CERTFILE" in cli.err


def test_a_certificate_without_its_key(cli: CommandLine, tmp_path: Path) -> None:
    certfile, _ = write_certificate(tmp_path)
    cli("serve", "--ssl-certfile", str(certfile), "--port", str(free_port()), code=2)
    assert "RL_API_SSL_KEYFILE" in cli.err


def test_a_setting_that_is_no_number(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RL_API_WORKERS", "many")
    cli("serve", code=2)
    assert "RL_API_WORKERS" in cli.err


def test_a_secret_that_is_too_short(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RL_API_SECRET_KEY", "short-secret")
    cli("serve", code=2)
    assert "32 characters" in cli.err
    assert "short-secret" not in cli.err
