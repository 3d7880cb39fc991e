"""POST /inference, as the GRPO API documents it, for every space, with batches, masks and memory."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from rlplatform.serve.inference import infer
from rlplatform.serve.raw import RawResponse, RawRoute, read_body
from rlplatform.serve.services import Services

_NUMBERS = {"description": "Numbers of the observation space's shape, nested; a mapping of them for a Dict space."}
_REQUEST: dict[str, Any] = {
    "type": "object",
    "required": ["model_name", "observation"],
    "additionalProperties": False,
    "properties": {
        "model_name": {"type": "string", "description": "`name`, `name@alias` or `name@version`."},
        "observation": {**_NUMBERS, "description": f"{_NUMBERS['description']} A batch has one more axis, the first."},
        "deterministic": {
            "type": "boolean",
            "default": True,
            "description": "Take the most likely action; else draw one.",
        },
        "action_masks": {
            "anyOf": [{"type": "array"}, {"type": "null"}],
            "description": "True where an action is allowed: one for each choice; `[n, k]` for a batch.",
        },
        "state": {
            "anyOf": [{"type": "string"}, {"type": "null"}],
            "description": "Recurrent state of the answer before, as it was; left out when an episode begins.",
        },
        "episode_start": {
            "anyOf": [{"type": "boolean"}, {"type": "array", "items": {"type": "boolean"}}, {"type": "null"}],
            "description": "Where true, the state is cleared first.",
        },
        "seed": {
            "anyOf": [{"type": "integer", "minimum": 0, "maximum": 2**63 - 1}, {"type": "null"}],
            "description": "Of the draw, to repeat it.",
        },
    },
    "example": {"model_name": "my_model", "observation": [0.1, 0.0, 0.05, 0.0], "deterministic": True},
}
_ANSWER: dict[str, Any] = {
    "type": "object",
    "required": ["action", "action_probs", "value"],
    "properties": {
        "action": {"description": "For the environment: an integer, or nested arrays of the action space's shape."},
        "action_probs": {
            "anyOf": [{"type": "array"}, {"type": "null"}],
            "description": "Probability of each choice; null where actions are not choices, or have values instead.",
        },
        "value": {
            "anyOf": [{"type": "number"}, {"type": "array", "items": {"type": "number"}}, {"type": "null"}],
            "description": "The critic's estimate of the return; null without a critic of states.",
        },
        "state": {"type": "string", "description": "Recurrent state, of policies with memory, for the next request."},
    },
    "example": {"action": 1, "action_probs": [0.3, 0.7], "value": 0.85},
}
_ERRORS = {
    400: "The observation, the masks or the state do not fit the policy.",
    404: "There is no such model.",
    413: "The body or the batch is too large.",
    422: "The body is not JSON of this form.",
    503: "The model does not fit into the memory now.",
}


def inference_router(services: Services) -> APIRouter:
    """Return the router of /inference. To be included first: each route before it costs every request a match."""
    router = APIRouter(route_class=RawRoute, tags=["inference"])

    async def inference(request: Request) -> Response:
        """Ask a policy for the action to an observation, or for those to a batch.

        The header `X-Model-Version` of the answer names the version that gave it.
        """
        answer = await infer(await read_body(request), services)
        return RawResponse(answer.body, answer.model.headers)

    router.add_api_route(
        "/inference",
        inference,
        methods=["POST"],
        responses={
            200: {"description": "The action.", "content": {"application/json": {"schema": _ANSWER}}},
            **{status: {"description": text} for status, text in _ERRORS.items()},
        },
        openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": _REQUEST}}}},
    )
    return router
