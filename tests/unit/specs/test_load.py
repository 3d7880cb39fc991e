"""Where each value comes from, and what is said when one is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlplatform.errors import SpecError
from rlplatform.specs.load import DEFAULT_ORIGIN, dump_spec, load_run_spec, run_spec_from_mapping
from rlplatform.specs.schedules import ScheduleSpec

SMALL = """\
algorithm:
  name: ppo
  learning_rate: 1e-3
env:
  id: CartPole-v1
budget:
  total_timesteps: 1_000
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A valid spec in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(SMALL, encoding="utf-8")
    return "small.yaml"


def load(text: str, *overrides: str, **environ: str) -> Any:
    Path("small.yaml").write_text(text, encoding="utf-8")
    return load_run_spec("small.yaml", overrides=overrides, environ=environ).spec


# --- precedence and origin --------------------------------------------------------------------------------------------


def test_overrides_win_over_variables_over_the_file_over_defaults(small: str) -> None:
    variables = {"RLPLATFORM_SET__ENV__N_ENVS": "2", "RLPLATFORM_SET__SEED": "2", "RLPLATFORM_SET__ENV__ID": "A-v0"}
    loaded = load_run_spec(small, overrides=["seed=3", "seed=4"], environ=variables)
    assert (loaded.spec.seed, loaded.spec.env.n_envs, loaded.spec.env.id) == (4, 2, "A-v0")
    assert loaded.origins["seed"] == "--set seed=4"
    assert loaded.origins["env.n_envs"] == "RLPLATFORM_SET__ENV__N_ENVS"
    assert loaded.origins["algorithm.learning_rate"] == "small.yaml:3"
    assert loaded.origins["evaluation.n_episodes"] == DEFAULT_ORIGIN


def test_every_value_of_a_spec_has_an_origin(small: str) -> None:
    def leaves(data: Any, path: str = "") -> list[str]:
        if isinstance(data, dict) and data:
            return [leaf for key, value in data.items() for leaf in leaves(value, f"{path}.{key}" if path else key)]
        return [path]

    loaded = load_run_spec(small, environ={})
    assert list(loaded.origins) == leaves(loaded.spec.model_dump(mode="json"))


def test_a_shorthand_is_the_origin_of_all_that_it_expands_to(small: str) -> None:
    loaded = load_run_spec(small, overrides=["algorithm.learning_rate=lin_1e-3"], environ={})
    assert loaded.origins["algorithm.learning_rate.final"] == "--set algorithm.learning_rate=lin_1e-3"


def test_a_mapping_is_the_origin_of_its_own_keys_only(small: str) -> None:
    loaded = load_run_spec(small, overrides=["tracking={csv: false}", "env.normalize.obs=true"], environ={})
    assert loaded.origins["tracking.csv"] == "--set tracking={csv: false}"
    assert loaded.origins["tracking.tensorboard"] == DEFAULT_ORIGIN
    assert loaded.origins["env.normalize.reward"] == DEFAULT_ORIGIN


def test_replacing_a_mapping_forgets_where_its_parts_stood(small: str) -> None:
    loaded = load_run_spec(small, overrides=["algorithm=dqn"], environ={})
    assert loaded.spec.algorithm.name == "dqn"
    assert loaded.origins["algorithm.name"] == "--set algorithm=dqn"
    assert loaded.origins["algorithm.learning_rate"] == DEFAULT_ORIGIN


def test_an_item_of_a_list_is_set_by_its_index(small: str) -> None:
    loaded = load_run_spec(small, overrides=["env.wrappers=[flatten, clip]", "env.wrappers.1=scale"], environ={})
    assert [wrapper.name for wrapper in loaded.spec.env.wrappers] == ["flatten", "scale"]
    assert loaded.origins["env.wrappers"] == "--set env.wrappers.1=scale"


def test_a_spec_needs_no_file() -> None:
    overrides = ["algorithm=ppo", "env.id=CartPole-v1", "budget.total_timesteps=10"]
    assert load_run_spec(None, overrides=overrides, environ={}).spec.title == "cartpole-v1-ppo"


def test_values_on_the_command_line_are_yaml_and_so_json(small: str) -> None:
    overrides = ['env.kwargs={"a": [1, 2.5, null, true]}', "algorithm.learning_rate=3e-4", "name=on"]
    spec = load_run_spec(small, overrides=overrides, environ={}).spec
    assert spec.env.kwargs == {"a": [1, 2.5, None, True]}
    assert spec.algorithm.model_dump()["learning_rate"] == 3e-4
    assert spec.name == "on"


def test_an_empty_variable_is_as_good_as_none(small: str) -> None:
    assert load_run_spec(small, environ={"RLPLATFORM_SET__SEED": ""}).spec.seed == 0


def test_the_process_environment_counts_unless_another_is_given(small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLPLATFORM_SET__SEED", "9")
    assert load_run_spec(small).spec.seed == 9
    assert load_run_spec(small, environ={}).spec.seed == 0


# --- YAML -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["1e-3", "1.0e-3", "0.001", "+.1e-2"])
def test_numbers_are_what_they_look_like(small: str, text: str) -> None:
    assert load(SMALL.replace("1e-3", text)).algorithm.learning_rate == 0.001


def test_a_schedule_takes_numbers_in_scientific_notation(small: str) -> None:
    spec = load(SMALL.replace("1e-3", "{initial: 1e-3, final: 1e-5}"))
    assert spec.algorithm.learning_rate == ScheduleSpec(initial=0.001, final=0.00001)


@pytest.mark.parametrize("text", ["on", "yes", "off", "010", "1:30", "1e-3", "2026-01-01"])
def test_quoted_words_stay_words_and_survive_the_round_trip(small: str, text: str) -> None:
    spec = load(SMALL, f"env.kwargs={{a: '{text}'}}")
    assert spec.env.kwargs == {"a": text}
    assert load(dump_spec(spec)) == spec


def test_bare_on_off_and_dates_are_words_not_booleans(small: str) -> None:
    assert load(SMALL, "env.kwargs={a: on, b: no, c: 2026-01-01, d: 1:30}").env.kwargs == {
        "a": "on", "b": "no", "c": "2026-01-01", "d": "1:30",
    }  # fmt: skip


def test_integers_do_not_turn_octal(small: str) -> None:
    assert load(SMALL, "env.kwargs={a: 010, b: 0x1F, c: 0o17, d: 1_000}").env.kwargs == {
        "a": 10, "b": 31, "c": 15, "d": 1000,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"^small\.yaml: is empty\. `rlplatform config init`"),
        ("# nothing\n", r"^small\.yaml: is empty"),
        ("- 1\n", r"^small\.yaml:1: a spec must be a mapping, got \[1\]\. It starts with `algorithm:`"),
        ("ppo", r"^small\.yaml:1: a spec must be a mapping, got 'ppo'"),
        (SMALL + "env: 1\n", r"^small\.yaml:8: `env` stands here again, first on line 4\. Keep one\.$"),
        (SMALL + "seed: [1\n", r"^small\.yaml:\d+: not valid YAML: while parsing a flow sequence"),
        (SMALL + "seed: a: b\n", r"^small\.yaml:8: not valid YAML: mapping values are not allowed here"),
        (SMALL + "\tseed: 1\n", r"^small\.yaml:8: not valid YAML"),
        (SMALL + "seed: !!python/name:os.system\n", r"^small\.yaml:8: the tag '.*os\.system' is not allowed"),
        (SMALL + "seed: !!int x\n", r"^small\.yaml:8: 'x' does not read as int"),
        (SMALL + "? [1]\n: 2\n", r"^small\.yaml:8: a key must be a word"),
        (SMALL + "name: &x [*x]\n", r"^small\.yaml:8: an alias must not stand inside its own anchor"),
        (SMALL + "---\n" + SMALL, r"^small\.yaml:8: not valid YAML: expected a single document"),
        ("a\x00b", r"^small\.yaml: not valid YAML: unacceptable character"),
        ("[" * 3000, r"^small\.yaml: lists and mappings stand in each other too deeply"),
    ],
)
def test_what_is_no_spec_is_named_with_its_line(small: str, text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load(text)


def test_a_missing_file_gets_the_nearest_name(small: str) -> None:
    with pytest.raises(SpecError, match=r"^smal\.yaml: there is no such file\..* 'small\.yaml'\?$"):
        load_run_spec("smal.yaml")
    with pytest.raises(SpecError, match=r"no_folder/x\.yaml: there is no such file\. Check the path\.$"):
        load_run_spec("no_folder/x.yaml")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r": is a folder, not a file\. Give one YAML file\.$"):
        load_run_spec(tmp_path)


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "latin1.yaml"
    path.write_bytes("name: é".encode("latin-1"))
    with pytest.raises(SpecError, match=r"latin1\.yaml: is not text in UTF-8 \(byte 6\)\. Save it as UTF-8\.$"):
        load_run_spec(path)


def test_a_file_that_cannot_be_read_says_why(small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, encoding: str) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(SpecError, match=r"^small\.yaml: cannot be read: Permission denied\. Check its permissions\.$"):
        load_run_spec(small)


# --- wrong values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ppo", "ppoo", r":2: `algorithm\.name`: Unknown algorithm 'ppoo'\. Did you mean 'ppo'\?"),
        ("name: ppo", "gamma: 1", r":1: `algorithm\.name` must be an algorithm's name, got None"),
        (
            "learning_rate",
            "learning_rat",
            r":3: `algorithm\.learning_rat` is not an option of `ppo`\. .*'learning_rate'\?$",
        ),
        ("learning_rate: 1e-3", "n_envs: 8", r":3: `algorithm\.n_envs` is not an option of `ppo`\. .*`env\.n_envs`\?$"),
        ("1e-3", "-1", r":3: `algorithm\.learning_rate` must be > 0, got -1\. The default is 0\.0003\.$"),
        ("1e-3", "fast", r":3: `algorithm\.learning_rate` must be a number.*, got 'fast'"),
        (
            "learning_rate: 1e-3",
            "clip_range: 1.5",
            r":3: `algorithm\.clip_range` must be in \(0, 1\], got 1\.5\. Use 0\.1",
        ),
        (
            "learning_rate: 1e-3",
            "gamma: 2",
            r":3: `algorithm\.gamma` must be in \[0, 1\], got 2\. The default is 0\.99\.$",
        ),
        (
            "learning_rate: 1e-3",
            "policy_kwargs: {net_arc: []}",
            r"net_arc` is not a field of `algorithm\.policy_kwargs`",
        ),
        ("learning_rate: 1e-3", "batch_size: 7", r":3: `algorithm\.batch_size` must divide .*got 7\. Use 4 or 8"),
        ("1_000", "-5", r":7: `budget\.total_timesteps` must be in \[1, 1000000000000\], got -5\.$"),
        ("1_000", "1.5", r":7: `budget\.total_timesteps` must be a whole number, got 1\.5\.$"),
        ("1_000", "many", r":7: `budget\.total_timesteps` must be a whole number, got 'many'\.$"),
        ("1_000", "true", r":7: `budget\.total_timesteps` must be a number, got true\.$"),
        ("id: CartPole-v1", "id:", r":5: `env\.id` must be text, got null\.$"),
        ("id: CartPole-v1", "ids: CartPole-v1", r":5: `env\.ids` is not a field of `env`\. Did you mean 'id'"),
        ("\n  id: CartPole-v1", " CartPole-v1", r":4: `env` must be a mapping, got 'CartPole-v1'\. Its fields: id, "),
        ("\n  total_timesteps: 1_000", "", r":6: `budget` must be a mapping, got null"),
        ("budget:\n  total_timesteps: 1_000\n", "", r"small\.yaml: `budget` is required .* with `total_timesteps`\.$"),
        (
            "total_timesteps: 1_000",
            "time_limit_s: 5",
            r":6: `budget\.total_timesteps` is required .*Add it: Environment steps",
        ),
        ("budget:", "seeds: 1\nbudget:", r":6: `seeds` is not a field of a run's spec\. Did you mean 'seed'\?$"),
        (
            "budget:",
            "n_envs: 8\nbudget:",
            r":6: `n_envs` is not a field of a run's spec\. Did you mean `env\.n_envs`\?$",
        ),
        ("budget:", "name: a b\nbudget:", r":6: `name` must match `.*`, got 'a b'\.$"),
        (
            "budget:",
            "evaluation: [1]\nbudget:",
            r":6: `evaluation` must be a mapping, got \[1\]\. Its fields: every_steps",
        ),
        ("budget:", "env_:\nbudget:", r":6: `env_` is not a field of a run's spec\. Did you mean 'env'"),
    ],
)
def test_a_wrong_value_is_named_with_line_field_rule_and_remedy(small: str, old: str, new: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load(SMALL.replace(old, new))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("env.backend=vectr", r"`env\.backend` must be 'auto', .*, got 'vectr'\. Did you mean 'vector'\?$"),
        ("env.n_envs=0", r"`env\.n_envs` must be in \[1, 4096\], got 0\. The default is 1\.$"),
        (
            "env.wrappers=[{nam: x}]",
            r"`env\.wrappers\.0\.nam` is not a field of `env\.wrappers\.0`\. Did you mean 'name'",
        ),
        ("env.wrappers=3", r"`env\.wrappers` must be a list, got 3\.$"),
        ("env.normalize.obs=maybe", r"`env\.normalize\.obs` must be true or false, got 'maybe'"),
        ("resources.gpus=.inf", r"`resources\.gpus` must be a finite number, got inf"),
        ("tracking.wandb.mode=dry", r"`tracking\.wandb\.mode` must be 'online' or 'offline', got 'dry'"),
        ("init_from={}", r"`init_from\.run` is required and not there\. Add it: A run's id"),
    ],
)
def test_a_wrong_override_is_named_itself(small: str, override: str, message: str) -> None:
    with pytest.raises(SpecError, match=rf"--set .*: {message}"):
        load_run_spec(small, overrides=[override], environ={})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", r"^`--set` must be field=value, got 'seed'\. Use for example"),
        ("=1", r"^`--set` must be field=value, got '=1'"),
        ("seed=[1", r"^--set seed=\[1:1: not valid YAML"),
        ("env.id.x=1", r"^--set env\.id\.x=1: `env\.id` is 'CartPole-v1' and has no `x`\. Set `env\.id` itself\.$"),
        ("algorithm.learning_rate.a.b=1", r"`algorithm\.learning_rate` is 0\.001 and has no `a`"),
    ],
)
def test_an_override_that_goes_nowhere_is_named(small: str, override: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_run_spec(small, overrides=[override], environ={})


def test_an_item_that_a_list_does_not_have_is_named(small: str) -> None:
    with pytest.raises(SpecError, match=r"`env\.wrappers` is a list of 1 and has no item '1'\. Items count from 0"):
        load_run_spec(small, overrides=["env.wrappers=[a]", "env.wrappers.1=b"], environ={})


def test_a_wrong_variable_is_named_itself(small: str) -> None:
    with pytest.raises(SpecError, match=r"^RLPLATFORM_SET__ENV__N_ENVS: `env\.n_envs` must be in"):
        load_run_spec(small, environ={"RLPLATFORM_SET__ENV__N_ENVS": "0"})


def test_all_problems_are_told_at_once_each_on_its_line(small: str) -> None:
    with pytest.raises(
        SpecError, match=r"(?s)^3 problems:\n  small\.yaml:5: .*\n  small\.yaml:7: .*\n  small\.yaml:8: "
    ) as error:
        load(SMALL.replace("CartPole-v1", "''").replace("1_000", "0") + "seed: -1\n")
    assert len(str(error.value).splitlines()) == 4


# --- data instead of files --------------------------------------------------------------------------------------------


def test_a_mapping_is_checked_as_a_file_is(small: str) -> None:
    spec = load_run_spec(small, environ={}).spec
    assert run_spec_from_mapping(spec.model_dump(mode="json"), "the request") == spec
    with pytest.raises(SpecError, match=r"^the request: `env` is required and not there\. Add it, with `id`\.$"):
        run_spec_from_mapping({"algorithm": "ppo", "budget": {"total_timesteps": 1}}, "the request")


def test_checking_a_mapping_leaves_it_alone() -> None:
    data = {"algorithm": "ppo", "env": {"id": "A-v0"}, "budget": {"total_timesteps": 1}}
    run_spec_from_mapping(data, "the request")
    assert data == {"algorithm": "ppo", "env": {"id": "A-v0"}, "budget": {"total_timesteps": 1}}
