"""What is not a whole and harmless bundle is refused before anything of it runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from rlplatform import names
from rlplatform.errors import BundleError
from rlplatform.policy import bundle as bundle_module
from rlplatform.policy.bundle import load_bundle
from rlplatform.policy.runtime import PolicyRuntime
from tests.unit.policy.bundles import tiny_graph, write_bundle


def test_a_bundle_acts(tmp_path: Path) -> None:
    runtime = PolicyRuntime.load(write_bundle(tmp_path / "b"))
    assert runtime.predict([[2.0], [-2.0]]).action.tolist() == [0, 1]
    assert load_bundle(tmp_path / "b").manifest == runtime.manifest


@pytest.mark.parametrize("file", [names.BUNDLE_ONNX_FILE, names.BUNDLE_JSON_FILE])
def test_a_missing_file_is_named(file: str, tmp_path: Path) -> None:
    (write_bundle(tmp_path / "b") / file).unlink()
    with pytest.raises(BundleError, match=f"{file} is not a file"):
        load_bundle(tmp_path / "b")


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b")
    (folder / names.BUNDLE_ONNX_FILE).rename(tmp_path / "elsewhere")
    (folder / names.BUNDLE_ONNX_FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="is not a file"):
        load_bundle(folder)


def test_a_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "b") / names.BUNDLE_ONNX_FILE
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match="is damaged: it differs from the sha256"):
        load_bundle(tmp_path / "b")


def _external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../../etc/passwd"


def _hidden_external(model: onnx.ModelProto) -> None:
    inner = tiny_graph()
    _external(inner)
    branch = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["out"])],
        "branch",
        [],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 2])],
        list(inner.graph.initializer),
    )
    condition = helper.make_tensor("c", TensorProto.BOOL, [], [True])
    model.graph.initializer.append(condition)
    model.graph.node.append(helper.make_node("If", ["c"], ["unused"], then_branch=branch, else_branch=branch))


def _foreign_operator(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.evil", 1))
    model.graph.node.insert(0, helper.make_node("Run", ["obs"], ["unused"], domain="com.evil"))


def _function(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.functions.append(
        helper.make_function(
            "local", "f", ["x"], ["y"], [helper.make_node("Identity", ["x"], ["y"])], [helper.make_opsetid("", 17)]
        )
    )


def _broken(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "nowhere"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_external, "must hold its own weights"),
        (_hidden_external, "must hold its own weights"),
        (_foreign_operator, "ONNX's own operators only"),
        (_function, "ONNX's own operators only"),
        (_broken, "is not a valid ONNX model"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_graph_that_reaches_outside_itself_is_refused(
    spoil: Callable[[onnx.ModelProto], None], message: str, tmp_path: Path
) -> None:
    model = tiny_graph()
    spoil(model)
    with pytest.raises(BundleError, match=message):
        load_bundle(write_bundle(tmp_path / "b", model=model))


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    class NoGraph:
        def SerializeToString(self) -> bytes:
            return b"\x80\x04pickle"

    with pytest.raises(BundleError, match="is not a valid ONNX model"):
        load_bundle(write_bundle(tmp_path / "b", model=NoGraph()))  # type: ignore[arg-type]


def test_a_graph_with_another_signature_is_refused(tmp_path: Path) -> None:
    model = tiny_graph()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 3
    model.graph.initializer[0].CopyFrom(helper.make_tensor("w", TensorProto.FLOAT, [3, 2], [0.0] * 6))
    with pytest.raises(BundleError, match="inputs must be those of its manifest"):
        PolicyRuntime.load(write_bundle(tmp_path / "b", model=model))


def _set(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(manifest: Any) -> None:
        for key in path[:-1]:
            manifest = manifest[key]
        manifest[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("format", value=2), "format"),
        (_set("extra", value=1), "extra"),
        (_set("observation_space", "shape", value=[2**20, 2**20]), "at most"),
        (_set("observation_space", "shape", value=[-1]), "greater than or equal to 1"),
        (_set("observation_space", "low", value=[0.0, 1.0]), "bounds must be one or 1 numbers"),
        (_set("observation_space", "type", value="pickle"), "observation_space"),
        (_set("distribution", "type", value="oracle"), "distribution.type"),
        (_set("distribution", "parameters", value=["nothing"]), r"of \(.nothing.,\) does not fit the action space"),
        (_set("distribution", "nvec", value=[3]), r"distribution.nvec must be \(2,\), as the action space, got \(3,\)"),
        (_set("distribution", "nvec", value=[]), r"distribution.nvec must be \(2,\)"),
        (_set("mask_size", value=3), "mask_size must be 2, the sum of nvec, got 3"),
        (_set("mask_size", value=None), "mask_size must be 2, the sum of nvec, got None"),
        (
            _set("inputs", 0, "dtype", value="float64"),
            r"number 1 of inputs must be 'obs' float32 \(None, 1\), got 'obs' float64 \(None, 1\)",
        ),
        (
            _set("inputs", 0, "shape", value=[None, 2]),
            r"inputs must be 'obs' float32 \(None, 1\), got 'obs' float32 \(None, 2\)",
        ),
        (_set("inputs", 0, "name", value="pixels"), "inputs must be 'obs' float32"),
        (
            _set("outputs", 0, "dtype", value="int32"),
            r"number 1 of outputs must be 'action' int64 \(None,\), got 'action' int32",
        ),
        (
            _set("outputs", 1, "shape", value=[None, 3]),
            r"number 2 of outputs must be 'q_values' float32 \(None, 2\), got",
        ),
        (_set("has_value", value=True), r"number 3 of outputs must be 'value' float32 \(None,\), got left out"),
        (_set("distribution", "type", value="diag_gaussian"), "does not fit the action space discrete"),
        (_set("distribution", "parameters", value=["action"]), r"of \(.action.,\) does not fit the action space"),
        (_set("state", value=["state/x"]), r"inputs must hold state/x of the shape \(layers, None, size\), got None"),
        (_set("files", value={}), "files must name policy.onnx"),
        (_set("files", value={"../policy.onnx": {"sha256": "0" * 64, "bytes": 1}}), "files must name policy.onnx"),
    ],
    ids=str,
)
def test_a_manifest_that_breaks_a_rule_is_refused(
    change: Callable[[dict[str, Any]], None], message: str, tmp_path: Path
) -> None:
    path = write_bundle(tmp_path / "b") / names.BUNDLE_JSON_FILE
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(BundleError, match=message):
        load_bundle(path.parent)


def test_a_manifest_that_is_not_json_is_refused(tmp_path: Path) -> None:
    (write_bundle(tmp_path / "b") / names.BUNDLE_JSON_FILE).write_text("{", encoding="utf-8")
    with pytest.raises(BundleError, match="is not JSON"):
        load_bundle(tmp_path / "b")


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bundle(tmp_path / "b")
    monkeypatch.setattr(bundle_module, "MAX_JSON_BYTES", 10)
    with pytest.raises(BundleError, match="must have at most 10 bytes"):
        load_bundle(tmp_path / "b")
