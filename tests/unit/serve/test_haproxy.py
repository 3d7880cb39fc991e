"""What our script makes of the configuration that Ray writes for HAProxy, checked by HAProxy itself."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest
import ray

from rlplatform.serve.haproxy import (
    REQUEST_RULES,
    close_config,
    find_haproxy,
    frontend_bind,
    link_certificate,
    serve_environment,
)
from tests.unit.serve.certificates import write_certificate

RAYS = """\
global
    stats socket /tmp/x/admin.sock mode 666 level admin expose-fd listeners
    nbthread 2
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
frontend prometheus
    bind :9101
    http-request use-service prometheus-exporter if { path /metrics }
frontend http_frontend
    bind 127.0.0.1:8000
    default_backend default_backend
backend default_backend
    http-request return status 404 content-type text/plain string "none"
listen stats
  bind *:8404
  stats enable
  stats uri /stats
"""


def test_every_line_that_is_closed_is_one_that_ray_writes() -> None:
    template = Path(ray.__file__).with_name("serve").joinpath("_private", "haproxy_templates.py").read_text()
    for line in (
        "stats socket {{ config.socket_path }} mode 666 level admin",
        "frontend prometheus\n    bind :{{ config.metrics_port }}",
        "frontend http_frontend\n    bind {{ config.frontend_host }}:{{ config.frontend_port }}",
        "listen stats\n  bind *:{{ config.stats_port }}",
    ):
        assert line in template
    assert template.count("    bind ") == 3  # the third is gRPC's, which is off


def test_only_the_service_itself_listens_where_it_was_asked_to() -> None:
    closed = close_config(RAYS, frontend_bind("0.0.0.0", 8443))
    binds = [line.strip() for line in closed.splitlines() if line.strip().startswith("bind")]
    assert binds == ["bind 127.0.0.1:9101", "bind 0.0.0.0:8443", "bind 127.0.0.1:8404"]
    assert "mode 600" in closed
    assert "mode 666" not in closed


def test_closing_twice_changes_nothing_more() -> None:
    bind = frontend_bind("127.0.0.1", 8000)
    assert close_config(close_config(RAYS, bind), bind) == close_config(RAYS, bind)


def test_haproxy_names_requests_and_spares_inferences_the_watch_for_clients_that_leave(tmp_path: Path) -> None:
    closed = close_config(RAYS, frontend_bind("127.0.0.1", 8000))
    frontend = closed[closed.index("frontend http_frontend") : closed.index("backend default_backend")]
    assert all(frontend.count(rule) == 1 for rule in REQUEST_RULES)
    assert all(closed.count(rule) == 1 for rule in REQUEST_RULES)
    constants = Path(ray.__file__).with_name("serve").joinpath("_private", "constants.py").read_text()
    for header in ("x-request-id", "x-request-disconnect-disabled"):
        assert f'"{header}"' in constants
        assert any(f"set-header {header} " in rule for rule in REQUEST_RULES)
    haproxy, config = find_haproxy(), tmp_path / "haproxy.cfg"
    assert haproxy is not None
    config.write_text(closed.replace("/tmp/x", str(tmp_path)))
    checked = subprocess.run([haproxy, "-c", "-f", str(config)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(
    ("host", "expected"), [("::1", "[::1]:80"), ("[::1]", "[::1]:80"), ("localhost", "localhost:80")]
)
def test_an_address_of_ipv6_is_written_in_brackets(host: str, expected: str) -> None:
    assert frontend_bind(host, 80) == expected


def test_haproxy_takes_the_configuration_with_tls(tmp_path: Path) -> None:
    haproxy = find_haproxy()
    assert haproxy is not None
    certfile, keyfile = write_certificate(tmp_path)
    folder = tmp_path / "private"
    folder.mkdir()
    bind = frontend_bind("127.0.0.1", free_port(), link_certificate(folder, certfile, keyfile))
    config = tmp_path / "haproxy.cfg"
    config.write_text(close_config(RAYS.replace("/tmp/x/admin.sock", str(tmp_path / "a.sock")), bind))
    done = subprocess.run([haproxy, "-c", "-f", str(config)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ssl crt" in config.read_text()


def test_ray_starts_our_script_which_only_its_user_may_run_or_change(tmp_path: Path) -> None:
    environment = serve_environment(tmp_path / "folder", "/bin/true", "127.0.0.1:8000")
    script = Path(environment["RAY_SERVE_HAPROXY_BINARY_PATH"])
    assert oct(script.stat().st_mode & 0o777) == "0o700"
    config = tmp_path / "haproxy.cfg"
    config.write_text(RAYS)
    done = subprocess.run([script, "-db", "-f", config], env={**os.environ, **environment}, check=False)
    assert done.returncode == 0
    assert config.read_text() == close_config(RAYS, "127.0.0.1:8000")


def test_without_haproxy_rays_own_proxy_serves(tmp_path: Path) -> None:
    assert serve_environment(tmp_path, None, "127.0.0.1:8000") == {"RAY_SERVE_ENABLE_HA_PROXY": "0"}


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
