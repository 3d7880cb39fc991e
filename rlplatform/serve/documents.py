"""From what the originals' documents call things to a RunSpec: names in upper case, renamed environments, limits.

Over HTTP only names of the catalogs are taken: `module:attr` would run code of the sender's choosing, and the policy of
another run is read by unpickling it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlplatform.algos.catalog import find_algorithm
from rlplatform.envs.catalog import environments, rewards, wrappers
from rlplatform.errors import RequestError, SpecError, unknown_name
from rlplatform.serve.auth import Principal
from rlplatform.serve.settings import PREFIX, ServeSettings
from rlplatform.specs.load import run_spec_from_mapping
from rlplatform.specs.run import RunSpec

RENAMED = {"LunarLander-v2": "LunarLander-v3", "LunarLanderContinuous-v2": "LunarLanderContinuous-v3"}
"""Environments of the documents that Gymnasium no longer has, and what stands for them."""
DEFAULT_TIMESTEPS = 100_000
"""Environment steps of an experiment that does not say how many; the document knows no field for them."""
MAX_SEEDS = 32
_MOVED = {"total_timesteps": ("budget", "total_timesteps"), "n_envs": ("env", "n_envs")}
"""What people write among hyper-parameters, and where a spec has it."""
PARTS = frozenset({"env", "budget", "evaluation", "checkpoint", "early_stop", "resources", "tracking"})
"""What of a run's spec a request may set, besides the algorithm and the seed."""


@dataclass(frozen=True)
class Limits:
    """What one experiment may ask for."""

    max_steps: int
    """Environment steps, over all its seeds."""
    max_seconds: float
    """Wall-clock time of one attempt."""
    max_cpus: float
    """CPUs that one run books or uses for environments."""
    max_options: Mapping[str, int]
    """Numbers that options may be, by their names."""

    @classmethod
    def of(cls, settings: ServeSettings, principal: Principal) -> Limits:
        """Return what the service and the key allow, whichever is less."""
        steps, hours = principal.max_steps, principal.max_hours
        seconds = settings.default_timeout_minutes * 60
        return cls(
            settings.max_total_timesteps if steps is None else min(steps, settings.max_total_timesteps),
            seconds if hours is None else min(hours * 3600, seconds),
            settings.max_cpus,
            settings.max_hyperparameters,
        )


@dataclass(frozen=True)
class EnvironmentName:
    """An environment of the catalog, and what to tell somebody who asked for another name of it."""

    id: str
    warnings: tuple[str, ...] = ()


def find_environment(name: str) -> EnvironmentName:
    """Return the environment of the catalog that a name means.

    Raises:
        UnknownNameError: There is none.
    """
    id = RENAMED.get(name, name)
    known = environments()
    if id not in known:
        raise unknown_name("environment", name, known)
    if id == name:
        return EnvironmentName(id)
    return EnvironmentName(id, (f"{name} is gone from Gymnasium: {id} is used, whose dynamics are mended.",))


def build_spec(
    algorithm: str,
    environment: str,
    hyperparameters: Mapping[str, Any],
    *,
    seed: int = 0,
    total_timesteps: int | None = None,
    parts: Mapping[str, Any] | None = None,
) -> RunSpec:
    """Return the spec of an experiment's runs, whose names are all in the catalogs.

    Args:
        algorithm: Its name, in upper or lower case.
        environment: Its id in the catalog.
        hyperparameters: The algorithm's options in SB3's spelling; also `total_timesteps` and `n_envs`.
        seed: Of the first run.
        total_timesteps: Environment steps of each run. None: as elsewhere said, else `DEFAULT_TIMESTEPS`.
        parts: Other parts of a run's spec, by their names there.

    Raises:
        UnknownNameError: A name is in no catalog.
        SpecError: A value is not valid, or not open to requests.
    """
    data: dict[str, Any] = {name: _mapping(name, value) for name, value in (parts or {}).items()}
    if unknown := sorted(set(data) - PARTS):
        raise SpecError(f"`spec.{unknown[0]}` cannot be set in a request. Those that can: {', '.join(sorted(PARTS))}.")
    options = dict(hyperparameters)
    for name, (part, field) in _MOVED.items():
        if name in options:
            data.setdefault(part, {})[field] = options.pop(name)
    if total_timesteps is not None:
        data.setdefault("budget", {})["total_timesteps"] = total_timesteps
    data.setdefault("budget", {}).setdefault("total_timesteps", DEFAULT_TIMESTEPS)
    data.setdefault("env", {})["id"] = environment
    name = find_algorithm(algorithm).name
    if options.setdefault("name", name) != name:
        raise SpecError(f"`hyperparameters.name` must be left out, got {options['name']!r}: `algorithm` says it.")
    data["algorithm"] = options
    data["seed"] = seed
    try:
        spec = run_spec_from_mapping(data, "the request")
    except SpecError as error:
        raise SpecError(str(error).replace("`algorithm.", "`hyperparameters.")) from error
    _check_names(spec)
    return spec


def limited(spec: RunSpec, n_seeds: int, limits: Limits) -> RunSpec:
    """Return a spec that stops by itself at the limit of time.

    Raises:
        RequestError: It asks for more than the limits allow.
    """
    for name, got in _numbers(spec.model_dump(mode="json"), limits.max_options):
        if got > (most := limits.max_options[name]):
            raise RequestError(
                f"`{name}` must be at most {most:,} here, got {got:,}. "
                f"Ask for less, or have `{PREFIX}MAX_HYPERPARAMETERS` raised."
            )
    steps, seconds = spec.budget.total_timesteps * n_seeds, spec.budget.time_limit_s
    if steps > limits.max_steps:
        raise RequestError(
            f"`total_timesteps` over {n_seeds} seed{'' if n_seeds == 1 else 's'} must be at most {limits.max_steps:,}, "
            f"got {steps:,}. Ask for fewer, or for a key that allows more."
        )
    if seconds is not None and seconds > limits.max_seconds:
        raise RequestError(f"`spec.budget.time_limit_s` must be at most {limits.max_seconds:g}, got {seconds:g}.")
    workers = (spec.env.n_workers or spec.env.n_envs) if spec.env.backend in {"subproc", "ray"} else 0
    cpus = max(spec.resources.cpus, spec.resources.torch_threads) + workers
    if cpus > limits.max_cpus:
        raise RequestError(
            f"A run may use at most {limits.max_cpus:g} CPUs, got {cpus:g}. Lower `spec.resources.cpus`, "
            "`spec.resources.torch_threads` or `spec.env.n_workers`."
        )
    budget = spec.budget.model_copy(update={"time_limit_s": seconds or limits.max_seconds})
    return spec.model_copy(update={"budget": budget})


def check_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """Return the seeds of an experiment.

    Raises:
        SpecError: There are too many, or one stands twice.
    """
    if len(seeds) > MAX_SEEDS or len(set(seeds)) < len(seeds):
        raise SpecError(f"`seeds` must be at most {MAX_SEEDS} different numbers, got {list(seeds)[:50]}.")
    return tuple(seeds)


def shown_algorithm(name: str) -> str:
    """Return an algorithm's name as the documents write it."""
    return name.upper()


def _numbers(data: Any, names: Collection[str]) -> Iterator[tuple[str, float]]:
    """Yield the name and the number of every option in `data` that is called one of `names`; of a list the sum."""
    if isinstance(data, list):
        for value in data:
            yield from _numbers(value, names)
    elif isinstance(data, dict):
        for name, value in data.items():
            if name in names:
                yield name, _total(value)
            else:
                yield from _numbers(value, names)


def _total(value: Any) -> float:
    if isinstance(value, dict | list):
        return sum(_total(part) for part in (value.values() if isinstance(value, dict) else value))
    return value if isinstance(value, int | float) else 0


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise SpecError(f"`spec.{name}` must be a mapping, got {value!r}.")
    return dict(value)


def _check_names(spec: RunSpec) -> None:
    if spec.env.reward is not None and spec.env.reward not in rewards():
        raise unknown_name("reward function", spec.env.reward, rewards())
    if spec.env.reward in {"optimized_cartpole", "simple_cartpole"} and spec.env.id != "CartPole-v1":
        raise SpecError(f"The reward function {spec.env.reward!r} is for CartPole-v1, got {spec.env.id}. Leave it out.")
    for wrapper in spec.env.wrappers:
        if wrapper.name not in wrappers():
            raise unknown_name("wrapper", wrapper.name, wrappers())
    if spec.tracking.wandb is not None:
        raise SpecError(
            "`spec.tracking.wandb` cannot be set in a request: the service has no account there. Leave it out."
        )
