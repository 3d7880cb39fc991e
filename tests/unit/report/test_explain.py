"""A spec as a list of values and origins."""

from __future__ import annotations

from pathlib import Path

from rlplatform.report.explain import explain_spec
from rlplatform.specs.load import load_run_spec


def test_every_value_is_listed_with_its_origin(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("algorithm: {name: ppo}\nenv: {id: CartPole-v1}\nbudget:\n  total_timesteps: 1000\n")
    environ = {"RLPLATFORM_SET__ENV__N_ENVS": "4"}
    loaded = load_run_spec(config, overrides=["algorithm.gamma=0.9"], environ=environ)
    values = {value.field: value for value in explain_spec(loaded.spec, loaded.origins)}
    assert values["budget.total_timesteps"].origin == f"{config}:4"
    assert (values["env.n_envs"].text, values["env.n_envs"].origin) == ("4", "RLPLATFORM_SET__ENV__N_ENVS")
    assert (values["algorithm.gamma"].value, values["algorithm.gamma"].origin) == (0.9, "--set algorithm.gamma=0.9")
    assert (values["seed"].text, values["seed"].origin) == ("0", "default")
