"""Bad input: one message, exit code 2, no traceback. What nobody foresaw: exit code 1 and a place to look."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from rlplatform import cli, names
from rlplatform.errors import SpecError, TrainingFailed
from tests.e2e.cli import CONFIG, rlplatform, write_config

BAD_SETTINGS = {
    "unknown algorithm": (("algorithm.name=pppo",), "Did you mean 'ppo'?"),
    "unknown environment": (("env.id=CartPole-v7",), "CartPole-v7"),
    "unknown environment's name": (("env.id=CartPol-v1",), "or 'CartPole-v1'"),
    "unknown hyper-parameter": (("algorithm.learning_rte=0.1",), "learning_rate"),
    "hyper-parameter of another algorithm": (("algorithm.buffer_size=10",), "buffer_size"),
    "wrong type": (("env.n_envs=many",), "env.n_envs"),
    "negative steps": (("budget.total_timesteps=-5",), "budget.total_timesteps"),
    "out of range": (("algorithm.gamma=1.5",), "algorithm.gamma"),
    "batch that does not fit": (("algorithm.batch_size=100",), "batch_size"),
    "discrete-only algorithm on continuous actions": (
        ("algorithm={name: dqn}", "env.id=Pendulum-v1"),
        "dqn",
    ),
    "continuous-only algorithm on discrete actions": (("algorithm={name: sac}",), "sac"),
    "unknown wrapper": (("env.wrappers=[no_such_wrapper]",), "no_such_wrapper"),
    "unknown reward": (("env.reward=simple_cartpol",), "simple_cartpole"),
    "not a pair": (("env.n_envs",), "field=value"),
}
BAD_FILES = {
    "unreadable YAML": ("algorithm: {name: ppo\nenv: [", ":"),
    "empty": ("", "is empty"),
    "no mapping": ("- 1\n- 2\n", "must be a mapping"),
    "unknown key": (CONFIG + "buget: {}\n", "budget"),
}


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Run a command in this process and return its exit code and stderr, which holds no traceback."""
    code = cli.main(arguments)
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return code, err


@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_bad_settings_are_refused(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings, expected = BAD_SETTINGS[case]
    overrides = [word for setting in settings for word in ("--set", setting)]
    code, err = run(capsys, "train", str(write_config(tmp_path)), "--local", *overrides)
    assert code == 2
    assert expected in err
    assert not (tmp_path / "home" / names.RUNS_DIR).exists()


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_refused_with_their_name(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, expected = BAD_FILES[case]
    path = write_config(tmp_path, text)
    code, err = run(capsys, "train", str(path), "--local")
    assert code == 2
    assert str(path) in err
    assert expected in err


def test_a_missing_file_names_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_config(tmp_path)
    code, err = run(capsys, "train", str(tmp_path / "rum.yaml"))
    assert code == 2
    assert "Did you mean 'run.yaml'?" in err


@pytest.mark.parametrize(
    "command",
    [("resume",), ("evaluate",), ("runs", "show"), ("runs", "stop"), ("runs", "pause"), ("models", "publish")],
    ids=" ".join,
)
def test_an_unknown_run_is_refused(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    code, err = run(capsys, *command, "no-such-run")
    assert code == 2
    assert "There is no run 'no-such-run'" in err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("trian",), "Did you mean 'train'"),
        (("train",), "CONFIG"),
        (("train", "x.yaml", "--no-such-option"), "--no-such-option"),
        (("train", "x.yaml", "--seed", "1", "--seeds", "1,2"), "exclude each other"),
        (("train", "x.yaml", "--seeds", "a"), "Write `1,2,3` or `1-4`"),
        (("evaluate", "x", "--which", "newest"), "best or last"),
        (("runs", "list", "--state", "runing"), "Did you mean 'running'"),
        (("config", "init", "--algorithm", "pppo"), "Did you mean 'ppo'"),
        (("config", "init", "no_folder/run.yaml"), "there is no folder no_folder"),
    ],
)
def test_bad_arguments_are_refused(
    arguments: tuple[str, ...], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text(CONFIG)
    code, err = run(capsys, *arguments)
    assert code == 2
    assert expected in err


def test_an_unwritable_home_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "file"
    home.write_text("")
    monkeypatch.setenv(names.HOME_ENV_VAR, str(home))
    code, err = run(capsys, "train", str(write_config(tmp_path)), "--local")
    assert code == 2
    assert str(home) in err


def test_a_bad_setting_of_the_platform_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RLPLATFORM_LOG_LEVEL", "loud")
    code, err = run(capsys, "train", str(write_config(tmp_path)), "--local")
    assert code == 2
    assert "RLPLATFORM_LOG_LEVEL" in err


@pytest.mark.parametrize(("error", "code"), [(SpecError("yours."), 2), (TrainingFailed("ours."), 1)])
def test_exit_codes_say_whose_fault_it_was(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "app", _raising(error))
    assert run(capsys, "train") == (code, f"Error: {error}\n")


def test_an_unforeseen_error_is_one_line_and_its_traceback_is_in_the_error_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "app", _raising(ZeroDivisionError("an accident")))
    code, err = run(capsys, "train")
    log = tmp_path / "home" / "logs" / "errors.log"
    assert code == 1
    assert len(err.splitlines()) == 1
    assert "ZeroDivisionError: an accident" in err
    assert str(log) in err
    assert "Traceback" in log.read_text()


def test_output_to_a_full_disk_is_no_defect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "app", _raising(OSError(errno.ENOSPC, "No space left on device")))
    code, err = run(capsys, "algorithms")
    assert code == 2
    assert err == "Error: Output cannot be written: No space left on device. Free some, or write elsewhere.\n"


def test_debug_shows_the_traceback_wherever_it_stands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "app", _raising(SpecError("yours.")))
    assert cli.main(["train", "x.yaml", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_in_a_process_of_its_own_too(tmp_path: Path) -> None:
    done = rlplatform("train", str(write_config(tmp_path)), "--local", "--set", "algorithm.gamma=2", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def _raising(error: Exception) -> object:
    def run_app(*_: object, **__: object) -> None:
        raise error

    return run_app
