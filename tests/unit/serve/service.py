"""The whole app in this process, without Ray, and a client of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from starlette.types import ASGIApp

from rlplatform.serve.app import create_app
from rlplatform.serve.gateway import Gateway, open_gateway
from rlplatform.serve.run_view import RecordedRuns
from rlplatform.serve.settings import ServeSettings
from rlplatform.specs.settings import Settings


class DescribedRuns(RecordedRuns):
    """Runs as they are recorded, with an environment and an evaluation that cost nothing."""

    async def environments(self) -> list[dict[str, Any]]:
        space = {"type": "Discrete", "shape": [], "dtype": "int64", "n": 2}
        return [{"name": "CartPole-v1", "description": "A pole.", "observation_space": {}, "action_space": space}]

    async def evaluate(self, run_path: Path, which: str, n_episodes: int, seed: int, *, deterministic: bool) -> Any:
        mean = {"return_mean": 7.0, "return_std": 1.0, "return_ci_low": 6.0, "return_ci_high": 8.0, "length_mean": 7.0}
        returns = [7.0] * n_episodes
        return {**mean, "n_episodes": n_episodes, "success_rate": None, "returns": returns, "lengths": [7], "step": 64}


@dataclass(frozen=True)
class Service:
    """The app and what it is made of."""

    gateway: Gateway
    app: ASGIApp

    def ask(self, method: str, path: str, token: str | None = None, **request: Any) -> httpx.Response:
        """Send one request."""

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
                if token:
                    client.headers["Authorization"] = f"Bearer {token}"
                return await client.request(method, path, **request)

        return asyncio.run(send())

    def json(self, method: str, path: str, status: int = 200, **request: Any) -> Any:
        """Send one request, check the status of the answer, and return its body."""
        answer = self.ask(method, path, **request)
        assert answer.status_code == status, answer.text
        return answer.json()


@contextmanager
def service(home: Path, **settings: Any) -> Iterator[Service]:
    """Open the service on a home of its own."""
    with open_gateway(ServeSettings(**settings), Settings(home=home), runs=DescribedRuns()) as gateway:
        yield Service(gateway, create_app(gateway))
