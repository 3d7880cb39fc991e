"""Acting from a PolicyBundle with numpy and onnxruntime alone: neither torch nor Stable-Baselines3 is imported.

An observation is checked, goes through one `session.run`, and comes out as an action: the graph's own, or one drawn
here from the distribution's parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort

from rlplatform.errors import BundleError, PolicyInputError
from rlplatform.policy import sampling
from rlplatform.policy.bundle import BundleManifest, PolicyBundle, TensorSpec, load_bundle
from rlplatform.policy.inputs import InputReader, as_array, read_batch
from rlplatform.policy.spaces import DictSpace, parts

State = tuple[np.ndarray, ...]

_ORT_TYPES = {"float": "float32", "double": "float64"}


class Prediction(NamedTuple):
    """What a policy answers. For a single observation the batch axis is gone, except from `state`."""

    action: Any
    """For the environment: of the action space's shape and dtype, clipped or unscaled. `[n, *shape]` for a batch."""
    state: State | None
    """Recurrent state to give to the next call, each array `[layers, n, size]` float32; None without memory."""
    distribution: dict[str, np.ndarray]
    """The distribution's parameters by name, such as `logits`, or `mean` and `log_std`. Masks are applied."""
    value: Any
    """The critic's value `[n]` float32; None where the policy has no critic of states."""


class PolicyRuntime:
    """A loaded policy. It holds no state of episodes, and `predict` may be called from several threads."""

    def __init__(self, bundle: PolicyBundle, *, n_threads: int = 1) -> None:
        """Prepare the graph to be run.

        Args:
            bundle: A checked bundle.
            n_threads: Threads of one evaluation. Small networks are fastest with 1.

        Raises:
            BundleError: The graph cannot be run, or is not the one that the manifest describes.
        """
        self.manifest: BundleManifest = bundle.manifest
        options = ort.SessionOptions()
        options.intra_op_num_threads = n_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            session = ort.InferenceSession(bundle.onnx, options, providers=["CPUExecutionProvider"])
        except (ort.capi.onnxruntime_pybind11_state.OrtException, RuntimeError) as error:
            raise BundleError(f"{bundle.path} cannot be run: {str(error).splitlines()[0]} Publish it again.") from error
        manifest = bundle.manifest
        _check_signature(session, manifest)
        # What is inside of `session.run`, which would check once more what `predict` gives: 4 µs of 60 for a request.
        self._run: Callable[[list[str], Mapping[str, np.ndarray], None], list[np.ndarray]] = session._sess.run
        self._outputs = [tensor.name for tensor in manifest.outputs]
        self._readers = tuple(
            (key, InputReader(f"obs/{key}" if key else "obs", part))
            for key, part in parts(manifest.observation_space).items()
        )
        self._is_dict = isinstance(manifest.observation_space, DictSpace)
        self._sample = sampling.sampler(manifest)
        self._parameters = manifest.distribution.parameters
        self._graph_masks = any(tensor.name == "action_masks" for tensor in manifest.inputs)
        self._n_parameters = len(self._parameters)
        self._rng = np.random.default_rng()

    @classmethod
    def load(cls, path: str | Path, *, n_threads: int = 1) -> PolicyRuntime:
        """Load the bundle in a folder, with every check and without running code from it.

        Raises:
            BundleError: The bundle is missing, damaged, or not what its manifest says.
        """
        return cls(load_bundle(Path(path)), n_threads=n_threads)

    def predict(
        self,
        obs: Any,
        *,
        deterministic: bool = True,
        state: State | None = None,
        episode_start: Any = None,
        action_masks: Any = None,
        rng: np.random.Generator | None = None,
    ) -> Prediction:
        """Choose an action for one observation, or one for each of a batch.

        Args:
            obs: As the environment gives it, `[*shape]` or `[n, *shape]`; a mapping of such arrays for a Dict space.
                Nested lists of numbers will do.
            deterministic: Take the most likely action; else draw from the distribution. Policies that are greedy by
                nature (DQN, QR-DQN, TD3, DDPG, ARS) act the same either way: exploration belongs to training.
            state: Recurrent state of the last call; None starts every episode afresh.
            episode_start: bool, scalar or `[n]`: where True, the state is cleared first.
            action_masks: bool `[k]` or `[n, k]`, True where an action is allowed, for choices of `k` actions in all.
            rng: Source of randomness. None: one of this runtime's own, seeded by the system.

        Raises:
            PolicyInputError: An input's type, shape or values do not fit the policy.
        """
        feeds, n, single = self._read_observation(obs)
        masks = None
        if action_masks is not None:
            masks = sampling.read_masks(action_masks, self.manifest, n, single=single)
        if self._graph_masks:
            feeds["action_masks"] = masks if masks is not None else np.ones((n, self.manifest.mask_size or 0), bool)
        if self.manifest.state:
            self._feed_state(feeds, n, state, episode_start)
        elif state is not None:
            raise PolicyInputError("`state` must be left out: this policy has no memory.")
        produced = self._run(self._outputs, feeds, None)
        action = produced[0]
        end = 1 + self._n_parameters
        parameters = dict(zip(self._parameters, produced[1:end], strict=True))
        if masks is not None and not self._graph_masks:
            sampling.apply_masks(parameters, masks, self.manifest.distribution)
            action = sampling.greedy(parameters, self.manifest)
        if not deterministic and self._sample is not None:
            action = self._sample(parameters, rng or self._rng)
        value = None
        if self.manifest.has_value:
            value = produced[end]
            end += 1
        next_state = tuple(produced[end:]) if self.manifest.state else None
        if single:
            return Prediction(
                action[0],
                next_state,
                {name: array[0] for name, array in parameters.items()},
                None if value is None else value[0],
            )
        return Prediction(action, next_state, parameters, value)

    def initial_state(self, n: int = 1) -> State | None:
        """Return the recurrent state at the start of `n` episodes: zeros; None for a policy without memory."""
        shapes = [tensor.shape for tensor in self.manifest.inputs if tensor.name in self.manifest.state]
        return tuple(np.zeros((shape[0] or 1, n, shape[2] or 1), np.float32) for shape in shapes) or None

    def _read_observation(self, obs: Any) -> tuple[dict[str, np.ndarray], int, bool]:
        if not self._is_dict:
            reader = self._readers[0][1]
            array, single = reader.read(obs)
            return {reader.name: array}, len(array), single
        if not isinstance(obs, Mapping) or set(obs) != {key for key, _ in self._readers}:
            got = f"keys {sorted(map(str, obs))}" if isinstance(obs, Mapping) else type(obs).__name__
            raise PolicyInputError(
                f"`obs` must be a mapping with the keys {sorted(key for key, _ in self._readers)}, got {got}."
            )
        read = {reader.name: reader.read(obs[key]) for key, reader in self._readers}
        sizes = {(len(array), single) for array, single in read.values()}
        if len(sizes) > 1:
            raise PolicyInputError(
                "`obs` must have one batch size in all its parts, got "
                + ", ".join(f"{name}: {'none' if single else len(array)}" for name, (array, single) in read.items())
                + "."
            )
        n, single = sizes.pop()
        return {name: array for name, (array, _) in read.items()}, n, single

    def _feed_state(self, feeds: dict[str, np.ndarray], n: int, state: State | None, episode_start: Any) -> None:
        expected = self.initial_state(n) or ()
        if state is None:
            state = expected
        elif len(state) != len(expected):
            raise PolicyInputError(
                f"`state` must have {len(expected)} arrays, got {len(state)}. "
                "Give back the state of the last prediction."
            )
        for name, given, zeros in zip(self.manifest.state, state, expected, strict=True):
            feeds[name] = read_batch(name, given, zeros.shape, "float32")
        starts = np.zeros(n, bool) if episode_start is None else as_array("episode_start", episode_start)
        if starts.dtype != np.bool_ and not np.isin(starts, (0, 1)).all():
            raise PolicyInputError("`episode_start` must be true or false for each observation. Use bools.")
        if starts.shape not in {(n,), *([()] if n == 1 else [])}:
            raise PolicyInputError(f"`episode_start` must have the shape ({n},), got {starts.shape}.")
        feeds["episode_start"] = starts.reshape(n).astype(bool)


def _check_signature(session: ort.InferenceSession, manifest: BundleManifest) -> None:
    for what, found, described in (
        ("inputs", session.get_inputs(), manifest.inputs),
        ("outputs", session.get_outputs(), manifest.outputs),
    ):
        got = [(tensor.name, _dtype(tensor.type), len(tensor.shape)) for tensor in found]
        wanted = [(tensor.name, tensor.dtype, len(tensor.shape)) for tensor in described]
        if got != wanted or not all(map(_same_sizes, found, described)):
            raise BundleError(f"The graph's {what} must be those of its manifest, {wanted}, got {got}. Publish again.")


def _dtype(ort_type: str) -> str:
    inner = ort_type.removeprefix("tensor(").removesuffix(")")
    return _ORT_TYPES.get(inner, inner)


def _same_sizes(found: Any, described: TensorSpec) -> bool:
    # A size that the graph does not state, such as that of a reshaped output, is a string or None there.
    return all(
        not isinstance(size, int) or size == wanted for size, wanted in zip(found.shape, described.shape, strict=True)
    )
