"""The image and the compose file, as far as they can be checked without a container engine."""

from __future__ import annotations

import importlib.resources
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from rlplatform.serve.settings import ServeSettings
from tests.live_app import live_service

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SECRET = re.compile(r"SECRET|PASSWORD|KEY|TOKEN", re.IGNORECASE)


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions, comments left out and continued lines joined."""
    lines = [line for line in (DEPLOY / "Dockerfile").read_text("utf-8").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def last(name: str) -> str:
    return [rest for word, rest in instructions() if word == name][-1]


def health_check() -> list[str]:
    words: list[str] = json.loads(last("HEALTHCHECK").partition("CMD ")[2])
    return words


# --- the image --------------------------------------------------------------------------------------------------------


def test_the_service_does_not_run_as_root() -> None:
    words = [word for word, _ in instructions()]
    assert int(last("USER")) > 0
    assert words.index("USER") > max(index for index, word in enumerate(words) if word in {"RUN", "COPY"})


def test_the_image_is_built_from_what_the_repository_has_and_the_builder_is_given() -> None:
    given = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let_in = [line.removeprefix("!") for line in given if line.startswith("!")]
    copied = [
        source
        for word, rest in instructions()
        if word == "COPY" and "--from" not in rest
        for source in shlex.split(rest)[:-1]
    ]
    assert sorted(copied) == sorted(let_in)
    assert [source for source in copied if not (ROOT / source).exists()] == []
    assert "*" in given
    assert not any(fnmatch(".env", pattern) for pattern in let_in)


def test_versions_are_pinned_and_torch_is_for_the_cpu_unless_said_otherwise() -> None:
    install = next(rest for word, rest in instructions() if word == "RUN" and "pip install" in rest)
    assert "-c constraints.txt" in install
    assert "'.[postgres]'" in install
    assert last("ARG") == "TORCH_INDEX=https://download.pytorch.org/whl/cpu"
    for index, extra in (("", []), ("https://index", ["--extra-index-url", "https://index"])):
        option = re.search(r"\$\{TORCH_INDEX:\+.*?\}", install)
        assert option is not None
        said = f"printf '%s\\n' {option[0]}"
        done = subprocess.run(
            ["sh", "-c", said], env={"TORCH_INDEX": index}, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == extra


def test_no_secret_is_in_the_image() -> None:
    set_here = " ".join(rest for word, rest in instructions() if word in {"ENV", "ARG"})
    assert not SECRET.search(set_here)


def test_what_the_image_runs_is_a_command_of_ours() -> None:
    from typer.testing import CliRunner

    from rlplatform.cli import app

    program, *words = json.loads(last("CMD"))
    assert program == "rlplatform"
    assert words == ["serve", "--host", "0.0.0.0"]
    assert CliRunner().invoke(app, [words[0], "--help"]).exit_code == 0


def enter(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    shell, script = json.loads(last("ENTRYPOINT"))
    return subprocess.run(
        [shell, str(ROOT / script), *command],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_entry_point_reads_secrets_from_files(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("$(s e'c\"r\n\n", encoding="utf-8")
    show = ("printenv", "RL_API_SECRET_KEY")
    assert enter(*show, RL_API_SECRET_KEY_FILE=str(tmp_path / "secret")).stdout == "$(s e'c\"r\n"
    assert enter(*show, RL_API_SECRET_KEY="given").stdout == "given\n"
    assert enter("sh", "-c", "exit 7").returncode == 7
    missing = enter("true", PGPASSWORD_FILE=str(tmp_path / "none"))
    assert missing.returncode != 0
    assert "none" in missing.stderr


# --- its health check -------------------------------------------------------------------------------------------------


def check(**variables: str) -> subprocess.CompletedProcess[str]:
    """Run the image's health check, with this interpreter in place of the image's."""
    interpreter, script = health_check()
    assert interpreter == "python"
    environment = {**os.environ, **variables}
    return subprocess.run(
        [sys.executable, script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module", params=[(), ("rl.example.org", "other.example.org")], ids=["any host", "named hosts"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    settings = ServeSettings(host="0.0.0.0", trusted_hosts=request.param)
    with live_service(tmp_path_factory.mktemp("home"), settings) as (address, _):
        yield {"RL_API_PORT": address.rpartition(":")[2], "RL_API_TRUSTED_HOSTS": ",".join(request.param)}


def test_the_health_check_knows_a_live_service(service: dict[str, str]) -> None:
    done = check(**service)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_health_check_knows_a_dead_service() -> None:
    done = check(RL_API_PORT="1")
    assert done.returncode == 1
    assert "http://127.0.0.1:1/health: " in done.stderr


# --- compose ----------------------------------------------------------------------------------------------------------


def test_the_compose_file_is_one_by_its_specification() -> None:
    schemas = importlib.resources.files("check_jsonschema.builtin_schemas") / "vendor"
    jsonschema.validate(COMPOSE, json.loads((schemas / "compose-spec.json").read_text(encoding="utf-8")))


def test_no_secret_has_a_default_or_stands_in_a_variable() -> None:
    assert {name: list(source) for name, source in COMPOSE["secrets"].items()} == {
        "postgres_password": ["environment"],
        "api_secret_key": ["environment"],
    }
    for service in COMPOSE["services"].values():
        for name, value in service["environment"].items():
            if SECRET.search(name):
                assert value.startswith("/run/secrets/")
                assert value.removeprefix("/run/secrets/") in service["secrets"]
            assert not re.search(r"://[^/@]*:[^/@]*@", value), "a password in an address"


def test_the_variables_of_the_service_are_ones_it_reads() -> None:
    from rlplatform.specs.settings import Settings

    known = {f"RL_API_{name.upper()}" for name in ServeSettings.model_fields}
    known |= {f"RLPLATFORM_{name.upper()}" for name in Settings.model_fields}
    from_files = set(re.findall(r"\b[A-Z_]{6,}\b", re.search(r"for name in (.*);", _entry_point())[1]))  # type: ignore[index]
    given = COMPOSE["services"]["service"]["environment"]
    assert set(given) <= known | {f"{name}_FILE" for name in from_files}
    used = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text(encoding="utf-8")))
    assert used <= known | {"RL_API_PUBLISH"}


def _entry_point() -> str:
    return (DEPLOY / "entrypoint.sh").read_text(encoding="utf-8")


def test_the_service_waits_for_a_database_that_is_healthy_and_both_keep_their_data() -> None:
    service, database = COMPOSE["services"]["service"], COMPOSE["services"]["database"]
    assert service["depends_on"]["database"]["condition"] == "service_healthy"
    assert database["healthcheck"]["test"][1] == "pg_isready"
    mounted = [volume.partition(":")[0] for one in (service, database) for volume in one["volumes"]]
    assert sorted(mounted) == sorted(COMPOSE["volumes"])
    assert service["environment"]["RLPLATFORM_DATABASE_URL"].rpartition("@")[2] == "database/rlplatform"


def test_only_this_machine_reaches_the_service_unless_said_otherwise() -> None:
    assert COMPOSE["services"]["service"]["ports"] == ["${RL_API_PUBLISH:-127.0.0.1:8000}:8000"]
    assert "ports" not in COMPOSE["services"]["database"]
