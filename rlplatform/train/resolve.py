"""Making a spec definite before anything starts: every `auto` of the environments, and what only real spaces tell."""

from __future__ import annotations

from typing import Any

from gymnasium import spaces

from rlplatform.algos.build import check_spaces
from rlplatform.envs.make import resolve_env, spaces_of
from rlplatform.errors import SpecError
from rlplatform.specs.run import RunSpec


def resolve(spec: RunSpec) -> RunSpec:
    """Return the spec with every `auto` of `env` decided and the algorithm checked against the environment.

    Raises:
        UnknownNameError: The environment, a wrapper or a reward is in no catalog.
        MissingPackageError: The environment needs a package that is not installed.
        AlgorithmError: The algorithm cannot act in the environment.
        SpecError: `env.normalize.obs` asks for the mean of observations that have none.
    """
    env = resolve_env(spec.env, spec.seed)
    observation_space, action_space = spaces_of(env)
    check_spaces(spec.algorithm, observation_space, action_space, env.id)
    if env.normalize.obs:
        _check_have_a_mean(observation_space, env.id)
    return spec.model_copy(update={"env": env})


def _check_have_a_mean(observation_space: spaces.Space[Any], env_id: str) -> None:
    parts = observation_space.values() if isinstance(observation_space, spaces.Dict) else (observation_space,)
    if not all(isinstance(part, spaces.Box) for part in parts):
        raise SpecError(
            f"`env.normalize.obs` needs observations that are Box arrays, `{env_id}` has {observation_space}. "
            "Leave it off, or use the wrapper flatten_observation."
        )
