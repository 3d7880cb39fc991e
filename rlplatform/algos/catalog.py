"""Which algorithms exist, as strings: nothing is imported until an algorithm is used.

Another package adds one by an entry point in the group ``rlplatform.algorithms``: its name is the algorithm's, its
object an :class:`AlgorithmEntry` or a class of the shape of Stable-Baselines3's algorithms. A built-in name stays ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Literal

from rlplatform.errors import AlgorithmError, unknown_name
from rlplatform.names import ALGORITHM_ENTRY_POINTS

Family = Literal["on_policy", "off_policy", "ars"]

ALL_ACTION_SPACES = ("Box", "Discrete", "MultiDiscrete", "MultiBinary")


@dataclass(frozen=True)
class AlgorithmEntry:
    """One algorithm of the catalog."""

    name: str
    """Lower case, as in a spec."""
    algorithm: str
    """``module:Class`` of the algorithm."""
    family: Family
    """How it collects and learns: from rollouts, from a replay buffer, or by random search over weights."""
    action_spaces: tuple[str, ...] = ALL_ACTION_SPACES
    """Class names of the action spaces it can act in."""
    spec: str | None = None
    """``module:Class`` of its spec. None: derived from the constructor's signature."""
    summary: str = ""
    """One line for lists."""
    paper: str = ""
    """Where it was published."""
    recurrent: bool = False
    """Its policy carries a state from step to step."""
    masks: bool = False
    """It honours the environment's ``action_masks()``."""


def _builtin(
    name: str,
    algorithm: str,
    family: Family,
    action_spaces: tuple[str, ...],
    summary: str,
    paper: str,
    *,
    recurrent: bool = False,
    masks: bool = False,
    spec_module: str | None = None,
) -> AlgorithmEntry:
    module = spec_module or {"on_policy": "on_policy", "off_policy": "off_policy", "ars": "random_search"}[family]
    spec = f"rlplatform.specs.{module}:{algorithm.partition(':')[2]}Spec"
    return AlgorithmEntry(name, algorithm, family, action_spaces, spec, summary, paper, recurrent, masks)


_SB3 = "stable_baselines3"
_CONTRIB = "sb3_contrib"
_BOX = ("Box",)
_DISCRETE = ("Discrete",)

_BUILTIN: Mapping[str, AlgorithmEntry] = {
    entry.name: entry
    for entry in (
        _builtin("ppo", f"{_SB3}.ppo:PPO", "on_policy", ALL_ACTION_SPACES,
                 "Proximal Policy Optimization: clipped policy gradient, a good first choice.", "arXiv:1707.06347"),
        _builtin("a2c", f"{_SB3}.a2c:A2C", "on_policy", ALL_ACTION_SPACES,
                 "Advantage Actor-Critic: synchronous, one update for each short rollout.", "arXiv:1602.01783"),
        _builtin("dqn", f"{_SB3}.dqn:DQN", "off_policy", _DISCRETE,
                 "Deep Q-Network: Q-learning from a replay buffer.", "arXiv:1312.5602"),
        _builtin("sac", f"{_SB3}.sac:SAC", "off_policy", _BOX,
                 "Soft Actor-Critic: maximum entropy, sample-efficient for continuous control.", "arXiv:1801.01290"),
        _builtin("td3", f"{_SB3}.td3:TD3", "off_policy", _BOX,
                 "Twin Delayed DDPG: two critics, delayed and smoothed targets.", "arXiv:1802.09477"),
        _builtin("ddpg", f"{_SB3}.ddpg:DDPG", "off_policy", _BOX,
                 "Deep Deterministic Policy Gradient.", "arXiv:1509.02971"),
        _builtin("tqc", f"{_CONTRIB}.tqc:TQC", "off_policy", _BOX,
                 "Truncated Quantile Critics: SAC with distributional critics.", "arXiv:2005.04269"),
        _builtin("qrdqn", f"{_CONTRIB}.qrdqn:QRDQN", "off_policy", _DISCRETE,
                 "Quantile Regression DQN: Q-learning of the return's distribution.", "arXiv:1710.10044"),
        _builtin("trpo", f"{_CONTRIB}.trpo:TRPO", "on_policy", ALL_ACTION_SPACES,
                 "Trust Region Policy Optimization: natural gradient under a KL limit.", "arXiv:1502.05477"),
        _builtin("crossq", f"{_CONTRIB}.crossq:CrossQ", "off_policy", _BOX,
                 "CrossQ: SAC with batch normalisation and no target networks.", "arXiv:1902.05605"),
        _builtin("ars", f"{_CONTRIB}.ars:ARS", "ars", ("Box", "Discrete"),
                 "Augmented Random Search over the weights; no gradients.", "arXiv:1803.07055"),
        # Not MultiBinary: its buffer hands int8 actions to a float loss (sb3-contrib 2.9.2).
        _builtin("recurrent_ppo", f"{_CONTRIB}.ppo_recurrent:RecurrentPPO", "on_policy", ALL_ACTION_SPACES[:3],
                 "PPO with an LSTM, for partly observed environments.", "arXiv:1707.06347", recurrent=True),
        _builtin("maskable_ppo", f"{_CONTRIB}.ppo_mask:MaskablePPO", "on_policy", ALL_ACTION_SPACES[1:],
                 "PPO that never takes an action the environment masks.", "arXiv:2006.14171", masks=True),
        _builtin("grpo", "rlplatform.algos.grpo.algorithm:GRPO", "on_policy", ALL_ACTION_SPACES,
                 "Group Relative Policy Optimization: PPO's steps without a value network, on whole episodes.",
                 "arXiv:2402.03300", spec_module="grpo"),
    )
}  # fmt: skip


def _key(name: str) -> str:
    """Return the name without case, dashes and underscores, so that `QR-DQN` and `RecurrentPPO` are found."""
    return name.lower().replace("-", "").replace("_", "")


@cache
def _plugins() -> dict[str, EntryPoint]:
    found = {point.name: point for point in entry_points(group=ALGORITHM_ENTRY_POINTS)}
    return {name: point for name, point in found.items() if _key(name) not in {_key(known) for known in _BUILTIN}}


@cache
def _load_plugin(point: EntryPoint) -> AlgorithmEntry:
    try:
        loaded = point.load()
    except (ImportError, AttributeError) as err:
        raise AlgorithmError(
            f"The algorithm {point.name!r} cannot be loaded from {point.value!r}: {err}. "
            f"Repair or uninstall the package {point.dist.name if point.dist else point.module!r}."
        ) from err
    if isinstance(loaded, AlgorithmEntry):
        return replace(loaded, name=point.name)
    if not isinstance(loaded, type):
        raise AlgorithmError(
            f"The entry point {point.name!r} = {point.value!r} must be an AlgorithmEntry or a class, got {loaded!r}."
        )
    return AlgorithmEntry(
        name=point.name,
        algorithm=f"{loaded.__module__}:{loaded.__qualname__}",
        family="off_policy" if "OffPolicyAlgorithm" in {base.__name__ for base in loaded.__mro__} else "on_policy",
        summary=(loaded.__doc__ or "").strip().partition("\n")[0],
    )


def algorithm_names() -> list[str]:
    """Return every name in the catalog without importing anything."""
    return [*_BUILTIN, *sorted(_plugins())]


def algorithms() -> Mapping[str, AlgorithmEntry]:
    """Return the catalog by name: built-in algorithms, then those of other packages, which this imports.

    Raises:
        AlgorithmError: If another package's entry cannot be loaded.
    """
    return {**_BUILTIN, **{name: _load_plugin(point) for name, point in sorted(_plugins().items())}}


def find_algorithm(name: str) -> AlgorithmEntry:
    """Return the entry of one algorithm; case, dashes and underscores do not matter.

    Raises:
        UnknownNameError: If no algorithm has that name.
        AlgorithmError: If it is another package's and cannot be loaded.
    """
    for known, entry in _BUILTIN.items():
        if _key(known) == _key(name):
            return entry
    for known, point in _plugins().items():
        if _key(known) == _key(name):
            return _load_plugin(point)
    raise unknown_name("algorithm", name, algorithm_names(), "rlplatform algorithms")
