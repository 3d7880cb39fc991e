"""cluster.yaml by Ray's own checks, with each of its blocks: machines of one's own, AWS, GCP."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

from rlplatform.cluster.job import JOB_STOP_WAIT_S

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "cluster.yaml").read_text(encoding="utf-8")
BLOCK = re.compile(r"^# >>> (\w+):.*?\n((?:#.*\n|.+\n)*?)# <<< \1\n", re.MULTILINE)


def config(provider: str) -> dict[str, Any]:
    """Return cluster.yaml with one of its blocks, the comment signs of which are taken away as a person would."""
    blocks = {match[1]: match[2] for match in BLOCK.finditer(TEXT)}
    assert blocks.keys() == {"local", "aws", "gcp"}
    rest = BLOCK.sub("", TEXT)
    chosen = blocks[provider]
    if provider != "local":
        assert all(line.startswith("# ") for line in chosen.splitlines())
        chosen = "".join(f"{line[2:]}\n" for line in chosen.splitlines())
    found: dict[str, Any] = yaml.safe_load(chosen + rest)
    return found


def prepared(provider: str) -> dict[str, Any]:
    """Return what Ray makes of it."""
    made: dict[str, Any] = prepare_config(config(provider))
    return made


@pytest.mark.parametrize("provider", ["local", "aws", "gcp"])
def test_ray_takes_every_block(provider: str) -> None:
    validate_config(prepared(provider))


def test_as_it_stands_it_is_for_machines_of_ones_own() -> None:
    assert yaml.safe_load(TEXT) == config("local")


def test_ray_finds_a_typing_error() -> None:
    wrong = {**prepared("local"), "idle_timeout_minute": 5}
    with pytest.raises(ValidationError, match="'idle_timeout_minute' was unexpected"):
        validate_config(wrong)


def test_machines_of_ones_own_come_and_go_between_the_limits() -> None:
    [kind] = prepared("local")["available_node_types"].values()
    assert (kind["min_workers"], kind["max_workers"]) == (1, 2)


@pytest.mark.parametrize("provider", ["aws", "gcp"])
def test_clouds_have_an_idle_head_and_workers_with_and_without_gpus(provider: str) -> None:
    made = prepared(provider)
    kinds = made["available_node_types"]
    assert kinds[made["head_node_type"]]["resources"]["CPU"] == 0
    assert all(0 == kinds[name]["min_workers"] < kinds[name]["max_workers"] for name in ("cpu", "gpu"))
    assert made["max_workers"] == sum(kinds[name]["max_workers"] for name in ("cpu", "gpu"))
    accelerated = {name for name, kind in kinds.items() if re.search("g6|guestAcc", str(kind["node_config"]))}
    assert accelerated == {"gpu"}


@pytest.mark.parametrize("provider", ["local", "aws", "gcp"])
def test_tokens_guard_every_node_and_the_dashboard_hears_its_own_machine_only(provider: str) -> None:
    made = prepared(provider)
    setup = " ".join(made["setup_commands"])
    assert "RAY_AUTH_MODE=token" in setup
    assert f"RAY_JOB_STOP_WAIT_TIME_S={JOB_STOP_WAIT_S}" in setup
    assert "RLPLATFORM_HOME=/shared/" in setup
    assert "/shared" in " ".join(made["initialization_commands"])
    assert "~/.ray/auth_token" in made["file_mounts"]
    starts = made["head_start_ray_commands"] + made["worker_start_ray_commands"]
    assert all(command.startswith(". ~/rlplatform.env; ") for command in starts)
    head = made["head_start_ray_commands"][-1]
    assert "--dashboard-host=127.0.0.1" in head
    assert "RAY_gcs_storage=rocksdb" in head


def test_every_file_that_is_sent_exists() -> None:
    sent = config("local")["file_mounts"]
    assert {local for local in sent.values() if not local.startswith("~") and not (ROOT / local).exists()} == set()
