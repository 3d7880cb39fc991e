"""Making a spec definite before anything starts: every `auto` of the environments, and what only real spaces tell."""

from __future__ import annotations

from rlplatform.algos.build import check_spaces
from rlplatform.envs.make import resolve_env, spaces_of
from rlplatform.specs.run import RunSpec


def resolve(spec: RunSpec) -> RunSpec:
    """Return the spec with every `auto` of `env` decided and the algorithm checked against the environment.

    Raises:
        UnknownNameError: The environment, a wrapper or a reward is in no catalog.
        MissingPackageError: The environment needs a package that is not installed.
        AlgorithmError: The algorithm cannot act in the environment.
    """
    env = resolve_env(spec.env, spec.seed)
    observation_space, action_space = spaces_of(env)
    check_spaces(spec.algorithm, observation_space, action_space, env.id)
    return spec.model_copy(update={"env": env})
