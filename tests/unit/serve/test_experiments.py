"""/experiments over ASGI: what is taken, what is refused, and what a request changes in the store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlplatform.artifacts.run_dir import RunDir
from rlplatform.specs.run import RunSpec
from rlplatform.store.experiments import ExperimentFields
from tests.unit.serve.service import Service, service

LANDER = {
    "name": "test_ppo_lunarlander",
    "algorithm": "PPO",
    "environment": "LunarLander-v2",
    "hyperparameters": {"learning_rate": 0.0003, "n_steps": 2048, "batch_size": 64},
    "seed": 42,
    "description": "Тестирование PPO на LunarLander",
    "hypothesis": "PPO должен показать хорошие результаты на LunarLander",
}
CARTPOLE = {"name": "pole", "algorithm": "ppo", "environment": "CartPole-v1"}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Service]:
    with service(tmp_path) as opened:
        yield opened


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service for what is refused, and so changes nothing."""
    with service(tmp_path_factory.mktemp("home")) as opened:
        yield opened


def create(api: Service, **changes: Any) -> str:
    """Create an experiment and return its id."""
    return str(api.json("POST", "/experiments", 201, json={**CARTPOLE, **changes})["id"])


def put(api: Service, id: str, code: int = 200, /, **body: Any) -> Any:
    """Change an experiment, without waiting."""
    return api.json("PUT", f"/experiments/{id}?wait_s=0", code, json=body)


def become(api: Service, id: str, **fields: Any) -> None:
    """Do to an experiment what its keeper would do."""
    changes: ExperimentFields = {"wanted": None, **fields}  # type: ignore[typeddict-item]
    api.gateway.experiments.update(id, **changes)


def make_run(api: Service, id: str) -> RunDir:
    """Make the run of an experiment, as its keeper would."""
    experiment = api.gateway.experiments.get(id)
    spec = RunSpec.model_validate(experiment.spec)
    run = RunDir.create(api.gateway.home, spec)
    api.gateway.experiments.add_run(id, run.id, run.path, experiment.seeds[0])
    return run


def test_the_documents_example_is_taken_as_it_is_printed(api: Service) -> None:
    made = api.json("POST", "/experiments", 201, json=LANDER)
    assert {name: made[name] for name in LANDER if name != "environment"} == {
        name: value for name, value in LANDER.items() if name != "environment"
    }
    assert (made["environment"], made["status"], made["total_timesteps"]) == ("LunarLander-v3", "created", 100_000)
    assert "LunarLander-v2 is gone" in made["warnings"][0]
    assert made["model_name"] == "test_ppo_lunarlander"
    detail = api.json("GET", f"/experiments/{made['id']}")
    assert (detail["progress"], detail["runs"]) == (0.0, [])


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"algorithm": "PPOO"}, 400, "Did you mean 'ppo'"),
        ({"environment": "CartPole-v7"}, 400, "Did you mean 'CartPole-v1'"),
        ({"environment": "os:system"}, 400, "Unknown environment"),
        ({"environment": "../../etc/passwd"}, 400, "Unknown environment"),
        ({"algorithm": "os:system"}, 400, "Unknown algorithm"),
        ({"hyperparameters": {"learning_rte": 1}}, 400, "learning_rate"),
        ({"hyperparameters": {"clip_range": 7}}, 400, "`hyperparameters.clip_range`"),
        ({"spec": {"init_from": {"run": "/etc"}}}, 400, "`spec.init_from` cannot be set"),
        ({"spec": {"env": {"reward": "os:system"}}}, 400, "Unknown reward function"),
        ({"spec": {"env": {"wrappers": ["os:system"]}}}, 400, "Unknown wrapper"),
        ({"spec": {"tracking": {"wandb": {}}}}, 400, "wandb"),
        ({"spec": {"env": {"backend": "subproc", "n_envs": 64}}}, 422, "at most 8 CPUs"),
        ({"spec": {"resources": {"cpus": 100}}}, 422, "at most 8 CPUs"),
        ({"spec": {"budget": {"time_limit_s": 1e9}}}, 422, "`spec.budget.time_limit_s` must be at most 3600"),
        ({"total_timesteps": 10**9}, 422, "at most 10,000,000"),
        ({"hyperparameters": {"n_envs": 4000}}, 422, "`n_envs` must be at most 256 here, got 4,000"),
        ({"hyperparameters": {"n_steps": 10**9}}, 422, "`n_steps` must be at most 65,536 here, got 1,000,000,000"),
        (
            {"algorithm": "DQN", "hyperparameters": {"batch_size": 10**6}},
            422,
            "`batch_size` must be at most 65,536 here",
        ),
        ({"hyperparameters": {"policy_kwargs": {"net_arch": [64] * 1000}}}, 422, "`net_arch` must be at most 8,192"),
        ({"hyperparameters": {"policy_kwargs": {"net_arch": {"pi": [4096], "vf": [4097]}}}}, 422, "got 8,193"),
        (
            {"algorithm": "DQN", "hyperparameters": {"buffer_size": 10**9}},
            422,
            "`buffer_size` must be at most 1,000,000",
        ),
        (
            {"spec": {"env": {"wrappers": [{"name": "frame_stack", "kwargs": {"stack_size": 10**6}}]}}},
            422,
            "`stack_size`",
        ),
        ({"hyperparameters": {"policy_kwargs": {"optimizer_kwargs": {"x" * 70_000: 1}}}}, 422, "at most 65,536"),
        ({"seeds": [1, 1]}, 400, "different numbers"),
        ({"seeds": []}, 422, "seeds"),
        ({"seed": -1}, 422, "seed"),
        ({"name": "  "}, 422, "name"),
        ({"name": "nul\0"}, 400, "null characters"),
        ({"extra": 1}, 422, "extra"),
        ({"hyperparameters": {"name": "dqn"}}, 400, "`hyperparameters.name` must be left out"),
        ({"hyperparameters": {"\ud800": 1}}, 422, "surrogates not allowed"),
        ({"spec": {"env": {"kwargs": {"g": "\0"}}}}, 422, "null characters"),
    ],
)
def test_what_cannot_be_trained_is_refused_at_once(
    unchanged: Service, change: dict[str, Any], status: int, said: str
) -> None:
    body, headers = json.dumps({**CARTPOLE, **change}), {"Content-Type": "application/json"}
    answer = unchanged.json("POST", "/experiments", status, content=body, headers=headers)
    assert said in answer["detail"]
    assert unchanged.json("GET", "/experiments") == []


def test_experiments_are_found_by_page_and_filter(api: Service) -> None:
    ids = [create(api, name=f"pole {number}") for number in range(3)]
    lander = api.json("POST", "/experiments", 201, json=LANDER)["id"]
    page = api.ask("GET", "/experiments?offset=1&limit=2&order=created_at")
    assert (page.headers["X-Total-Count"], [one["id"] for one in page.json()]) == ("4", ids[1:])
    assert [one["id"] for one in api.json("GET", "/experiments?environment=LunarLander-v2&algorithm=PPO")] == [lander]
    assert [one["id"] for one in api.json("GET", "/experiments?name=POLE%201")] == [ids[1]]
    api.json("POST", f"/experiments/{ids[0]}/train")
    assert [one["id"] for one in api.json("GET", "/experiments?status=queued")] == [ids[0]]
    assert len(api.json("GET", "/experiments?status_filter=created")) == 3
    api.json("GET", "/experiments?status=nonsense", 422)
    assert api.json("GET", "/experiments?name=' OR 1=1 --") == []


def test_a_second_start_is_refused(api: Service) -> None:
    id = create(api)
    assert api.json("POST", f"/experiments/{id}/train")["status"] == "queued"
    assert "already" in api.json("POST", f"/experiments/{id}/train", 409)["detail"]
    api.json("POST", "/experiments/nothing/train", 404)


def test_beyond_the_limit_a_start_is_refused_or_queued(api: Service, tmp_path: Path) -> None:
    ids = [create(api) for _ in range(4)]
    for id in ids[:3]:
        api.json("POST", f"/experiments/{id}/train")
    refused = api.ask("POST", f"/experiments/{ids[3]}/train")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "5")
    assert api.json("GET", f"/experiments/{ids[3]}")["status"] == "created"
    with service(tmp_path, queue_experiments=True) as queueing:
        assert queueing.json("POST", f"/experiments/{ids[3]}/train")["status"] == "queued"


def test_a_key_has_limits_of_its_own(api: Service) -> None:
    key = api.gateway.keys.create("small", ["train", "read"], max_runs=1, max_steps=1000, max_hours=0.01).secret
    few = {**CARTPOLE, "total_timesteps": 500}
    assert "at most 1,000" in api.json("POST", "/experiments", 422, json=CARTPOLE, token=key)["detail"]
    first, second = (api.json("POST", "/experiments", 201, json=few, token=key)["id"] for _ in range(2))
    assert api.gateway.experiments.get(first).spec["budget"]["time_limit_s"] == pytest.approx(36)
    api.json("POST", f"/experiments/{first}/train", token=key)
    assert "of this key" in api.json("POST", f"/experiments/{second}/train", 429, token=key)["detail"]


def test_pause_resume_and_stop_are_asked_for_and_then_carried_out_by_the_keeper(api: Service) -> None:
    id = create(api)
    put(api, id, 409, status="paused")
    put(api, id, status="running")
    become(api, id, status="running")
    assert put(api, id, status="paused")["wanted"] == "pause"
    assert "asked to pause" in api.json("POST", f"/experiments/{id}/resume", 409)["detail"]
    become(api, id, status="paused")
    assert put(api, id, status="running")["wanted"] == "train"
    become(api, id, status="running")
    assert api.json("POST", f"/experiments/{id}/stop?wait_s=0")["message"] == "Training is being stopped."
    become(api, id, status="stopped")
    put(api, id, 409, status="cancelled")
    body = {"additional_timesteps": 1000}
    assert api.json("POST", f"/experiments/{id}/resume", json=body)["status"] == "queued"
    assert api.json("GET", f"/experiments/{id}")["total_timesteps"] == 101_000


def test_what_is_complete_goes_on_only_with_more_steps(api: Service) -> None:
    id = create(api)
    become(api, id, status="completed")
    assert "additional_timesteps" in api.json("POST", f"/experiments/{id}/resume", 409)["detail"]
    over = {"additional_timesteps": 10**9}
    assert "at most 10,000,000" in api.json("POST", f"/experiments/{id}/resume", 422, json=over)["detail"]


def test_hyperparameters_change_while_created_or_paused_where_the_algorithm_allows(api: Service) -> None:
    id = create(api, hyperparameters={"n_steps": 64})
    assert put(api, id, hyperparameters={"n_steps": 128})["hyperparameters"] == {"n_steps": 128}
    put(api, id, status="running")
    assert "Pause it first" in put(api, id, 409, hyperparameters={"learning_rate": 1e-4})["detail"]
    paused = put(api, id, status="paused", hyperparameters={"learning_rate": 1e-4})
    assert (paused["wanted"], paused["hyperparameters"]) == ("pause", {"n_steps": 128, "learning_rate": 1e-4})
    become(api, id, status="paused")
    refused = put(api, id, 400, hyperparameters={"n_steps": 256})
    assert "cannot change on a live model" in refused["detail"]
    put(api, id, hyperparameters={"learning_rate": 1e-5}, status="running")
    assert api.gateway.experiments.get(id).spec["algorithm"]["learning_rate"] == 1e-5


def test_what_trains_is_not_deleted(api: Service) -> None:
    id = create(api)
    api.json("POST", f"/experiments/{id}/train")
    api.json("DELETE", f"/experiments/{id}", 409)
    become(api, id, status="failed")
    api.json("DELETE", f"/experiments/{id}")
    api.json("GET", f"/experiments/{id}", 404)


def test_metrics_have_a_range_a_bound_and_a_summary(api: Service) -> None:
    id = create(api)
    empty = api.json("GET", f"/experiments/{id}/metrics")
    assert (empty["metrics"], empty["run_id"], empty["summary"]["avg_reward_last_100"]) == ([], None, None)
    run = make_run(api, id)
    lines = [f'{{"step":{step},"rollout/ep_rew_mean":{step / 100}}}\n' for step in range(0, 100_000, 100)]
    run.metrics_path.write_text("".join(lines))
    body = api.json("GET", f"/experiments/{id}/metrics?from_timestep=1000&to_timestep=5000")
    assert [body["metrics"][index]["timestep"] for index in (0, -1)] == [1000, 5000]
    assert body["metrics"][0]["reward"] == 10.0
    assert (body["summary"]["best_reward"], body["summary"]["total_timesteps"]) == (50.0, 5000)
    assert len(api.json("GET", f"/experiments/{id}/metrics?max_points=50")["metrics"]) <= 50
    api.json("GET", f"/experiments/{id}/metrics?seed=7", 404)


def test_metrics_are_streamed_as_events_that_a_cut_stream_goes_on_after(api: Service) -> None:
    id = create(api)
    api.json("GET", f"/experiments/{id}/metrics/stream", 404)
    run = make_run(api, id)
    run.metrics_path.write_text('{"step":64,"rollout/ep_rew_mean":1}\n{"step":128,"rollout/ep_rew_mean":2}\n')
    become(api, id, status="completed")
    whole = api.ask("GET", f"/experiments/{id}/metrics/stream")
    assert whole.headers["content-type"].startswith("text/event-stream")
    assert whole.text.count("event: metrics") == 2
    assert whole.text.endswith("event: end\ndata: {}\n\n")
    mark = next(line for line in whole.text.splitlines() if line.startswith("id: ")).removeprefix("id: ")
    rest = api.ask("GET", f"/experiments/{id}/metrics/stream", headers={"Last-Event-ID": mark}).text
    assert rest.count("event: metrics") == 1
    assert '"timestep": 128' in rest
    assert api.gateway.inference.streams.count == 0


def test_open_streams_are_limited(tmp_path: Path) -> None:
    with service(tmp_path, max_streams=0) as api:
        id = create(api)
        make_run(api, id)
        assert "At most 0 streams" in api.json("GET", f"/experiments/{id}/metrics/stream", 503)["detail"]


def test_results_are_there_when_it_is_over(api: Service) -> None:
    id = create(api)
    api.json("GET", f"/experiments/{id}/results", 409)
    run = make_run(api, id)
    run.update(state="running")
    final = {
        "n_episodes": 10,
        "return_mean": 5.0,
        "return_std": 1.0,
        "return_ci_low": 4.0,
        "return_ci_high": 6.0,
        "length_mean": 5.0,
        "success_rate": None,
    }
    run.end_attempt("completed", 128, "done", result={"step": 128, "best_return": 6.0, "final": final})
    become(api, id, status="completed")
    body = api.json("GET", f"/experiments/{id}/results")
    assert body["final_evaluation"]["avg_reward"] == 5.0
    assert (body["runs"][0]["timesteps"], body["runs"][0]["best_reward"], body["model"]) == (128, 6.0, None)
    measured = api.json("POST", f"/experiments/{id}/evaluate", json={"n_episodes": 3})
    assert (measured["avg_reward"], measured["rewards"]) == (7.0, [7.0, 7.0, 7.0])
    api.json("GET", f"/experiments/{id}/artifacts/model", 404)
    api.json("GET", f"/experiments/{id}/artifacts/tensorboard", 404)
    assert "CartPole-v1" in api.ask("GET", f"/experiments/{id}/artifacts/spec").text
    assert api.json("GET", f"/experiments/{id}/artifacts")["model"] is None


def test_every_change_is_in_the_audit_log(api: Service) -> None:
    id = create(api)
    put(api, id, hyperparameters={"n_steps": 64})
    api.json("POST", f"/experiments/{id}/train")
    put(api, id, status="cancelled")
    actions = [entry.action for entry in api.gateway.audit.list(target=id).items]
    assert actions == ["experiment.stop", "experiment.start", "experiment.change", "experiment.create"]


def test_no_answer_shows_where_the_servers_folders_are(api: Service, tmp_path: Path) -> None:
    id = create(api)
    run = make_run(api, id)
    run.update(state="running")
    run.end_attempt("failed", 128, f"{run.path / 'metrics.jsonl'}: No space left on device", result=None)
    become(api, id, status="failed")
    answers = [api.ask("GET", path) for path in ("/config", f"/experiments/{id}/results", "/models/absent")]
    run.metrics_path.write_text("no JSON\n")
    answers.append(api.ask("GET", f"/experiments/{id}/metrics"))
    assert [answer.status_code for answer in answers] == [200, 200, 404, 500]
    assert "metrics.jsonl: No space left" in answers[1].text
    assert not [answer.text for answer in answers if str(tmp_path) in answer.text]


def test_catalogs_are_told(api: Service) -> None:
    algorithms = {one["name"]: one for one in api.json("GET", "/algorithms")}
    assert algorithms["PPO"]["default_hyperparameters"]["n_steps"] == 2048
    assert "learning_rate" in algorithms["PPO"]["amendable"]
    assert [one["name"] for one in api.json("GET", "/environments")] == ["CartPole-v1"]
    assert "optimized_cartpole" in [one["name"] for one in api.json("GET", "/rewards")]
