"""A search's spec: its space, what trials become of it, and how it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from rlplatform.errors import SpecError
from rlplatform.specs.schedules import ScheduleSpec
from rlplatform.specs.schema import search_spec_schema
from rlplatform.specs.search import SearchSpec, apply_point
from rlplatform.specs.search_load import dump_search_spec, is_search, load_search_spec
from rlplatform.specs.search_space import grid_points
from rlplatform.specs.yaml_text import read_yaml

RUN = """\
algorithm:
  name: ppo
  n_steps: 64
env:
  id: CartPole-v1
budget:
  total_timesteps: 10_000
evaluation:
  every_steps: 1_000
"""
SEARCH = """\
run: run.yaml
set:
  env.n_envs: 4
space:
  algorithm.learning_rate: {type: loguniform, low: 1e-5, high: 1e-2}
  algorithm.n_epochs: {type: int, low: 1, high: 9, step: 2}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's file in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(RUN, encoding="utf-8")


def load(text: str = SEARCH, *overrides: str, **environ: str) -> SearchSpec:
    Path("search.yaml").write_text(text, encoding="utf-8")
    return load_search_spec("search.yaml", overrides=overrides, environ=environ)


def spec(space: dict[str, Any], **fields: Any) -> SearchSpec:
    run = read_yaml(RUN, "run.yaml").data
    return SearchSpec.model_validate({"run": run, "space": space, **fields})


# --- reading ----------------------------------------------------------------------------------------------------------


def test_the_run_comes_from_its_own_file_beside_the_search() -> None:
    Path("deep").mkdir()
    Path("deep/search.yaml").write_text(SEARCH.replace("run.yaml", "../run.yaml"), encoding="utf-8")
    assert load_search_spec("deep/search.yaml", environ={}).run.budget.total_timesteps == 10_000


def test_set_wins_over_the_runs_file_variables_over_set_and_overrides_over_all() -> None:
    assert load().run.env.n_envs == 4
    assert load(RLPLATFORM_SET__ENV__N_ENVS="8").run.env.n_envs == 8
    assert load(SEARCH, "run.env.n_envs=16", RLPLATFORM_SET__ENV__N_ENVS="8").run.env.n_envs == 16


def test_an_override_reaches_into_a_dimension_although_its_name_holds_dots() -> None:
    changed = load(SEARCH, "space.algorithm.learning_rate.high=0.1", "space.algorithm.gamma={type: grid, values: [1]}")
    assert changed.space["algorithm.learning_rate"].extremes() == (1e-5, 0.1)
    assert list(changed.space) == ["algorithm.learning_rate", "algorithm.n_epochs", "algorithm.gamma"]


def test_an_override_replaces_the_run() -> None:
    Path("other.yaml").write_text(RUN.replace("10_000", "20_000"), encoding="utf-8")
    assert load(SEARCH, "run=other.yaml").run.budget.total_timesteps == 20_000


def test_an_algorithm_may_be_its_name_alone_in_the_file_of_a_run_and_in_a_search() -> None:
    inline = "run: {algorithm: ppo, env: {id: E-v0}, budget: {total_timesteps: 20_000}}\n"
    assert load(inline + SEARCH[SEARCH.index("space") :]).run.algorithm.name == "ppo"
    Path("run.yaml").write_text(RUN.replace("algorithm:\n  name: ppo\n  n_steps: 64", "algorithm: ppo"), "utf-8")
    assert load().run.algorithm.name == "ppo"


def test_what_is_written_out_reads_as_the_same_search() -> None:
    first = load(SEARCH, "sampler=tpe", "scheduler={name: asha, grace_steps: 2_000}", "objective.seeds=[3, 4]")
    Path("copy.yaml").write_text(dump_search_spec(first), encoding="utf-8")
    assert load_search_spec("copy.yaml", environ={}) == first


def test_a_file_is_a_search_if_it_has_a_space() -> None:
    load()
    assert is_search("search.yaml")
    assert not is_search("run.yaml")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run.algorithm.n_step=3", r"--set run.algorithm.n_step=3: `algorithm.n_step` is not an option of `ppo`. Did"),
        ("run=3", r"--set run=3: `run` must be a run's file or a mapping, got 3\. A search starts with"),
        ("run=rum.yaml", r"--set run=rum.yaml: `run`: rum.yaml: there is no such file\. Did you mean 'run.yaml'"),
        ("budgt.trials=3", r"`budgt` is not a field of a search's spec\. Did you mean 'budget'\?"),
        ("sampler=tp", r"`sampler.name` must be a known sampler, got 'tp'\. Did you mean 'tpe'\?$"),
        (
            "sampler.n_start=3",
            r"`sampler` must have a `name`, got {'n_start': 3}\. Known: cmaes, gp, grid, random, tpe",
        ),
        ("scheduler=3", r"`scheduler` must be a mapping with a `name`, got 3\. Known: asha"),
        ("scheduler=asha", r"`scheduler.grace_steps` is required and not there\. Add it: Steps that every trial"),
        ("scheduler={name: asha, grace: 1}", r"`scheduler.grace` is not a field of `scheduler`. Did you mean 'grace_s"),
        ("space={}", r"`space` must have a parameter to search, got none\. Add for example `algorithm.learning_rate"),
        ("space.seed={type: unifrm}", r"`space.seed.type` must be a known kind of dimension, got 'unifrm'\. Did you"),
        (
            "space.algorithm.n_epochs.lo=3",
            r"epochs.lo=3: `space.algorithm.n_epochs.lo` is not a field of .*'log' or 'low'",
        ),
        ("space.algorithm.n_epochs.low=true", r"`space.algorithm.n_epochs.low` must be a number, got true"),
        ("objective.seeds=[]", r"`objective.seeds` must have 1 or more, got \[\]\.$"),
        ("space=[a]", r"`space` must be a mapping, got \['a'\]\.$"),
        ("objective.seeds=[1, 1]", r"`objective.seeds` must hold each seed once, got \[1, 1\]\. Remove"),
    ],
)
def test_what_is_wrong_is_named_with_its_origin_and_a_remedy(override: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load(SEARCH, override)


def test_a_problem_names_the_line_of_the_file_that_it_stands_in() -> None:
    with pytest.raises(SpecError, match=r"search.yaml:5: `space.algorithm.learning_rate.low` must be below `high`"):
        load(SEARCH.replace("low: 1e-5", "low: 1"))
    with pytest.raises(SpecError, match=r"search.yaml:3: `env.n_envz` is not a field of `env`"):
        load(SEARCH.replace("n_envs", "n_envz"))
    Path("run.yaml").write_text(RUN.replace("n_steps: 64", "n_steps: 0"), encoding="utf-8")
    with pytest.raises(SpecError, match=r"run.yaml:3: `algorithm.n_steps` must be ≥ 1, got 0"):
        load()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- run", r"search.yaml:1: a spec must be a mapping, got \['run'\]\. A search starts with `run:` and `space:`"),
        ("space: {}", r"search.yaml: `run` is required and not there\. A search starts with"),
        ("run: run.yaml\nset: 3\n", r"search.yaml:2: `set` must be a mapping, got 3\. Write for example"),
        ("run: run.yaml\n", r"search.yaml: `space` is required and not there\. Add it: Parameters that trials choose"),
    ],
)
def test_a_file_that_is_no_search_says_what_one_starts_with(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load(text)


# --- the space --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dimension", "message"),
    [
        ({"type": "uniform", "low": 2, "high": 1}, r"`low` must be below `high`, got 2 and 1\. Swap"),
        ({"type": "loguniform", "low": 0, "high": 1}, r"greater than 0"),
        ({"type": "int", "low": 0, "high": 5, "log": True}, r"`log` needs `low` ≥ 1 and no `step`, got 0 and 1"),
        ({"type": "int", "low": 1, "high": 6, "step": 2}, r"number of steps of 2 above 1, got 6\. Use 5"),
        ({"type": "choice", "values": []}, r"at least 1 item"),
        ({"type": "choice", "values": [[1], [2], [1]]}, r"must hold each value once, got \[1\] again"),
    ],
)
def test_a_dimension_that_holds_nothing_to_choose_is_refused(dimension: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spec({"algorithm.gamma": dimension})


def test_true_is_not_the_number_one() -> None:
    listed = spec({"algorithm.x": {"type": "choice", "values": [1, True]}}).space["algorithm.x"]
    assert list(listed.extremes()) == [1, True]
    whole = spec({"algorithm.x": {"type": "int", "low": 0, "high": 3}}).space["algorithm.x"]
    assert whole.contains(1)
    assert not whole.contains(True)
    assert not whole.contains(4)


def test_a_grid_has_each_point_once_and_leaves_out_what_a_condition_excludes() -> None:
    space = spec(
        {
            "algorithm.use_sde": {"type": "grid", "values": [True, False]},
            "algorithm.sde_sample_freq": {"type": "grid", "values": [1, 4], "when": {"algorithm.use_sde": True}},
            "algorithm.n_epochs": {"type": "int", "low": 1, "high": 5, "step": 4},
        },
        sampler="grid",
        budget={"trials": 5},
    )
    points = list(grid_points(space.space))
    assert [tuple(point.values()) for point in points] == [
        (True, 1, 1), (True, 1, 5), (True, 4, 1), (True, 4, 5), (False, 1), (False, 5)
    ]  # fmt: skip
    assert space.n_trials == 5


def test_a_condition_may_name_several_values() -> None:
    space = spec(
        {
            "algorithm.n_epochs": {"type": "int", "low": 1, "high": 5},
            "algorithm.gamma": {"type": "uniform", "low": 0, "high": 1, "when": {"algorithm.n_epochs": [1, 2]}},
        }
    ).space
    active = [n for n in range(1, 6) if space["algorithm.gamma"].is_active({"algorithm.n_epochs": n})]
    assert active == [1, 2]
    assert not space["algorithm.gamma"].is_active({})


# --- what a search says of itself -------------------------------------------------------------------------------------


def test_a_search_knows_its_seeds_steps_mutations_and_title() -> None:
    space = {"algorithm.gamma": {"type": "uniform", "low": 0.9, "high": 0.99}}
    plain = spec(space)
    assert (plain.seeds, plain.max_steps, plain.mutations) == ((0,), 10_000, ())
    assert plain.title == "cartpole-v1-ppo-random"
    asha = spec(space, scheduler={"name": "asha", "grace_steps": 1_000, "max_steps": 5_000}, objective={"seeds": [7]})
    assert (asha.seeds, asha.max_steps, asha.title) == ((7,), 5_000, "cartpole-v1-ppo-random-asha")
    assert spec(space, scheduler={"name": "pbt", "every_steps": 2_000}).mutations == ("algorithm.gamma",)


# --- points -----------------------------------------------------------------------------------------------------------


def test_a_point_changes_what_it_names_and_nothing_else() -> None:
    run = load(SEARCH, "run.algorithm.clip_range=lin_0.2").run
    point = {
        "algorithm.learning_rate": 0.01,
        "algorithm.clip_range.initial": 0.3,
        "algorithm.policy_kwargs.net_arch": [16],
        "env.kwargs.gravity": 9.0,
    }
    changed = apply_point(run, point, "trial 1")
    clip_range = ScheduleSpec(initial=0.3)
    assert changed == run.model_copy(
        update={
            "algorithm": run.algorithm.model_copy(
                update={
                    "learning_rate": 0.01,
                    "clip_range": clip_range,
                    "policy_kwargs": run.algorithm.policy_kwargs.model_copy(update={"net_arch": (16,)}),
                }
            ),
            "env": run.env.model_copy(update={"kwargs": {"gravity": 9.0}}),
        }
    )
    assert run.algorithm.learning_rate == 3e-4  # type: ignore[attr-defined]


def test_a_point_that_the_run_does_not_take_names_the_trial_and_the_parameter() -> None:
    run = load().run
    with pytest.raises(SpecError, match=r"^trial 7: `algorithm.gamma` must be in \[0, 1\], got 2"):
        apply_point(run, {"algorithm.gamma": 2.0}, "trial 7")
    with pytest.raises(SpecError, match=r"^trial 7: `algorithm.batch_size` must divide the rollout of .* got 100\."):
        apply_point(run, {"algorithm.batch_size": 100}, "trial 7")


# --- the schema -------------------------------------------------------------------------------------------------------

CONFIGS = sorted((Path(__file__).parents[3] / "configs" / "search").glob("*.yaml"))


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = search_spec_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_fits_the_schema_as_written_and_with_its_defaults(
    path: Path, validator: Draft202012Validator
) -> None:
    validator.validate(read_yaml(path.read_text(encoding="utf-8"), path.name).data)
    validator.validate(load_search_spec(path, environ={}).model_dump(mode="json"))


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({"sampler": "gp", "scheduler": "none"}, True),
        ({"scheduler": {"name": "pbt", "every_steps": 5}}, True),
        ({"scheduler": {"every_steps": 5}}, False),
        ({"scheduler": "asha"}, False),
        ({"sampler": "annealing"}, False),
        ({"space": {}}, False),
        ({"space": {"algorithm.gamma": {"type": "uniform", "low": 0}}}, False),
        ({"trials": 3}, False),
    ],
)
def test_the_schema_takes_what_the_loader_takes(
    change: dict[str, Any], fits: bool, validator: Draft202012Validator
) -> None:
    space = {"algorithm.gamma": {"type": "uniform", "low": 0, "high": 1}}
    assert validator.is_valid({"run": "run.yaml", "space": space, **change}) == fits
