"""Every string that is a contract: metric keys, file names, environment variables. Each is spelled only here.

Metric keys are Stable-Baselines3's where it has one; the x-axis is always environment steps.
"""

from __future__ import annotations

# --- metric keys ------------------------------------------------------------------------------------------------------
STEP = "step"
ROLLOUT_RETURN_MEAN = "rollout/ep_rew_mean"
WALL_CLOCK_PREFIX = "time/"
"""Keys with this prefix hold wall-clock readings; comparisons of two runs leave them out."""

EVAL_RETURN_MEAN = "eval/return_mean"
EVAL_RETURN_STD = "eval/return_std"
EVAL_RETURN_CI_LOW = "eval/return_ci_low"
EVAL_RETURN_CI_HIGH = "eval/return_ci_high"
EVAL_LENGTH_MEAN = "eval/length_mean"
EVAL_N_EPISODES = "eval/n_episodes"
EVAL_SUCCESS_RATE = "eval/success_rate"

# --- folders under RLPLATFORM_HOME ------------------------------------------------------------------------------------
RUNS_DIR = "runs"
SEARCHES_DIR = "searches"
COMPARISONS_DIR = "comparisons"
MODELS_DIR = "models"
LOGS_DIR = "logs"
DEFAULT_HOME = "results"
DATABASE_FILE = "rlplatform.db"

# --- files of a run ---------------------------------------------------------------------------------------------------
SPEC_FILE = "spec.yaml"
RUN_FILE = "run.json"
METRICS_FILE = "metrics.jsonl"
METRICS_CSV_FILE = "metrics.csv"
EVALUATIONS_FILE = "evaluations.jsonl"
TENSORBOARD_DIR = "tb"
CHECKPOINTS_DIR = "checkpoints"
BEST_DIR = "best"
BEST_FILE = "best.json"
REQUEST_FILE = "request.json"
LOCK_FILE = ".lock"
RECORD_LOCK_FILE = ".run.lock"

# --- files of a comparison --------------------------------------------------------------------------------------------
COMPARISON_FILE = "comparison.json"
RESULTS_FILE = "results.json"
GROUPS_CSV_FILE = "groups.csv"
RUNS_CSV_FILE = "runs.csv"

# --- files of a search ------------------------------------------------------------------------------------------------
SEARCH_SPEC_FILE = "search.yaml"
SEARCH_FILE = "search.json"
TRIALS_FILE = "trials.jsonl"
TRIALS_DIR = "trials"
TUNE_DIR = "tune"
"""Ray Tune's own storage."""
SEARCH_STATE_FILE = "state.pkl"
"""What a search must remember over the death of its driver: suggestions, scheduler, trials."""
TRIAL_FILE = "trial.json"
LEADERBOARD_CSV_FILE = "leaderboard.csv"
LEADERBOARD_JSON_FILE = "leaderboard.json"
BEST_SPEC_FILE = "best.yaml"
PLOTS_DIR = "plots"

# --- files of a checkpoint and of a policy folder ---------------------------------------------------------------------
MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.zip"
NORMALIZER_FILE = "normalizer.npz"
SESSION_FILE = "session.pkl"
REPLAY_DIR = "replay"

# --- files of a policy bundle -----------------------------------------------------------------------------------------
BUNDLE_ONNX_FILE = "policy.onnx"
BUNDLE_JSON_FILE = "policy.json"

# --- environment variables --------------------------------------------------------------------------------------------
HOME_ENV_VAR = "RLPLATFORM_HOME"
JOB_ENV_VAR = "RLPLATFORM_JOB_ID"
"""Id of the job whose command this is. A command that is tried again goes on with the runs that its job has made."""
ENV_PREFIX = "RLPLATFORM_"
SPEC_ENV_PREFIX = "RLPLATFORM_SET__"
"""`RLPLATFORM_SET__ENV__N_ENVS=8` is `--set env.n_envs=8`."""

# --- Ray --------------------------------------------------------------------------------------------------------------
RAY_NAMESPACE = "rlplatform"
RUN_MANAGER_ACTOR = "rlplatform-run-manager"
RUN_ACTOR_PREFIX = "rlplatform-run:"
"""A RunActor, and its placement group, are called this and the run's id."""
JOB_COMMAND_METADATA = "rlplatform_command"
"""Metadata key of the jobs that `rlplatform jobs submit` made: the command, as it was given."""
JOB_NAME_METADATA = "rlplatform_job"
"""Likewise: the job's id, which a submission that revives it after the loss of its node keeps under another id."""
RUN_MANAGERS_DIR = "run_managers"
"""Folder under RLPLATFORM_HOME in which each RunManager keeps what it must remember over a restart."""

# --- entry point groups through which another package adds to the catalogs --------------------------------------------
ALGORITHM_ENTRY_POINTS = "rlplatform.algorithms"
ENVIRONMENT_ENTRY_POINTS = "rlplatform.environments"
WRAPPER_ENTRY_POINTS = "rlplatform.wrappers"
REWARD_ENTRY_POINTS = "rlplatform.rewards"
