"""The service from Python, blocking or awaiting. It needs neither torch nor Ray.

with Client() as client:                                       # RLPLATFORM_URL, RLPLATFORM_API_KEY
    experiment = client.create_experiment("first", "ppo", "CartPole-v1", total_timesteps=50_000)
    client.train_experiment(experiment.id)
    client.wait_for_experiment(experiment.id, on_progress=print)
    client.predict("first", [0.1, 0.0, 0.05, 0.0]).action

async with AsyncClient() as client:                            # the same methods, awaited
    health = await client.health()
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import version
from types import TracebackType
from typing import Any, Self

import httpx

from rlplatform.http_client.answers import Experiment, Health, Metrics, Model, Prediction, TrainingJob
from rlplatform.http_client.deployments import DeploymentRequests
from rlplatform.http_client.errors import (
    BusyError,
    ClientError,
    ConflictError,
    InvalidRequestError,
    KeyRefusedError,
    NotFoundError,
    ServerError,
    UnreachableError,
    WaitTimeoutError,
)
from rlplatform.http_client.experiments import ExperimentRequests
from rlplatform.http_client.jobs import JobRequests
from rlplatform.http_client.plans import Awaiting, Blocking, Call, error_of
from rlplatform.http_client.policies import EpisodeRequests, PolicyRequests
from rlplatform.http_client.requests import segment
from rlplatform.http_client.streams import TIMEOUT, Listening

__all__ = [
    "AsyncClient",
    "AsyncEpisode",
    "BusyError",
    "Client",
    "ClientError",
    "ConflictError",
    "Episode",
    "Experiment",
    "Health",
    "InvalidRequestError",
    "KeyRefusedError",
    "Metrics",
    "Model",
    "NotFoundError",
    "Prediction",
    "ServerError",
    "TrainingJob",
    "UnreachableError",
    "WaitTimeoutError",
]

URL_ENV_VAR, KEY_ENV_VAR = "RLPLATFORM_URL", "RLPLATFORM_API_KEY"
DEFAULT_URL = "http://127.0.0.1:8000"


class Client(ExperimentRequests, JobRequests, PolicyRequests, DeploymentRequests, Blocking):
    """The service. One client may be used by several threads."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_s: float = 60.0,
        retries: int = 4,
        verify: ssl.SSLContext | bool = True,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Prepare to talk to a service; nothing is sent yet.

        Args:
            url: Its address. None: RLPLATFORM_URL, else `http://127.0.0.1:8000`.
            key: API key or token. None: RLPLATFORM_API_KEY, else without.
            timeout_s: Longest wait for a connection or for a part of an answer.
            retries: How often a request is sent again after 429, 503 or a broken connection, where that does no harm.
            verify: How the certificate is checked: `ssl.create_default_context(cafile=…)` for one's own authority.
            transport: What carries requests instead of the network.
        """
        super().__init__(retries)
        self._http = httpx.Client(transport=transport, verify=verify, **_settings(url, key, timeout_s))

    def send(self, call: Call) -> httpx.Response:
        """Send one request, once."""
        return self._http.send(call.request(self._http))

    def episode(self, model_name: str, *, deterministic: bool = True) -> Episode:
        """Begin an episode with a policy; see `Episode`."""
        return Episode(self, model_name, deterministic=deterministic)

    def stream_metrics(self, experiment_id: str, *, seed: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield what an experiment measures, from its beginning and then as it comes, until it pauses or is over.

        A connection that is cut is made again; nothing is missed or told twice.

        Args:
            experiment_id: Which.
            seed: Its run with this seed. None: the first one.

        Raises:
            ClientError: The service refused, or cannot be reached any more.
        """
        listening = Listening(_stream_path(experiment_id, seed), self.retries)
        while not listening.is_over:
            cut = None
            try:
                with self._http.stream("GET", listening.path, headers=listening.headers, timeout=TIMEOUT) as response:
                    if not response.is_success:
                        response.read()
                        raise error_of(response)
                    for line in response.iter_lines():
                        if (record := listening.hear(line)) is not None:
                            yield record
            except httpx.TransportError as error:
                cut = error
            if not listening.is_over:
                time.sleep(listening.pause_s(cut))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient(ExperimentRequests, JobRequests, PolicyRequests, DeploymentRequests, Awaiting):
    """The service, for programs with an event loop: the methods of `Client`, awaited."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_s: float = 60.0,
        retries: int = 4,
        verify: ssl.SSLContext | bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Prepare to talk to a service; the arguments are those of `Client`."""
        super().__init__(retries)
        self._http = httpx.AsyncClient(transport=transport, verify=verify, **_settings(url, key, timeout_s))

    async def send(self, call: Call) -> httpx.Response:
        """Send one request, once."""
        return await self._http.send(call.request(self._http))

    def episode(self, model_name: str, *, deterministic: bool = True) -> AsyncEpisode:
        """Begin an episode with a policy; see `Episode`."""
        return AsyncEpisode(self, model_name, deterministic=deterministic)

    async def stream_metrics(self, experiment_id: str, *, seed: int | None = None) -> AsyncIterator[dict[str, Any]]:
        """Yield what an experiment measures; as `Client.stream_metrics`."""
        listening = Listening(_stream_path(experiment_id, seed), self.retries)
        while not listening.is_over:
            cut = None
            try:
                asked = self._http.stream("GET", listening.path, headers=listening.headers, timeout=TIMEOUT)
                async with asked as response:
                    if not response.is_success:
                        await response.aread()
                        raise error_of(response)
                    async for line in response.aiter_lines():
                        if (record := listening.hear(line)) is not None:
                            yield record
            except httpx.TransportError as error:
                cut = error
            if not listening.is_over:
                await asyncio.sleep(listening.pause_s(cut))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Episode(EpisodeRequests, Blocking):
    """One episode with a policy: recurrent state goes back with each observation, and ends with the episode.

    episode = client.episode("cartpole")
    while not over:
        observation, _, terminated, truncated, _ = env.step(episode.act(observation).action)
        over = terminated or truncated
    """

    def __init__(self, client: Client, model_name: str, *, deterministic: bool = True) -> None:
        """Begin; `Client.episode` does."""
        super().__init__(model_name, deterministic, client.retries)
        self._client = client

    def send(self, call: Call) -> httpx.Response:
        """Send one request, once."""
        return self._client.send(call)


class AsyncEpisode(EpisodeRequests, Awaiting):
    """An `Episode` whose methods are awaited."""

    def __init__(self, client: AsyncClient, model_name: str, *, deterministic: bool = True) -> None:
        """Begin; `AsyncClient.episode` does."""
        super().__init__(model_name, deterministic, client.retries)
        self._client = client

    async def send(self, call: Call) -> httpx.Response:
        """Send one request, once."""
        return await self._client.send(call)


def _stream_path(experiment_id: str, seed: int | None) -> str:
    return f"/experiments/{segment(experiment_id)}/metrics/stream{'' if seed is None else f'?seed={seed}'}"


def _settings(url: str | None, key: str | None, timeout_s: float) -> dict[str, Any]:
    key = key if key is not None else os.environ.get(KEY_ENV_VAR)
    headers = {"User-Agent": f"rlplatform/{version('rlplatform')}"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    return {"base_url": url or os.environ.get(URL_ENV_VAR) or DEFAULT_URL, "timeout": timeout_s, "headers": headers}
