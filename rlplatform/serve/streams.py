"""An episode's loop over one connection: what was said, to what is answered. The connection itself is the router's.

Text is JSON: the fields of POST /inference but `model_name`; the answer is the same too. A text without `observation`
is not answered: its fields hold for the next observation, as `{"episode_start": true}` before a binary one.

Bytes are the observations of all episodes (a Dict's parts after one another in the order of the model's metadata),
little-endian and row-major, of the space's dtype, and, if wanted, one byte for each entry of the action masks. The
answer is the actions, then the recurrent state if the policy has one.

State stays here between messages, and goes out with each answer too: whoever gives it back goes on, on any connection.
"""

from __future__ import annotations

import msgspec
import numpy as np

from rlplatform.errors import PolicyInputError
from rlplatform.policy.runtime import State
from rlplatform.policy.spaces import parts
from rlplatform.serve.inference import Question, ask, read
from rlplatform.serve.models import LoadedModel

_decode = msgspec.json.Decoder(Question).decode


class Episodes:
    """The episodes that one stream is about: one, or as many as a vector environment has."""

    def __init__(self, model: LoadedModel, n: int, *, deterministic: bool) -> None:
        """Begin `n` episodes.

        Args:
            model: Answers for the whole stream, also when an alias moves.
            n: From 1. With 1, observations come, and actions go, without a batch axis.
            deterministic: Take the most likely action unless a message says otherwise.
        """
        self.model, self.n = model, n
        self._deterministic = deterministic
        self._state: State | None = None
        self._next: Question | None = None
        manifest = model.runtime.manifest
        self._parts = [
            (key, np.dtype(part.dtype).newbyteorder("<"), part.shape, n * int(np.prod(part.shape, dtype=np.int64)))
            for key, part in parts(manifest.observation_space).items()
        ]
        self._obs_bytes = sum(dtype.itemsize * count for _, dtype, _, count in self._parts)
        self._mask_size = manifest.mask_size or 0

    def hear(self, text: str) -> Question | None:
        """Return what a text asks; None if it asks nothing.

        Raises:
            RequestError: It is not such JSON.
            PolicyInputError: It is about another number of episodes.
        """
        question = read(text, _decode)
        if question.observation is msgspec.UNSET:
            self._next = self._completed(question)
            return None
        rows = self.model.rows(question.observation)
        if rows != self.n:
            raise PolicyInputError(f"`observation` must be of {self.n} episodes, got {rows}. Connect with another `n`.")
        return self._completed(question)

    def hear_bytes(self, data: bytes) -> Question:
        """Return what bytes ask.

        Raises:
            PolicyInputError: Their number is not that of the observations, nor of observations and masks.
        """
        masks_bytes = self.n * self._mask_size
        action_masks = None
        if masks_bytes and len(data) == self._obs_bytes + masks_bytes:
            masks = np.frombuffer(data, np.uint8, masks_bytes, self._obs_bytes)
            action_masks = masks if self.n == 1 else masks.reshape(self.n, -1)
        elif len(data) != self._obs_bytes:
            masked = f", or {self._obs_bytes + masks_bytes} with masks" if masks_bytes else ""
            raise PolicyInputError(
                f"A binary message must have {self._obs_bytes} bytes{masked}, got {len(data)}. See /docs."
            )
        arrays, at = {}, 0
        for key, dtype, shape, count in self._parts:
            array = np.frombuffer(data, dtype, count, at).reshape(shape if self.n == 1 else (self.n, *shape))
            arrays[key] = array.astype(dtype.newbyteorder("="), copy=not array.flags.aligned)
            at += dtype.itemsize * count
        return self._completed(Question(arrays.get("", arrays), action_masks=action_masks))

    def answer(self, question: Question) -> bytes:
        """Return the JSON of the answer.

        Raises:
            PolicyInputError: The observation, masks or state do not fit the policy.
        """
        prediction = ask(self.model, question, self.n, self._state)
        self._state = prediction.state
        return self.model.answers.encode(prediction)

    def answer_bytes(self, question: Question) -> bytes:
        """Return the bytes of the answer.

        Raises:
            PolicyInputError: The observation, masks or state do not fit the policy.
        """
        prediction = ask(self.model, question, self.n, self._state)
        self._state = prediction.state
        action = np.asarray(prediction.action)
        data = action.astype(action.dtype.newbyteorder("<"), copy=False).tobytes()
        text = self.model.answers.state
        return data if text is None or prediction.state is None else data + text.write_bytes(prediction.state)

    def _completed(self, question: Question) -> Question:
        """Fill in what was said before, and what holds for the whole stream."""
        before, self._next = self._next, None
        if before is not None:
            for name in ("deterministic", "action_masks", "state", "episode_start", "seed"):
                if getattr(question, name) is None:
                    setattr(question, name, getattr(before, name))
        elif question.deterministic is None:
            question.deterministic = self._deterministic
        return question
