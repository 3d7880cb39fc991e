"""Bundles without torch: a tiny graph made by hand, so that tests of storage cost nothing."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rlplatform import names
from rlplatform.artifacts.checkpoint import FileRecord
from rlplatform.policy.bundle import BundleManifest, DistributionSpec, TensorSpec
from rlplatform.policy.spaces import BoxSpace, DiscreteSpace


def tiny_graph(weight: float = 1.0) -> onnx.ModelProto:
    """Scores are `obs @ [[w, -w]]`; the action is the better one."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["obs", "w"], ["q_values"]),
            helper.make_node("ArgMax", ["q_values"], ["action"], axis=1, keepdims=0),
        ],
        "policy",
        [helper.make_tensor_value_info("obs", TensorProto.FLOAT, ["batch", 1])],
        [
            helper.make_tensor_value_info("action", TensorProto.INT64, ["batch"]),
            helper.make_tensor_value_info("q_values", TensorProto.FLOAT, ["batch", 2]),
        ],
        [numpy_helper.from_array(np.array([[weight, -weight]], np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write_bundle(
    folder: Path, *, model: onnx.ModelProto | None = None, weight: float = 1.0, metrics: dict[str, float] | None = None
) -> Path:
    """Write a whole bundle and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    graph = (model or tiny_graph(weight)).SerializeToString()
    (folder / names.BUNDLE_ONNX_FILE).write_bytes(graph)
    record = FileRecord(sha256=hashlib.sha256(graph).hexdigest(), bytes=len(graph))
    manifest = BundleManifest(
        algorithm="dqn",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        observation_space=BoxSpace(shape=(1,), dtype="float32", low="-inf", high="inf"),
        action_space=DiscreteSpace(n=2),
        inputs=(TensorSpec(name="obs", dtype="float32", shape=(None, 1)),),
        outputs=(
            TensorSpec(name="action", dtype="int64", shape=(None,)),
            TensorSpec(name="q_values", dtype="float32", shape=(None, 2)),
        ),
        distribution=DistributionSpec(type="greedy", parameters=("q_values",), nvec=(2,)),
        mask_size=2,
        has_value=False,
        normalized=False,
        opset=17,
        metrics=metrics or {},
        files={names.BUNDLE_ONNX_FILE: record},
    )
    (folder / names.BUNDLE_JSON_FILE).write_text(manifest.model_dump_json(), encoding="utf-8")
    return folder
