"""Experiments, and what they can be about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from rlplatform.http_client.answers import (
    AlgorithmInfo,
    EnvironmentInfo,
    Evaluation,
    Experiment,
    Health,
    Metrics,
    Results,
)
from rlplatform.http_client.plans import Call, Plan, planned
from rlplatform.http_client.requests import Requests, given, segment


class ExperimentRequests(Requests):
    """Experiments, and what they can be about."""

    @planned
    def health(self) -> Plan[Health]:
        """Return whether the service works, and how much it has to do."""
        return self._ask(Health, "GET", "/health")

    @planned
    def environments(self) -> Plan[list[EnvironmentInfo]]:
        """Return the environments that can be trained on."""
        return self._ask(list[EnvironmentInfo], "GET", "/environments")

    @planned
    def algorithms(self) -> Plan[list[AlgorithmInfo]]:
        """Return the algorithms, with the hyper-parameters that they have where none are given."""
        return self._ask(list[AlgorithmInfo], "GET", "/algorithms")

    @planned
    def create_experiment(
        self,
        name: str,
        algorithm: str,
        environment: str,
        *,
        hyperparameters: Mapping[str, Any] | None = None,
        total_timesteps: int | None = None,
        seed: int | None = None,
        seeds: Sequence[int] | None = None,
        spec: Mapping[str, Any] | None = None,
        description: str = "",
        hypothesis: str = "",
    ) -> Plan[Experiment]:
        """Create an experiment; `train_experiment` starts it.

        Args:
            name: For people, of 1 to 100 characters; the trained policy is published under it.
            algorithm: Its name, as `algorithms` lists them, in upper or lower case.
            environment: Its name, as `environments` lists them.
            hyperparameters: What differs from the algorithm's defaults, in Stable-Baselines3's spelling.
            total_timesteps: Environment steps of each run. None: the service's default.
            seed: Of its one run. None: the service's default.
            seeds: One run for each, instead of `seed`.
            spec: Other parts of a run's spec, such as `{"env": {"n_envs": 8}}`.
            description: For people.
            hypothesis: What is expected of it.
        """
        body = {
            "name": name,
            "algorithm": algorithm,
            "environment": environment,
            "hyperparameters": hyperparameters or {},
            "description": description,
            "hypothesis": hypothesis,
            **given(total_timesteps=total_timesteps, seed=seed, seeds=seeds, spec=spec),
        }
        return self._ask(Experiment, "POST", "/experiments", json=body)

    @planned
    def list_experiments(
        self,
        *,
        status: str | None = None,
        algorithm: str | None = None,
        name: str | None = None,
        offset: int = 0,
        limit: int | None = None,
    ) -> Plan[list[Experiment]]:
        """Return experiments, the newest first.

        Args:
            status: Only those in this state.
            algorithm: Only those with this algorithm.
            name: Only those with this in their name.
            offset: How many to pass over.
            limit: How many to return. None: the service's default.
        """
        filters = {"status": status, "algorithm": algorithm, "name": name, "offset": offset or None, "limit": limit}
        return self._ask(list[Experiment], "GET", "/experiments", params=filters)

    @planned
    def get_experiment(self, experiment_id: str) -> Plan[Experiment]:
        """Return one experiment."""
        return self._ask(Experiment, "GET", _experiment(experiment_id))

    @planned
    def update_experiment(
        self, experiment_id: str, *, status: str | None = None, hyperparameters: Mapping[str, Any] | None = None
    ) -> Plan[Experiment]:
        """Pause, go on with, or cancel an experiment, or change what it trains with.

        Args:
            experiment_id: Which.
            status: `paused`, `running` or `cancelled`. None: as it is.
            hyperparameters: What is to change; taken while it is created or paused, where the algorithm allows it.
        """
        body = given(status=status, hyperparameters=hyperparameters)
        return self._ask(Experiment, "PUT", _experiment(experiment_id), json=body)

    @planned
    def delete_experiment(self, experiment_id: str) -> Plan[None]:
        """Delete an experiment that is not at work."""
        return self._do(Call("DELETE", _experiment(experiment_id)))

    @planned
    def train_experiment(self, experiment_id: str) -> Plan[None]:
        """Start an experiment's training."""
        return self._do(Call("POST", f"{_experiment(experiment_id)}/train"))

    @planned
    def stop_experiment(self, experiment_id: str) -> Plan[None]:
        """Stop an experiment, with a checkpoint to go on from."""
        return self._do(Call("POST", f"{_experiment(experiment_id)}/stop"))

    @planned
    def resume_experiment(self, experiment_id: str, *, additional_timesteps: int = 0) -> Plan[None]:
        """Go on with an experiment that is paused or over, exactly where it was.

        Args:
            experiment_id: Which.
            additional_timesteps: How many environment steps to train beyond what was planned.
        """
        body = {"additional_timesteps": additional_timesteps}
        return self._do(Call("POST", f"{_experiment(experiment_id)}/resume", json=body))

    @planned
    def experiment_metrics(
        self,
        experiment_id: str,
        *,
        from_timestep: int | None = None,
        to_timestep: int | None = None,
        max_points: int | None = None,
    ) -> Plan[Metrics]:
        """Return what was measured, with a summary.

        Args:
            experiment_id: Of which.
            from_timestep: First environment step.
            to_timestep: Last environment step.
            max_points: Most points to return; they are thinned out evenly. None: the service's default.
        """
        params = {"from_timestep": from_timestep, "to_timestep": to_timestep, "max_points": max_points}
        return self._ask(Metrics, "GET", f"{_experiment(experiment_id)}/metrics", params=params)

    @planned
    def experiment_results(self, experiment_id: str) -> Plan[Results]:
        """Return what came of an experiment."""
        return self._ask(Results, "GET", f"{_experiment(experiment_id)}/results")

    @planned
    def evaluate_experiment(
        self,
        experiment_id: str,
        *,
        n_episodes: int = 10,
        seed: int = 0,
        deterministic: bool = True,
        which: Literal["best", "last"] = "best",
        run_seed: int | None = None,
    ) -> Plan[Evaluation]:
        """Evaluate an experiment's policy over new episodes.

        Args:
            experiment_id: Of which.
            n_episodes: From 1 to 100.
            seed: Of the episodes.
            deterministic: Take the most likely action; else draw one.
            which: The policy of the best evaluation during training, or the last one.
            run_seed: The run with this seed. None: the best one.
        """
        options = {
            "n_episodes": n_episodes,
            "seed": seed,
            "deterministic": deterministic,
            "which": which,
            **given(run_seed=run_seed),
        }
        path = f"{_experiment(experiment_id)}/evaluate"
        return self._ask(Evaluation, "POST", path, json=options, repeatable=True)

    @planned
    def wait_for_experiment(
        self,
        experiment_id: str,
        *,
        timeout_s: float | None = None,
        poll_s: float = 1.0,
        on_progress: Callable[[Experiment], object] | None = None,
    ) -> Plan[Experiment]:
        """Wait until an experiment has ended or is paused, and return it. Its `status` says how it ended.

        Args:
            experiment_id: Which.
            timeout_s: Longest wait. None: as long as it takes.
            poll_s: Pause between two looks.
            on_progress: Called with what each look shows.

        Raises:
            WaitTimeoutError: It is still at work after `timeout_s`.
        """
        path = _experiment(experiment_id)
        return self._wait(Experiment, path, lambda one: one.is_at_rest, timeout_s, poll_s, on_progress)


def _experiment(experiment_id: str) -> str:
    return f"/experiments/{segment(experiment_id)}"
