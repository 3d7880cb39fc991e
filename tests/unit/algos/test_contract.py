"""Specs against constructors: the same options with the same defaults, derived from the signatures and never listed."""

from __future__ import annotations

from inspect import Parameter, signature
from typing import Any, get_args

import pytest
import torch
from pydantic import BaseModel
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from rlplatform.algos.build import algorithm_class, build_model
from rlplatform.algos.catalog import algorithms
from rlplatform.algos.optimizers import fuse, optimizers
from rlplatform.algos.values import ACTIVATIONS, OPTIMIZERS, constructor_value
from rlplatform.specs.algos import CLASS_ARGUMENTS, PLATFORM_ARGUMENTS, parse_algo, spec_class
from rlplatform.specs.network_options import Activation, Optimizer
from tests.unit.algos.helpers import tiny_envs

NAMES = sorted(algorithms())
POLICIES = [(name, policy) for name in NAMES for policy in sorted(algorithm_class(name).policy_aliases)]
SPEC_ONLY = {"name", "policy", "policy_kwargs"}
POLICY_FROM_ALGORITHM = {"observation_space", "action_space", "lr_schedule", "use_sde", "features_extractor_class"}
"""Arguments of a policy that its algorithm passes, and the one class that a file cannot hold."""


def _parameters(called: Any) -> dict[str, Parameter]:
    return dict(signature(called).parameters)


@pytest.mark.parametrize("name", NAMES)
def test_a_spec_has_exactly_the_options_of_its_constructor(name: str) -> None:
    arguments = set(_parameters(algorithm_class(name))) - PLATFORM_ARGUMENTS - CLASS_ARGUMENTS
    assert set(spec_class(name).model_fields) - SPEC_ONLY == arguments - SPEC_ONLY


@pytest.mark.parametrize("name", NAMES)
def test_a_spec_has_the_defaults_of_its_constructor(name: str) -> None:
    spec = parse_algo(name)
    parameters = _parameters(algorithm_class(name))
    defaults = {option: constructor_value(getattr(spec, option)) for option in set(type(spec).model_fields) - SPEC_ONLY}
    for option, value in defaults.pop("replay_buffer_kwargs", {}).items():
        assert value == _parameters(ReplayBuffer)[option].default
    given = {option: parameters[option].default for option in defaults}
    assert {option: _comparable(value) for option, value in defaults.items()} == {
        option: _comparable(value) for option, value in given.items()
    }


@pytest.mark.parametrize(("name", "policy"), POLICIES)
def test_policy_kwargs_are_those_of_the_policy_class(name: str, policy: str) -> None:
    arguments = set(_parameters(algorithm_class(name).policy_aliases[policy])) - POLICY_FROM_ALGORITHM
    fields = set(_network_fields(name))
    if policy == "LinearPolicy":
        assert arguments == fields - {"net_arch", "activation_fn"}
    else:
        assert arguments == fields


@pytest.mark.parametrize(("name", "policy"), POLICIES)
def test_policy_kwargs_have_the_defaults_of_the_policy_class(name: str, policy: str) -> None:
    parameters = _parameters(algorithm_class(name).policy_aliases[policy])
    for option, value in _network_fields(name).items():
        if value is None or value == {} or option not in parameters or (name, option) == ("ddpg", "n_critics"):
            continue  # None and {}: not passed, so the policy's own holds; DDPG sets its one critic itself.
        default = parameters[option].default
        assert (ACTIVATIONS[value] if option == "activation_fn" else value) == default, option


@pytest.mark.parametrize("name", NAMES)
def test_a_spec_lists_the_policies_of_its_algorithm(name: str) -> None:
    listed = set(get_args(spec_class(name).model_fields["policy"].annotation))
    assert listed == {"auto", *algorithm_class(name).policy_aliases}


@pytest.mark.parametrize("name", NAMES)
def test_a_default_spec_builds_the_networks_of_a_bare_constructor(name: str) -> None:
    entry = algorithms()[name]
    small = {"buffer_size": 100} if "buffer_size" in spec_class(name).model_fields else {}
    built = build_model(parse_algo({"name": name, **small}), tiny_envs(entry), seed=3, device="cpu")
    policy: Any = "MlpLstmPolicy" if entry.recurrent else "MlpPolicy"
    options: dict[str, Any] = {"seed": 3, "device": "cpu", **small}
    bare = algorithm_class(name)(policy, tiny_envs(entry), **options)
    expected = bare.policy.state_dict()
    assert built.policy.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in built.policy.state_dict().items())
    if isinstance(bare, OnPolicyAlgorithm):
        fuse(bare)
    assert [repr(optimizer) for optimizer in optimizers(built)] == [repr(optimizer) for optimizer in optimizers(bare)]


def test_every_activation_and_optimizer_of_the_specs_exists() -> None:
    assert set(ACTIVATIONS) == set(get_args(get_args(Activation)[0]))
    assert set(OPTIMIZERS) == set(get_args(Optimizer))


def _comparable(value: Any) -> Any:
    """Return schedules as text: Stable-Baselines3's are equal only to themselves."""
    return repr(value) if callable(value) else value


def _network_fields(name: str) -> dict[str, Any]:
    kwargs = spec_class(name).model_fields["policy_kwargs"].default
    assert isinstance(kwargs, BaseModel)
    return {option: getattr(kwargs, option) for option in type(kwargs).model_fields}
