"""What `rlplatform serve` refuses before it starts anything, and what it puts in front of Ray."""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rlplatform.errors import ResourceError, SpecError
from rlplatform.serve import server
from rlplatform.serve.server import check_exposure, check_port, free_port
from rlplatform.serve.settings import ServeSettings
from rlplatform.specs.settings import Settings
from rlplatform.store.database import Database, default_url
from rlplatform.store.keys import KeyStore
from tests.unit.serve.certificates import write_certificate


def test_beyond_loopback_a_key_is_asked_for_and_the_command_to_make_one_is_told(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"there is no key.*rlplatform keys create admin"):
        check_exposure(ServeSettings(host="0.0.0.0"), Settings(home=tmp_path))


def test_a_key_or_a_secret_opens_the_way_beyond_loopback(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    check_exposure(ServeSettings(host="0.0.0.0", secret_key="s" * 32), settings)
    database = Database(default_url(tmp_path))
    database.upgrade()
    key = KeyStore(database).create("admin", scopes=("admin",)).key
    check_exposure(ServeSettings(host="0.0.0.0"), settings)
    KeyStore(database).revoke(key.id)
    with pytest.raises(SpecError, match="there is no key"):
        check_exposure(ServeSettings(host="0.0.0.0"), settings)
    database.close()


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ResourceError, match=rf"127\.0\.0\.1:{port} cannot be listened on: .*--port"):
            check_port(ServeSettings(port=port))


def test_a_host_that_is_not_this_machines_is_told() -> None:
    with pytest.raises(ResourceError, match=r"203\.0\.113\.1:\d+ cannot be listened on"):
        check_port(ServeSettings(host="203.0.113.1", port=free_port()))


def test_tls_files_must_be_there_and_belong_together(tmp_path: Path) -> None:
    certfile, keyfile = write_certificate(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    _, other_key = write_certificate(other)
    port = free_port()
    check_port(ServeSettings(port=port, ssl_certfile=certfile, ssl_keyfile=keyfile))
    with pytest.raises(SpecError, match=r"absent\.crt.*cannot be read.*RL_API_SSL_CERTFILE"):
        check_port(ServeSettings(port=port, ssl_certfile=tmp_path / "absent.crt", ssl_keyfile=keyfile))
    with pytest.raises(SpecError, match="are no certificate and its key"):
        check_port(ServeSettings(port=port, ssl_certfile=certfile, ssl_keyfile=other_key))


def test_haproxy_takes_the_connections_and_everything_else_is_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "find_haproxy", lambda: "/bin/true")
    monkeypatch.delenv("RAY_SERVE_ENABLE_HA_PROXY", raising=False)
    with server.local_ingress(ServeSettings(host="0.0.0.0", port=8443)) as ingress:
        assert (ingress.name, ingress.inner_host) == ("HAProxy", "127.0.0.1")
        assert os.environ["RLPLATFORM_HAPROXY_BIND"] == "0.0.0.0:8443"
        folder = Path(os.environ["RAY_SERVE_HAPROXY_BINARY_PATH"]).parent
        assert folder.is_dir()
    assert not folder.exists()
    assert "RAY_SERVE_ENABLE_HA_PROXY" not in os.environ


def test_where_haproxy_does_not_run_rays_own_proxy_serves_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "find_haproxy", lambda: None)
    monkeypatch.delenv("RAY_SERVE_ENABLE_HA_PROXY", raising=False)
    monkeypatch.setattr(logging.getLogger("rlplatform"), "propagate", True)
    with caplog.at_level("WARNING", "rlplatform"), server.local_ingress(ServeSettings(host="127.0.0.1")) as ingress:
        assert ingress.name == "Ray's own proxy"
        assert os.environ["RAY_SERVE_ENABLE_HA_PROXY"] == "0"
    assert "HAProxy does not run here" in caplog.text


def test_who_does_not_want_haproxy_says_so_in_rays_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "0")
    with server.local_ingress(ServeSettings(host="127.0.0.1")) as ingress:
        assert ingress.name == "Ray's own proxy"
        assert "RAY_SERVE_THROUGHPUT_OPTIMIZED" not in os.environ


def test_a_start_that_takes_long_says_what_it_waits_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "PATIENCE_S", 0.02)
    monkeypatch.setattr(logging.getLogger("rlplatform"), "propagate", True)
    with caplog.at_level("INFO", "rlplatform"), server.waiting("2 replicas"):
        while "still waiting for 2 replicas to start" not in caplog.text:
            time.sleep(0.01)
    assert "starting 2 replicas" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_start_ends_what_has_begun_and_a_second_one_does_not_disturb_that(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ended = []

    @contextmanager
    def starting(*_: object, **__: object) -> Iterator[None]:
        try:
            signal.raise_signal(number)
            yield
        finally:
            signal.raise_signal(number)
            ended.append("all")

    monkeypatch.setattr(server, "serving", starting)
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(SystemExit, match=str(128 + number)):
        server.run_service(ServeSettings(), Settings(home=tmp_path))
    assert ended == ["all"]
    assert "Giving up the start" in capfd.readouterr().err
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before
