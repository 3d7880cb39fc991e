from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlplatform import logs
from rlplatform.errors import StorageError


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger(logs.ROOT_LOGGER)
    before = (root.handlers[:], root.level, root.propagate)
    yield
    for handler in root.handlers:
        if handler not in before[0]:
            handler.close()
    root.handlers[:], root.propagate = before[0], before[2]
    root.setLevel(before[1])


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_record_is_one_json_line_and_errors_are_kept_apart(tmp_path: Path) -> None:
    logs.configure(tmp_path / "logs", "info")
    log = logs.get_logger("rlplatform.train.trainer")
    log.debug("not written")
    log.info("step %d\nof many", 5, extra={"run": "a", "path": Path("x")})
    try:
        raise ValueError("bad loss")
    except ValueError:
        log.exception("run failed")
    all_lines, errors = lines(tmp_path / "logs" / "rlplatform.log"), lines(tmp_path / "logs" / "errors.log")
    assert [line["message"] for line in all_lines] == ["step 5\nof many", "run failed"]
    assert all_lines[0] | {"time": "", "process": 0} == {
        "time": "",
        "level": "info",
        "logger": "rlplatform.train.trainer",
        "message": "step 5\nof many",
        "process": 0,
        "run": "a",
        "path": "x",
    }
    assert all_lines[0]["time"].endswith("+00:00")
    assert errors == all_lines[1:]
    assert "ValueError: bad loss" in errors[0]["traceback"]


def test_the_terminal_gets_short_lines_and_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(tmp_path, "INFO")
    try:
        raise ValueError("bad loss")
    except ValueError:
        logs.get_logger("rlplatform.x").exception("run failed")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("ERROR   run failed\n")
    assert "Traceback" not in captured.err


def test_configuring_again_replaces_what_was_set(tmp_path: Path) -> None:
    logs.configure(tmp_path / "first")
    logs.configure(tmp_path / "second")
    logs.get_logger("rlplatform.x").warning("once")
    assert (tmp_path / "first" / "rlplatform.log").read_text() == ""
    assert len(lines(tmp_path / "second" / "rlplatform.log")) == 1


def test_without_a_folder_only_the_terminal_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(None, "WARNING")
    logs.get_logger("rlplatform.x").info("too quiet")
    logs.get_logger("rlplatform.x").warning("heard")
    assert capsys.readouterr().err.splitlines()[0].endswith("WARNING heard")


def test_files_turn_over_at_their_limit_and_keep_five(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (logs.MAX_BYTES, logs.BACKUPS) == (10 * 1024 * 1024, 5)
    monkeypatch.setattr(logs, "MAX_BYTES", 400)
    logs.configure(tmp_path, "ERROR")
    for number in range(30):
        logs.get_logger("rlplatform.x").error("message %d", number)
    assert len(list(tmp_path.glob("rlplatform.log*"))) == 6
    assert lines(tmp_path / "rlplatform.log")[-1]["message"] == "message 29"


def test_plain_files_on_request(tmp_path: Path) -> None:
    logs.configure(tmp_path, json=False)
    logs.get_logger("rlplatform.x").warning("hello")
    assert (tmp_path / "rlplatform.log").read_text().endswith("WARNING hello\n")


def test_a_logger_of_elsewhere_is_put_below_the_package() -> None:
    assert logs.get_logger("plugin").name == "rlplatform.plugin"
    assert logs.get_logger("rlplatform").name == "rlplatform"
    assert logs.get_logger("rlplatform.train").name == "rlplatform.train"


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file")
    with pytest.raises(StorageError, match=r"Logs cannot be written to .*logs .*Set RLPLATFORM_HOME"):
        logs.configure(tmp_path / "logs")
