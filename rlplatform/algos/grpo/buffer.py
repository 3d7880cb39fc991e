"""What was collected: transitions of all environments step by step, and which episode each belongs to.

Episodes are numbered in the order in which they *start*, and an update takes the first of them, however long they last:
taking those that end first would prefer short ones. While the last episodes of an update are finished, environments
that are free play episodes of the next; those are carried over with the log probabilities of the policy that acted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

Rows = dict[str, Any]
"""Columns by name: an array ``[steps, n_envs, …]`` each, or for Dict observations a dict of them."""
Infos = Sequence[Mapping[str, Any]]

_IDLE = -1
_FIRST_CAPACITY = 256


@dataclass
class Episode:
    """One episode of one environment."""

    env: int
    start: int
    """Its first row."""
    stop: int | None = None
    """The row after its last. None: it still runs."""
    truncated: bool = False
    last_obs: Any = None
    """What its last action led to."""


@dataclass(frozen=True)
class Flat:
    """The steps of some episodes, all of the first, then all of the second, and so on."""

    columns: Rows
    """An array ``[steps, …]`` each."""
    lengths: NDArray[np.int64]
    truncated: NDArray[np.bool_]
    carried: NDArray[np.bool_]
    """``[steps]``: acted by the policy before the last update."""
    last_obs: list[Any]


class EpisodeBuffer:
    """Episodes that are being played, for one update and the beginning of the next.

    Args:
        observation_space: Of one environment.
        action_space: Of one environment.
        n_envs: Environments stepped together.
        n_values: Values kept with each step for the counterfactual mode. 0: none.
    """

    def __init__(
        self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any], n_envs: int, n_values: int = 0
    ) -> None:
        self.n_envs = n_envs
        self._empty: Rows = {
            "observations": _columns(observation_space, n_envs),
            "actions": _columns(action_space, n_envs),
            "rewards": np.empty((0, n_envs), np.float32),
            "log_probs": np.empty((0, n_envs), np.float32),
        }
        if n_values:
            self._empty |= {key: np.empty((0, n_envs, n_values), np.float32) for key in ("values", "all_log_probs")}
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.n_rows = self.n_carried = 0
        self.episodes: list[Episode] = []
        self.current = [_IDLE] * self.n_envs
        self._rows = self._empty
        self.n_idle = 0

    # --- filling ------------------------------------------------------------------------------------------------------

    def begin(self, env: int, limit: int) -> None:
        """Begin an episode in an environment that was just reset, unless `limit` episodes have begun already.

        An episode that the reset cut short is forgotten, and the new one takes its place.
        """
        if self.current[env] != _IDLE:
            self.episodes[self.current[env]] = Episode(env, self.n_rows)
        elif len(self.episodes) < limit:
            self.current[env] = len(self.episodes)
            self.episodes.append(Episode(env, self.n_rows))

    def add(self, step: Rows, dones: NDArray[np.bool_], infos: Infos, limit: int) -> None:
        """Add one step of every environment; where an episode ends, the next begins as in :meth:`begin`.

        Args:
            step: For each column an array ``[n_envs, …]``.
            dones: The step ended an episode.
            infos: With ``terminal_observation`` and ``TimeLimit.truncated`` where an episode ended.
            limit: Episodes that may begin.
        """
        if self.n_rows == _length(self._rows):
            self._rows = _map(lambda column: _grown(column, max(2 * self.n_rows, _FIRST_CAPACITY)), self._rows)
        _write(self._rows, self.n_rows, step)
        self.n_rows += 1
        self.n_idle += self.current.count(_IDLE)
        for env in map(int, np.flatnonzero(dones)):
            if self.current[env] != _IDLE:
                episode = self.episodes[self.current[env]]
                episode.stop = self.n_rows
                episode.truncated = bool(infos[env].get("TimeLimit.truncated", False))
                episode.last_obs = infos[env].get("terminal_observation")
                self.current[env] = _IDLE
            self.begin(env, limit)

    def finished(self, n: int) -> bool:
        """Return whether the first `n` episodes have begun and ended."""
        return len(self.episodes) >= n and all(episode.stop is not None for episode in self.episodes[:n])

    @property
    def idle_fraction(self) -> float:
        """Share of the steps since the beginning that belong to no episode of an update."""
        return self.n_idle / max((self.n_rows - self.n_carried) * self.n_envs, 1)

    # --- reading ------------------------------------------------------------------------------------------------------

    def flat(self, chosen: Sequence[int]) -> Flat:
        """Return the steps of some finished episodes, by their numbers."""
        episodes = [self.episodes[i] for i in chosen]
        spans = [(episode.start, episode.stop) for episode in episodes if episode.stop is not None]
        lengths = np.array([stop - start for start, stop in spans], dtype=np.int64)
        rows = np.concatenate([np.arange(start, stop) for start, stop in spans])
        envs = np.repeat([episode.env for episode in episodes], lengths)
        return Flat(
            columns=_map(lambda column: column[rows, envs], self._rows),
            lengths=lengths,
            truncated=np.array([episode.truncated for episode in episodes]),
            carried=rows < self.n_carried,
            last_obs=[episode.last_obs for episode in episodes],
        )

    # --- carrying over ------------------------------------------------------------------------------------------------

    def carry(self, used: int) -> Rows:
        """Return all that follows the first `used` episodes, as plain data for :meth:`take_over`."""
        left = self.episodes[used:]
        first = min((episode.start for episode in left), default=self.n_rows)
        return {
            "rows": _map(lambda column: column[first : self.n_rows].copy(), self._rows),
            "episodes": [
                (e.env, e.start - first, None if e.stop is None else e.stop - first, e.truncated, e.last_obs)
                for e in left
            ],
            "current": [i - used if i >= used else _IDLE for i in self.current],
        }

    def take_over(self, carried: Rows) -> None:
        """Begin with what :meth:`carry` gave."""
        self.reset()
        self._rows = carried["rows"]
        self.n_rows = self.n_carried = _length(self._rows)
        self.episodes = [Episode(*values) for values in carried["episodes"]]
        self.current = list(carried["current"])


def _columns(space: spaces.Space[Any], n_envs: int) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _columns(part, n_envs) for key, part in space.spaces.items()}
    return np.empty((0, n_envs, *(space.shape or ())), space.dtype)


def _map(function: Any, columns: Any) -> Any:
    if isinstance(columns, dict):
        return {key: _map(function, column) for key, column in columns.items()}
    return function(columns)


def _length(rows: Rows) -> int:
    return len(rows["rewards"])


def _grown(column: NDArray[Any], capacity: int) -> NDArray[Any]:
    grown = np.empty((capacity, *column.shape[1:]), column.dtype)
    grown[: len(column)] = column
    return grown


def _write(columns: Rows, row: int, values: Rows) -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            _write(columns[key], row, value)
        else:
            columns[key][row] = value
