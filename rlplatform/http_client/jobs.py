"""Training jobs, as the GRPO API has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rlplatform.http_client.answers import TrainingJob
from rlplatform.http_client.plans import Call, Plan, planned
from rlplatform.http_client.requests import Requests, given, segment


class JobRequests(Requests):
    """Training jobs, as the GRPO API has them."""

    @planned
    def train(
        self,
        *,
        env_name: str | None = None,
        total_timesteps: int | None = None,
        learning_rate: float | None = None,
        n_steps: int | None = None,
        batch_size: int | None = None,
        n_epochs: int | None = None,
        reward_function_type: str | None = None,
        model_name: str | None = None,
    ) -> Plan[str]:
        """Start a training job with GRPO, and return its id. What is None has the service's default.

        Args:
            env_name: An environment of the catalog.
            total_timesteps: Environment steps.
            learning_rate: Of the optimizer.
            n_steps: Steps of each environment between two updates.
            batch_size: Steps of one minibatch.
            n_epochs: Passes over the steps at each update.
            reward_function_type: A reward function of the catalog, in place of the environment's.
            model_name: What the policy is published as.
        """
        config = given(
            env_name=env_name,
            total_timesteps=total_timesteps,
            learning_rate=learning_rate,
            n_steps=n_steps,
            batch_size=batch_size,
            n_epochs=n_epochs,
            reward_function_type=reward_function_type,
            model_name=model_name,
        )
        answer = yield from self._ask(dict[str, Any], "POST", "/train", json=config)
        job_id: str = answer["job_id"]
        return job_id

    @planned
    def job_status(self, job_id: str) -> Plan[TrainingJob]:
        """Return how far a job is."""
        return self._ask(TrainingJob, "GET", f"/training/{segment(job_id)}/status")

    @planned
    def list_jobs(self) -> Plan[list[TrainingJob]]:
        """Return every job."""
        answer = yield from self._ask(dict[str, list[TrainingJob]], "GET", "/training/jobs")
        return answer["jobs"]

    @planned
    def stop_job(self, job_id: str) -> Plan[None]:
        """Stop a job."""
        return self._do(Call("POST", f"/training/{segment(job_id)}/stop"))

    @planned
    def wait_for_job(
        self,
        job_id: str,
        *,
        timeout_s: float | None = None,
        poll_s: float = 1.0,
        on_progress: Callable[[TrainingJob], object] | None = None,
    ) -> Plan[TrainingJob]:
        """Wait until a job has ended or is paused, and return it; as `wait_for_experiment`.

        Raises:
            WaitTimeoutError: It is still at work after `timeout_s`.
        """
        path = f"/training/{segment(job_id)}/status"
        return self._wait(TrainingJob, path, lambda one: one.is_at_rest, timeout_s, poll_s, on_progress)
