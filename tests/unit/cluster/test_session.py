"""Connecting to Ray, as far as that goes without Ray."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import ray

from rlplatform.cluster.session import ray_session
from rlplatform.errors import ResourceError


def test_the_address_of_a_dashboard_is_no_address_of_a_cluster() -> None:
    said = r"address of a dashboard.*--address 10\.0\.0\.1:6379"
    with pytest.raises(ResourceError, match=said), ray_session("http://127.0.0.1:8265"):
        pass


def test_a_cluster_that_is_not_there_is_told_at_once() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # taken, and not listened at
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        said = f"{address}' cannot be reached.*ray start --head"
        with pytest.raises(ResourceError, match=said), ray_session(address):
            pass


def test_the_variable_names_a_cluster_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "https://cluster.example")
    with pytest.raises(ResourceError, match="unset RAY_ADDRESS"), ray_session():
        pass


def test_the_private_switch_of_rays_messages_is_still_there() -> None:
    assert isinstance(ray._private.worker._worker_logs_enabled, bool)


def test_ctrl_c_while_a_local_ray_starts_leaves_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[Path] = []

    def interrupted(**options: object) -> None:
        folders.append(Path(str(options["_temp_dir"])))
        assert folders[0].is_dir()
        raise KeyboardInterrupt

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for variable in ("RAY_AUTH_TOKEN", "RAY_JOB_STOP_WAIT_TIME_S"):
        monkeypatch.setenv(variable, "1")  # set here, so that what the start sets is taken back
    monkeypatch.setattr(ray, "init", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"^$"), ray_session():
        pass
    assert not folders[0].exists()
