"""What is refused of a search before anything starts, and what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlplatform.errors import SpecError
from rlplatform.specs.search import SearchSpec, apply_point
from rlplatform.specs.search_checks import check_search
from rlplatform.specs.search_load import load_search_spec

GAMMA = {"algorithm.gamma": {"type": "uniform", "low": 0.9, "high": 0.99}}
RATE = {"algorithm.learning_rate": {"type": "loguniform", "low": 1e-5, "high": 1e-2}}
WIDTH = {"algorithm.policy_kwargs.net_arch": {"type": "choice", "values": [[16], [64, 64]]}}


def search(space: dict[str, Any], *, algorithm: dict[str, Any] | None = None, **fields: Any) -> SearchSpec:
    """A search on PPO with 4 environments, 10,000 steps and an evaluation every 1,000."""
    run = {
        "algorithm": {"name": "ppo", "n_steps": 64, "batch_size": 64, **(algorithm or {})},
        "env": {"id": "CartPole-v1", "n_envs": 4},
        "budget": {"total_timesteps": 10_000},
        "evaluation": {"every_steps": 1_000},
    }
    return SearchSpec.model_validate({"run": run, "space": space, **fields})


SAC = {"algorithm": {"name": "sac"}, "env": {"id": "E-v0"}, "budget": {"total_timesteps": 20_000}}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            {"algorithm.gama": {"type": "uniform", "low": 0, "high": 1}},
            r"`algorithm.gama` is not an option of `ppo`\. Did",
        ),
        (
            {"algoritm.gamma": {"type": "uniform", "low": 0, "high": 1}},
            r"`algoritm` is not a field of a run's spec\. Did",
        ),
        (
            {"env.nenvs": {"type": "choice", "values": [1]}},
            r"`env.nenvs` is not a field of `env`. Did you mean 'n_envs'",
        ),
        (
            {"algorithm.gamma": {"type": "uniform", "low": 0.9, "high": 1.1}},
            r"`algorithm.gamma` must be in \[0, 1\], got 1.1",
        ),
        ({"algorithm.gamma": {"type": "choice", "values": [0.9, "x"]}}, r"`algorithm.gamma` must be a number, got 'x'"),
        ({"algorithm.gamma": {"type": "choice", "values": [True]}}, r"`algorithm.gamma` must be a number, got true"),
        (
            {"algorithm.n_epochs": {"type": "uniform", "low": 1, "high": 9}},
            r"n_epochs` must be a whole number, got 4\.02",
        ),
        ({"algorithm.n_epochs": {"type": "loguniform", "low": 1, "high": 9}}, r"`algorithm.n_epochs` must be a whole"),
        (
            {"algorithm.gamma.initial": {"type": "choice", "values": [1]}},
            r"`algorithm.gamma` is 0.99 and has no `initial`",
        ),
        (
            {"algorithm.name": {"type": "choice", "values": ["a2c"]}},
            r"`algorithm.name` is the same in every trial: algo",
        ),
        ({"env.id": {"type": "choice", "values": ["A-v0"]}}, r"`env.id` is the same in every trial: returns of two"),
        (
            {"seed": {"type": "int", "low": 0, "high": 9}},
            r"`seed` is the same in every trial: list seeds in `objective",
        ),
        (
            {"budget.total_timesteps": {"type": "int", "low": 1, "high": 9}},
            r"`budget.total_timesteps` is the same in ev",
        ),
        (
            {"resources.gpus": {"type": "choice", "values": [0, 1]}},
            r"`resources.gpus` is the same in every trial: trials",
        ),
        (
            {**RATE, "algorithm.learning_rate.initial": {"type": "choice", "values": [1]}},
            r"`algorithm.learning_rate.initial` is a part of `algorithm.learning_rate`, which is searched as a whole",
        ),
    ],
)
def test_a_parameter_that_cannot_be_searched_is_refused(space: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        check_search(search(space))


def test_every_parameter_with_a_problem_is_named_once() -> None:
    wrong = {
        "algorithm.gama": {"type": "choice", "values": [1, 2, 3]},
        "algorithm.n_epoch": {"type": "grid", "values": [1]},
    }
    with pytest.raises(SpecError, match=r"^2 problems:\n.*`algorithm.gama` .*\n.*`algorithm.n_epoch` is [^\n]*$"):
        check_search(search(wrong))


def test_values_that_do_not_go_together_are_refused_with_how_many_points_they_spoil() -> None:
    sizes = {"algorithm.batch_size": {"type": "choice", "values": [64, 100]}}
    with pytest.raises(
        SpecError,
        match=r"`algorithm.batch_size` must divide the rollout .* got 100\. .* \d+ of the 200 that were tried",
    ):
        check_search(search({**sizes, **GAMMA}))


def test_values_are_judged_together_not_against_the_base() -> None:
    both = {
        "algorithm.n_steps": {"type": "choice", "values": [256, 512]},
        "algorithm.batch_size": {"type": "choice", "values": [64, 1024]},
    }
    check_search(search(both))


def test_a_condition_keeps_values_apart_that_do_not_go_together() -> None:
    noise = {"algorithm.use_sde": {"type": "choice", "values": [True, False]}}
    squash = {"type": "choice", "values": [True]}
    name = "algorithm.policy_kwargs.squash_output"
    with pytest.raises(SpecError, match=r"squash_output` needs `use_sde: true`"):
        check_search(search({**noise, name: squash}))
    check_search(search({**noise, name: {**squash, "when": {"algorithm.use_sde": True}}}))


@pytest.mark.parametrize(
    ("when", "message"),
    [
        (
            {"algorithm.gama": 1},
            r"looks at `algorithm.gama`, which is no dimension above it\. Did you mean 'algorithm.gamma'",
        ),
        ({"algorithm.vf_coef": 1}, r"looks at `algorithm.vf_coef`, which is no dimension above it\. Move it up"),
        ({"algorithm.n_epochs": 1}, r"looks at `algorithm.n_epochs`, which is no dimension above it\. Did"),
        ({"algorithm.gamma": 0.5}, r"waits for `algorithm.gamma` to be 0.5, which it never is"),
        ({"algorithm.gamma": [0.95, 0.5]}, r"waits for `algorithm.gamma` to be 0.5, which it never is"),
    ],
)
def test_a_condition_that_can_never_hold_is_refused(when: dict[str, Any], message: str) -> None:
    space = {
        **GAMMA,
        "algorithm.n_epochs": {"type": "int", "low": 1, "high": 9, "when": when},
        "algorithm.vf_coef": {"type": "uniform", "low": 0, "high": 1},
    }
    with pytest.raises(SpecError, match=message):
        check_search(search(space))


CONDITIONAL = {
    "algorithm.use_sde": {"type": "choice", "values": [True, False]},
    "algorithm.sde_sample_freq": {"type": "int", "low": 1, "high": 9, "when": {"algorithm.use_sde": True}},
}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"space": GAMMA, "sampler": "grid"},
            r"`algorithm.gamma` is a uniform, whose values the sampler `grid` cannot",
        ),
        (
            {"space": {"algorithm.n_epochs": {"type": "int", "low": 1, "high": 30}}, "sampler": "grid"},
            r"the grid has 30 points, `budget.trials` is 20\. Raise it",
        ),
        (
            {"space": {"algorithm.n_epochs": {"type": "int", "low": 1, "high": 10**9}}, "sampler": "grid"},
            r"the grid has more than 100,000 points",
        ),
        (
            {"space": {"algorithm.n_epochs": {"type": "grid", "values": [1]}}, "sampler": "tpe"},
            r"`algorithm.n_epochs` is a grid, of which `tpe` cannot try every value\. Use `type: choice`",
        ),
        (
            {"space": CONDITIONAL, "sampler": "gp"},
            r"`algorithm.sde_sample_freq` depends on another parameter, which `gp`",
        ),
        (
            {"space": {**GAMMA, **WIDTH}, "sampler": "cmaes"},
            r"net_arch` is a choice, and `cmaes` searches numbers only",
        ),
        ({"space": GAMMA, "sampler": "cmaes"}, r"`cmaes` needs two parameters or more, the space has one"),
        (
            {"space": GAMMA, "sampler": {"name": "tpe", "n_startup": 20}},
            r"`sampler.n_startup` must be below `budget.trials` = 20, got 20: `tpe` would never learn\. Use 5",
        ),
    ],
)
def test_a_sampler_that_cannot_work_with_the_space_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        check_search(search(**fields))


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_conditions_and_choices_suit_random_trials_and_the_parzen_estimator(sampler: str) -> None:
    check_search(search({**CONDITIONAL, **WIDTH}, sampler=sampler))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"objective": {"metric": "eval/return"}},
            r"'eval/return' is never reported\. Did you mean 'eval/return_mean'",
        ),
        ({"objective": {"metric": "eval/success_rate"}}, r"`eval/success_rate` needs the return from which an episode"),
        ({"budget": {"steps": 9_999}}, r"`budget.steps` must hold one trial of 10,000 steps, got 9,999"),
        ({"budget": {"steps": 19_999}, "objective": {"seeds": [0, 1]}}, r"must hold one trial of 20,000 steps"),
        (
            {"scheduler": {"name": "asha", "grace_steps": 999}},
            r"`scheduler.grace_steps` must be at least .* = 1000 and",
        ),
        ({"scheduler": {"name": "median", "grace_steps": 10_000}}, r"below the 10,000 steps of a trial, got 10,000"),
        ({"scheduler": {"name": "pbt", "every_steps": 999}}, r"`scheduler.every_steps` must be at least the run's"),
        (
            {"scheduler": {"name": "asha", "grace_steps": 1_000, "max_steps": 10_001}},
            r"`scheduler.max_steps` must be at most the run's `budget.total_timesteps` = 10,000, got 10,001",
        ),
        (
            {"scheduler": {"name": "asha", "grace_steps": 1_000}, "budget": {"trials": 2}},
            r"`asha` needs at least 3 trials to compare, there are 2\. Raise `budget.trials`",
        ),
        (
            {"scheduler": {"name": "pbt", "every_steps": 2_000}, "budget": {"trials": 1}},
            r"`pbt` needs at least 2 trials",
        ),
        ({"scheduler": {"name": "pbt", "every_steps": 2_000}, "sampler": "tpe"}, r"`pbt` breeds one population"),
    ],
)
def test_what_would_compare_or_stop_nothing_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        check_search(search(GAMMA, **fields))


@pytest.mark.parametrize("every", [None, 10_001])
def test_a_metric_that_no_evaluation_reports_is_refused(every: int | None) -> None:
    asked = search(GAMMA)
    run = apply_point(asked.run, {"evaluation.every_steps": every}, "test")
    with pytest.raises(SpecError, match=r"`eval/return_mean` is never reported: .* must be at most the 10,000 steps"):
        check_search(asked.model_copy(update={"run": run}))


@pytest.mark.parametrize(
    ("space", "scheduler", "message"),
    [
        (
            GAMMA,
            {"mutations": ["algorithm.gama"]},
            r"names 'algorithm.gama', which is not in the space\. Did you mean 'algorithm.gamma'",
        ),
        (
            WIDTH,
            {},
            r"`algorithm.policy_kwargs.net_arch` cannot be mutated: a live model keeps what its networks and buff",
        ),
        (
            {"algorithm.n_steps": {"type": "choice", "values": [64, 128]}},
            {},
            r"`algorithm.n_steps` cannot be mutated: a",
        ),
        (
            {"env.n_envs": {"type": "choice", "values": [4, 8]}},
            {},
            r"`env.n_envs` cannot be mutated: .* its environments",
        ),
        (CONDITIONAL, {"mutations": ["algorithm.use_sde"]}, r"`algorithm.use_sde` is part of a condition and cannot"),
        (
            {"algorithm.batch_size": {"type": "choice", "values": [64, 128]}},
            {"name": "pb2"},
            r"`algorithm.batch_size` is a choice, and `pb2` changes real numbers only\. Leave it out",
        ),
    ],
)
def test_a_mutation_that_a_live_model_cannot_follow_is_refused(
    space: dict[str, Any], scheduler: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        check_search(search(space, scheduler={"name": "pbt", "every_steps": 2_000, **scheduler}))


def test_what_is_fixed_may_differ_between_trials_that_mutate_something_else() -> None:
    mutations = {"name": "pbt", "every_steps": 2_000, "mutations": ["algorithm.gamma", "algorithm.learning_rate"]}
    check_search(search({**GAMMA, **RATE, **WIDTH}, scheduler=mutations))


def test_an_entropy_weight_cannot_mutate_between_learned_and_given() -> None:
    space = {"algorithm.ent_coef": {"type": "choice", "values": ["auto", 0.1]}}
    pbt = {"name": "pbt", "every_steps": 10_000}
    asked = SearchSpec.model_validate({"run": SAC, "space": space, "scheduler": pbt})
    with pytest.raises(SpecError, match=r"`algorithm.ent_coef` can change on a live model only from number to number"):
        check_search(asked)


def test_a_reason_names_the_line_of_the_file_that_it_stands_in(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        "algorithm: ppo\nenv:\n  id: CartPole-v1\nbudget: {total_timesteps: 20_000}\nevaluation:\n  every_steps: null\n"
    )
    path = tmp_path / "search.yaml"
    path.write_text("run: run.yaml\nspace:\n  algorithm.gama: {type: choice, values: [0.9]}\n")
    with pytest.raises(
        SpecError, match=r"search.yaml:3: `algorithm.gama` is not an option(.|\n)*run.yaml:6: `eval/retu"
    ):
        load_search_spec(path, environ={})
