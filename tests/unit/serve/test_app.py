"""The app as a whole: its documentation, what it says of itself, browsers, and the variables of the documents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rlplatform.errors import SpecError
from rlplatform.serve.settings import load_serve_settings
from tests.unit.serve.service import Service, service

SECRET = "a-secret-of-more-than-32-characters!"
ALLOWED = "Access-Control-Allow-Origin"
PRINTED = """
RL_API_HOST=0.0.0.0
RL_API_PORT=8000
RL_API_DEBUG=false
RL_API_CORS_ORIGINS="http://localhost:3000,http://localhost:8080"
RL_API_LOG_LEVEL="INFO"
RL_API_LOG_DIR="logs/api"
RL_API_MAX_CONCURRENT_EXPERIMENTS=3
RL_API_DEFAULT_TIMEOUT_MINUTES=60
RL_API_WORKERS=4
"""
"""The variables of the document, as they are printed there."""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("home"), secret_key=SECRET, cors_origins=("https://lab.example.org",)) as app:
        yield app


@pytest.mark.parametrize(
    ("path", "holds"), [("/docs", "swagger-ui"), ("/redoc", "redoc"), ("/openapi.json", '"openapi":"3')]
)
def test_the_documentation_is_served(app: Service, path: str, holds: str) -> None:
    answer = app.ask("GET", path)
    assert answer.status_code == 200
    assert holds in answer.text


def test_every_operation_is_documented_and_has_a_summary(app: Service) -> None:
    paths = app.json("GET", "/openapi.json")["paths"]
    assert {"/experiments/{id}/train", "/train", "/inference", "/v2/models/{model}/infer", "/models"} <= paths.keys()
    bare = [
        f"{method} {path}"
        for path, operations in paths.items()
        for method, operation in operations.items()
        if not (operation.get("description") or operation.get("summary"))
    ]
    assert bare == []


def test_what_it_says_of_itself_is_the_union_of_both_documents(app: Service) -> None:
    assert app.json("GET", "/").keys() >= {"message", "version", "docs", "health", "endpoints"}
    assert app.json("GET", "/health").keys() >= {
        *("status", "timestamp", "version", "uptime_seconds", "active_experiments"),
        *("active_jobs", "loaded_models"),
    }


def test_the_configuration_is_shown_without_secrets(app: Service) -> None:
    answer = app.ask("GET", "/config")
    assert answer.json()["rl_system"]["max_concurrent_experiments"] == 3
    assert SECRET not in answer.text


def test_pages_of_named_origins_may_call_from_browsers_and_others_may_not(app: Service) -> None:
    def ask(origin: str) -> str | None:
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        allowed: str | None = app.ask("OPTIONS", "/experiments", headers=asked).headers.get(ALLOWED)
        return allowed

    assert ask("https://lab.example.org") == "https://lab.example.org"
    assert ask("https://evil.example.org") is None
    plain = app.ask("GET", "/health", headers={"Origin": "https://lab.example.org"})
    assert plain.headers[ALLOWED] == "https://lab.example.org"
    assert "Access-Control-Allow-Credentials" not in plain.headers


def test_the_documents_variables_are_taken_as_they_are_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(PRINTED, encoding="utf-8")
    settings = load_serve_settings()
    assert (settings.host, settings.port, settings.debug, settings.workers) == ("0.0.0.0", 8000, False, 4)
    assert settings.cors_origins == ("http://localhost:3000", "http://localhost:8080")
    assert (settings.log_level, settings.log_dir) == ("INFO", Path("logs/api"))
    assert (settings.max_concurrent_experiments, settings.default_timeout_minutes) == (3, 60)
    monkeypatch.setenv("RL_API_PORT", "8001")
    assert load_serve_settings().port == 8001
    assert load_serve_settings(port=8002).port == 8002


def test_a_secret_that_can_be_guessed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RL_API_SECRET_KEY", "your-secure-secret-key")
    with pytest.raises(SpecError, match=r"`RL_API_SECRET_KEY` must have at least 32 characters\.") as caught:
        load_serve_settings()
    assert "your-secure" not in str(caught.value)
