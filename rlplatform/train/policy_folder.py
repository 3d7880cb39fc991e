"""A policy on disk: the SB3 zip and, where observations are normalised, the statistics.

Checkpoints and `best/` hold one. The zip is SB3's own format and holds pickles: read it only from a folder that you
trust. What is published for serving is a PolicyBundle, which holds none.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm

from rlplatform import names
from rlplatform.algos.build import algorithm_class
from rlplatform.errors import CheckpointError
from rlplatform.train.normalizer import Normalizer


@dataclass(frozen=True)
class Policy:
    """A model that acts on the environment's own observations."""

    model: BaseAlgorithm
    normalizer: Normalizer | None

    def act(
        self,
        obs: Any,
        state: Any = None,
        episode_start: np.ndarray | None = None,
        *,
        deterministic: bool = True,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, Any]:
        """Return one action for each observation of a batch, and the recurrent state after it.

        Args:
            obs: Observations ``[n, *shape]`` as the environment gives them, or a dict of such arrays.
            state: The state returned by the last call; None starts afresh.
            episode_start: bool ``[n]``, which of them begin an episode.
            deterministic: Act greedily.
            action_masks: bool ``[n, n_actions]``, which actions are allowed; passed over by algorithms without masks.
        """
        seen = self.normalizer.normalize_obs(obs) if self.normalizer else obs
        predict: Callable[..., tuple[np.ndarray, Any]] = self.model.predict
        takes_masks = action_masks is not None and "action_masks" in inspect.signature(predict).parameters
        masks = {"action_masks": action_masks} if takes_masks else {}
        return predict(seen, state=state, episode_start=episode_start, deterministic=deterministic, **masks)

    def renew_noise(self, n: int) -> None:
        """Draw new exploration matrices for gSDE from torch's generator; they are in no file and outlive a rollout.

        Args:
            n: Observations in a batch.
        """
        if getattr(self.model, "use_sde", False):
            owner: Any = getattr(self.model.policy, "actor", None) or self.model.policy
            owner.reset_noise(n)


def save_policy(model: BaseAlgorithm, folder: Path) -> None:
    """Write a policy folder's files into an existing folder."""
    model.save(folder / names.MODEL_FILE)
    if (vec_normalize := model.get_vec_normalize_env()) is not None:
        Normalizer.of(vec_normalize).save(folder)


def load_policy(folder: Path, algorithm: str, device: str = "cpu") -> Policy:
    """Read a policy folder.

    Args:
        folder: A checkpoint, a run's `best/`, or a model version.
        algorithm: The algorithm's name in the catalog.
        device: Where the network is put.

    Raises:
        CheckpointError: `folder` holds no policy.
    """
    path = folder / names.MODEL_FILE
    if not path.is_file():
        raise CheckpointError(
            f"No policy in {folder}: {names.MODEL_FILE} is missing. Give a run, a checkpoint or a model version."
        )
    return Policy(algorithm_class(algorithm).load(path, device=device), Normalizer.load(folder))


def policy_step(folder: Path) -> int | None:
    """Return for how many environment steps the policy of a folder was trained; None where it does not say."""
    for name in (names.MANIFEST_FILE, names.BEST_FILE):
        if (folder / name).is_file():
            step = json.loads((folder / name).read_bytes()).get(names.STEP)
            return step if isinstance(step, int) else None
    return None
