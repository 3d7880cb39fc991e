"""RunSpec: everything that one training is asked to be.

A *run* is one training with one seed. Its spec is read from YAML, checked here, written into the run's folder with
every ``auto`` resolved, and never changed after, except by amendments that the run records.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, SerializeAsAny, field_validator, model_validator

from rlplatform.specs.algos import AlgoSpec, parse_algo
from rlplatform.specs.base import Spec

Backend = Literal["auto", "sync", "subproc", "vector", "envpool", "ray"]
EnvState = Literal["auto", "replay", "snapshot", "rebuild"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]


class WrapperSpec(Spec):
    """One wrapper around each environment."""

    name: str
    """A name from the wrapper catalog, or `module:Class` of one's own."""
    kwargs: dict[str, JsonValue] = {}
    """Keyword arguments of the wrapper's constructor."""


class NormalizeSpec(Spec):
    """Running normalisation of what the agent sees (SB3's VecNormalize)."""

    obs: bool = False
    """Subtract the running mean of observations and divide by their standard deviation."""
    reward: bool = False
    """Divide rewards by the standard deviation of the discounted return. Evaluation always reports the true return."""
    clip_obs: Annotated[float, Field(gt=0)] = 10.0
    """Largest absolute value of a normalised observation."""
    clip_reward: Annotated[float, Field(gt=0)] = 10.0
    """Largest absolute value of a normalised reward."""
    gamma: Annotated[float, Field(gt=0, le=1)] | None = None
    """Discount of the return whose deviation scales rewards. None: the algorithm's `gamma`."""
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the variance before the square root."""


class EnvSpec(Spec):
    """The environments of one run."""

    id: Annotated[str, Field(min_length=1)]
    """A Gymnasium id such as `CartPole-v1`, or `module:Class` of one's own."""
    kwargs: dict[str, JsonValue] = {}
    """Keyword arguments of the environment's constructor."""
    n_envs: Annotated[int, Field(ge=1, le=4096)] = 1
    """Environments stepped together."""
    backend: Backend = "auto"
    """How they are stepped: in this process one by one (`sync`), as one NumPy environment (`vector`), in subprocesses
    (`subproc`), in EnvPool's threads (`envpool`), in Ray actors (`ray`). `auto` is resolved once, never to EnvPool."""
    n_workers: Annotated[int, Field(ge=1)] | None = None
    """Processes or actors of `subproc` and `ray`; the environments are split evenly. None: one for each environment."""
    max_episode_steps: Annotated[int, Field(ge=1)] | None = None
    """Truncate episodes after this many steps. None: what the environment's registration says."""
    wrappers: tuple[WrapperSpec, ...] = ()
    """Applied in order, the first innermost."""
    reward: str | None = None
    """A reward function's name, or `module:function`, to train on instead of the environment's reward."""
    normalize: NormalizeSpec = NormalizeSpec()
    """Normalisation of observations and rewards."""
    state: EnvState = "auto"
    """How the environments' inside comes back on resume: by replaying each episode's actions (`replay`), by copying
    (`snapshot`, vector environments), or by rebuilding them at every scheduled checkpoint (`rebuild`). `auto` tries and
    verifies."""

    @field_validator("wrappers", mode="before")
    @classmethod
    def _names_are_wrappers(cls, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return tuple({"name": item} if isinstance(item, str) else item for item in value)
        return value


class BudgetSpec(Spec):
    """How long a run trains."""

    total_timesteps: Annotated[int, Field(ge=1, le=10**12)]
    """Environment steps, summed over all environments. The last rollout may go past it."""
    time_limit_s: Annotated[float, Field(gt=0)] | None = None
    """Wall-clock seconds of one attempt, after which the run stops with a checkpoint. None: no limit."""


class EvaluationSpec(Spec):
    """Evaluation on environments apart from training, seeded episode by episode, on the true return."""

    every_steps: Annotated[int, Field(ge=1)] | None = 10_000
    """Environment steps between evaluations. None: only the final one."""
    n_episodes: Annotated[int, Field(ge=1)] = 10
    """Episodes of each evaluation during training."""
    final_episodes: Annotated[int, Field(ge=0)] = 100
    """Episodes of the evaluation of the last policy when the run completes, on seeds used nowhere else. 0: none."""
    deterministic: bool = True
    """Act greedily."""
    success_threshold: float | None = None
    """An episode with at least this return is a success. None: the environment's registered reward threshold."""


class CheckpointSpec(Spec):
    """When everything needed to go on is written."""

    every_steps: Annotated[int, Field(ge=1)] | None = 25_000
    """Environment steps between scheduled checkpoints. None: only when the run ends or is stopped."""
    keep_last: Annotated[int, Field(ge=1)] = 3
    """Newest checkpoints kept; the best policy is kept besides."""


class EarlyStopSpec(Spec):
    """When evaluation says that more training is of no use."""

    target_return: float | None = None
    """Stop when an evaluation's mean return reaches this."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many evaluations in a row without improvement. None: never."""
    min_improvement: Annotated[float, Field(ge=0)] = 0.0
    """What the mean return must gain over the best so far to count as an improvement."""


class ResourceSpec(Spec):
    """What a run's driver process books and uses."""

    cpus: Annotated[float, Field(ge=0, le=4096)] = 1.0
    """CPUs booked with Ray for the driver; environment workers are booked besides."""
    gpus: Annotated[float, Field(ge=0, le=1024)] = 0.0
    """GPUs booked with Ray. Below 1, the fraction is also enforced as a cap of GPU memory."""
    memory_bytes: Annotated[int, Field(ge=0)] | None = None
    """Memory booked with Ray. None: not booked."""
    torch_threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """Threads of torch's CPU operators. Small networks are fastest with 1."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda|cuda:\d+|mps)$")] = "auto"
    """Where the networks live. `auto` is the booked GPU, else the CPU."""


class WandbSpec(Spec):
    """Weights & Biases: one W&B run for each run."""

    project: str = "rlplatform"
    entity: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()
    mode: Literal["online", "offline"] = "online"
    """`offline` writes below the run's folder, to be uploaded later with `wandb sync`."""


class TrackingSpec(Spec):
    """Where metrics go, besides the run's metrics.jsonl."""

    log_every_steps: Annotated[int, Field(ge=1)] = 1_000
    """Environment steps between two records of training metrics; records come at rollout boundaries."""
    tensorboard: bool = True
    csv: bool = True
    """Also write metrics.csv, with one column for each key, when the run ends."""
    wandb: WandbSpec | None = None


class InitSpec(Spec):
    """Fine-tuning: start from the policy of another run."""

    run: Annotated[str, Field(min_length=1)]
    """A run's id, or the path of a run, a checkpoint or a policy folder."""
    which: Literal["best", "last"] = "best"
    """Which of the run's policies."""


class RunSpec(Spec):
    """One training, one seed."""

    algorithm: SerializeAsAny[AlgoSpec]
    """The algorithm by `name`, with its own options in SB3's spelling."""
    env: EnvSpec
    budget: BudgetSpec
    name: Name | None = None
    """What the run is called in lists. None: `<env>-<algorithm>`."""
    seed: Seed = 0
    evaluation: EvaluationSpec = EvaluationSpec()
    checkpoint: CheckpointSpec = CheckpointSpec()
    early_stop: EarlyStopSpec = EarlyStopSpec()
    resources: ResourceSpec = ResourceSpec()
    tracking: TrackingSpec = TrackingSpec()
    init_from: InitSpec | None = None
    """Start from another run's policy instead of a fresh one."""

    @field_validator("algorithm", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return parse_algo(value)

    @model_validator(mode="after")
    def _rollout_fits(self) -> RunSpec:
        self.algorithm.check_n_envs(self.env.n_envs)
        return self

    @property
    def title(self) -> str:
        """The run's name, or `<env>-<algorithm>` in lower case."""
        return self.name or f"{self.env.id.split(':')[-1]}-{self.algorithm.name}".lower().replace("/", "-")

    def training_digest(self) -> str:
        """Return the sha256 of what decides the trajectory: everything but the name, tracking and booked resources."""
        return self.model_copy(
            update={"resources": ResourceSpec(torch_threads=self.resources.torch_threads, device=self.resources.device)}
        ).digest({"name", "tracking"})
