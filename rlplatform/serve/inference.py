"""One inference from the bytes of its request to the bytes of its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
import numpy as np

from rlplatform.errors import PolicyInputError, RequestError, RequestTooLarge
from rlplatform.policy.runtime import Prediction, State
from rlplatform.serve.models import LoadedModel
from rlplatform.serve.services import Services

_T = TypeVar("_T")
Seed = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Question(msgspec.Struct, forbid_unknown_fields=True):
    """What is asked of a policy, apart from which one. None is what a stream says otherwise, or the usual."""

    observation: Any = msgspec.UNSET
    deterministic: bool | None = None
    action_masks: Any = None
    state: str | None = None
    episode_start: bool | list[bool] | None = None
    seed: Seed | None = None


class InferenceRequest(Question, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /inference."""

    model_name: str
    observation: Any
    deterministic: bool = True


class Inference(NamedTuple):
    """An answer, and who gave it."""

    body: bytes
    model: LoadedModel


_decode = msgspec.json.Decoder(InferenceRequest).decode


async def infer(body: bytes, services: Services) -> Inference:
    """Answer a request.

    Args:
        body: JSON of an `InferenceRequest`.
        services: Where models are found, and what limits there are.

    Raises:
        RequestError: The body is not such JSON.
        RequestTooLarge: The batch is too large.
        PolicyInputError: The observation, masks or state do not fit the policy.
        ModelNotFound: There is no such model.
    """
    request = read(body, _decode)
    name = request.model_name
    model = services.models.current(name) or await services.models.get(name)
    rows = model.rows(request.observation)
    return Inference(await evaluated(model, rows, services, lambda: answer(model, request, rows)), model)


def read(body: bytes | str, decode: Callable[[bytes | str], _T]) -> _T:
    """Return a decoded body.

    Raises:
        RequestError: It is not JSON of the right form.
    """
    try:
        return decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"The body does not fit: {error}. See /docs for its fields.") from error


async def evaluated(model: LoadedModel, rows: int, services: Services, call: Callable[[], _T]) -> _T:
    """Return what `call` returns, having called it where it holds nobody up: here if it is quick, else in a thread.

    Raises:
        RequestTooLarge: The batch has more than `max_batch` observations.
    """
    if rows <= model.loop_rows and rows <= services.limits.max_batch:
        return call()
    if rows > services.limits.max_batch:
        raise RequestTooLarge(
            f"A batch must have at most {services.limits.max_batch} observations, got {rows}. Send several."
        )
    return await asyncio.get_running_loop().run_in_executor(services.workers, call)


def answer(model: LoadedModel, question: Question, rows: int) -> bytes:
    """Return the JSON of the answer to a question.

    Raises:
        PolicyInputError: The observation, masks or state do not fit the policy.
    """
    return model.answers.encode(ask(model, question, rows))


def ask(model: LoadedModel, question: Question, rows: int, state: State | None = None) -> Prediction:
    """Return a policy's prediction.

    Args:
        model: The policy.
        question: What is asked.
        rows: Size of the batch.
        state: Recurrent state that a stream holds; what the question holds wins.

    Raises:
        PolicyInputError: The observation, masks or state do not fit the policy.
    """
    if question.state is not None:
        if model.answers.state is None:
            raise PolicyInputError("`state` must be left out: this policy has no memory.")
        state = model.answers.state.read(question.state, rows)
    try:
        return model.runtime.predict(
            question.observation,
            deterministic=question.deterministic is not False,
            state=state,
            episode_start=question.episode_start,
            action_masks=question.action_masks,
            rng=None if question.seed is None else np.random.default_rng(question.seed),
        )
    except PolicyInputError as error:
        # The runtime's word for it is Gymnasium's, the document's is another.
        raise PolicyInputError(str(error).replace("`obs", "`observation", 1)) from error
