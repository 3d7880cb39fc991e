"""The statistics of SB3's VecNormalize as a value: saved with a policy, applied where no training environment is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize

from rlplatform import names

_WHOLE = ""
"""The key under which the statistics of an observation that is not a Dict are kept."""
_CONFIG_FIELDS = ("norm_obs", "norm_reward", "clip_obs", "clip_reward", "gamma", "epsilon", "norm_obs_keys")


@dataclass(frozen=True)
class Moments:
    """Running mean, variance and count."""

    mean: np.ndarray
    var: np.ndarray
    count: float

    @classmethod
    def of(cls, rms: RunningMeanStd) -> Moments:
        """Copy the moments out of SB3's accumulator."""
        return cls(np.array(rms.mean), np.array(rms.var), float(rms.count))

    def write_to(self, rms: RunningMeanStd) -> None:
        """Copy the moments into SB3's accumulator."""
        rms.mean, rms.var, rms.count = self.mean.copy(), self.var.copy(), self.count


@dataclass(frozen=True)
class Normalizer:
    """Statistics of observations (one entry for each key of a Dict, else one under the empty key) and of returns."""

    observations: dict[str, Moments]
    returns: Moments
    config: dict[str, Any]

    @classmethod
    def of(cls, vec_normalize: VecNormalize) -> Normalizer:
        """Copy the statistics and settings of a VecNormalize."""
        observations: dict[str, Moments] = {}
        if vec_normalize.norm_obs:
            rms = vec_normalize.obs_rms
            observations = (
                {key: Moments.of(value) for key, value in rms.items()}
                if isinstance(rms, dict)
                else {_WHOLE: Moments.of(rms)}
            )
        config = {field: getattr(vec_normalize, field) for field in _CONFIG_FIELDS}
        return cls(observations, Moments.of(vec_normalize.ret_rms), config)

    def write_to(self, vec_normalize: VecNormalize) -> None:
        """Copy the statistics into a VecNormalize over the same spaces."""
        for key, moments in self.observations.items():
            rms = vec_normalize.obs_rms
            moments.write_to(rms[key] if isinstance(rms, dict) else rms)
        self.returns.write_to(vec_normalize.ret_rms)

    def normalize_obs(self, obs: Any) -> Any:
        """Return normalised observations, float32, of the shape given; keys without statistics pass unchanged.

        Args:
            obs: An array ``[..., *shape]``, or a dict of them.
        """
        if isinstance(obs, dict):
            return {key: self._apply(key, value) if key in self.observations else value for key, value in obs.items()}
        return self._apply(_WHOLE, obs) if self.observations else obs

    def _apply(self, key: str, obs: np.ndarray) -> np.ndarray:
        moments, clip = self.observations[key], self.config["clip_obs"]
        scaled = (obs - moments.mean) / np.sqrt(moments.var + self.config["epsilon"])
        normalized: np.ndarray = np.clip(scaled, -clip, clip).astype(np.float32)
        return normalized

    def save(self, folder: Path) -> None:
        """Write the statistics into `folder` as one file of plain arrays, without pickle."""
        arrays: dict[str, Any] = {}
        for prefix, moments in [("ret", self.returns), *((f"obs/{k}", m) for k, m in self.observations.items())]:
            name, _, key = prefix.partition("/")
            suffix = f"/{key}" if key else ""
            arrays |= {
                f"{name}_mean{suffix}": moments.mean,
                f"{name}_var{suffix}": moments.var,
                f"{name}_count{suffix}": np.float64(moments.count),
            }
        np.savez(folder / names.NORMALIZER_FILE, config=np.array(json.dumps(self.config)), **arrays)

    @classmethod
    def load(cls, folder: Path) -> Normalizer | None:
        """Read the statistics from `folder`; None when the policy was trained without normalisation."""
        path = folder / names.NORMALIZER_FILE
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as arrays:
            moments = {
                name.replace("_mean", "", 1): Moments(
                    arrays[name],
                    arrays[name.replace("_mean", "_var", 1)],
                    float(arrays[name.replace("_mean", "_count", 1)]),
                )
                for name in arrays.files
                if name.startswith(("ret_mean", "obs_mean"))
            }
            config = json.loads(str(arrays["config"]))
        observations = {name.partition("/")[2]: value for name, value in moments.items() if name.startswith("obs")}
        return cls(observations, moments["ret"], config)
