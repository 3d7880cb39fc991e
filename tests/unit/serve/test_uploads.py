"""Models over ASGI: bundles come in and go out; what is no bundle is refused, and nothing of it stays."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.serve.policies import write_policy
from tests.unit.serve.service import Service, service


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Service]:
    with service(tmp_path / "home", max_upload_bytes=2**20) as opened:
        yield opened


def zipped(*entries: tuple[str, bytes]) -> bytes:
    """Return a zip of files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return buffer.getvalue()


def bundle(folder: Path) -> dict[str, bytes]:
    """Return the files of a good bundle."""
    return {path.name: path.read_bytes() for path in write_policy(folder).iterdir()}


def test_a_bundle_is_published_asked_aliased_and_got_back(api: Service, tmp_path: Path) -> None:
    files = bundle(tmp_path / "bundle")
    body = zipped(*files.items())
    for number in (1, 2):
        made = api.json("POST", "/models/mine/versions", 201, content=body)
        assert (made["reference"], len(made["sha256"]["policy.onnx"])) == (f"mine@{number}", 64)
    asked = {"model_name": "mine@2", "observation": [0.0, 1.0, 0.0, 0.0]}
    assert api.json("POST", "/inference", json=asked)["action"] == 1
    moved = api.json("PUT", "/models/mine/aliases/champion", json={"version": 1})
    assert (moved["version"], api.json("GET", "/models/mine")["aliases"]) == (1, {"champion": 1})
    api.json("PUT", "/models/mine/aliases/champion", 404, json={"version": 7})
    gated = api.json("PUT", "/models/mine/aliases/champion", 409, json={"version": 2, "gate": True})
    assert "no evaluation" in gated["detail"]
    sent = api.ask("GET", "/models/mine/versions/2/bundle").content
    with zipfile.ZipFile(io.BytesIO(sent)) as archive:
        assert archive.read("policy.onnx") == files["policy.onnx"]
    assert [one["status"] for one in api.json("GET", "/models")["models"]] == ["loaded"]
    api.json("DELETE", "/models/mine/aliases/champion")
    api.json("DELETE", "/models/mine")
    assert api.json("GET", "/models") == {"models": []}
    api.json("POST", "/inference", 404, json=asked)
    api.json("DELETE", "/models/mine", 404)
    actions = [entry.action for entry in api.gateway.audit.list().items]
    assert actions == [
        "model.delete",
        "model.alias.remove",
        "model.alias",
        "model.upload",
        "model.upload",
    ]


def _pickle(files: dict[str, bytes]) -> bytes:
    return pickle.dumps({"a": 1})


def _with(name: str, data: bytes) -> Callable[[dict[str, bytes]], bytes]:
    return lambda files: zipped(*files.items(), (name, data))


def _bomb(files: dict[str, bytes]) -> bytes:
    return zipped(("policy.onnx", bytes(2**24)), ("policy.json", files["policy.json"]))


def _lying_bomb(files: dict[str, bytes]) -> bytes:
    """Return a zip that unpacks to more than its directory says."""
    data = bytearray(_bomb(files))
    true, told = (2**24).to_bytes(4, "little"), (2**10).to_bytes(4, "little")
    return bytes(data.replace(true, told))


def _link(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo("policy.onnx")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("policy.json", files["policy.json"])
    return buffer.getvalue()


def _damaged(files: dict[str, bytes]) -> bytes:
    return zipped(("policy.onnx", files["policy.onnx"] + b"x"), ("policy.json", files["policy.json"]))


@pytest.mark.parametrize(
    ("make", "status", "said"),
    [
        (_pickle, 400, "runs whatever code it holds"),
        (_with("model.zip", b""), 400, "may hold pickles"),
        (_with("data.pkl", b""), 400, "may hold pickles"),
        (_with("../../evil", b""), 400, "nothing else"),
        (_with("/etc/evil", b""), 400, "nothing else"),
        (_bomb, 400, "bytes unpacked"),
        (_lying_bomb, 400, "zip that can be read"),
        (_link, 400, "plain file"),
        (_damaged, 400, "damaged"),
        (lambda files: zipped(("policy.json", files["policy.json"])), 400, "once each"),
        (lambda files: b"", 400, "zip that can be read"),
        (lambda files: b"PK\x03\x04garbage", 400, "zip that can be read"),
        (lambda files: bytes(2**21), 413, "bytes"),
    ],
)
def test_what_is_no_bundle_is_refused_and_leaves_nothing(
    api: Service, tmp_path: Path, make: Callable[[dict[str, bytes]], bytes], status: int, said: str
) -> None:
    refused = api.json("POST", "/models/mine/versions", status, content=make(bundle(tmp_path / "bundle")))
    assert said in refused["detail"]
    assert str(tmp_path) not in refused["detail"]
    assert "/tmp" not in refused["detail"]
    assert ".publishing" not in refused["detail"]
    assert api.json("GET", "/models") == {"models": []}


@pytest.mark.parametrize("name", ["UPPER", "-dash", "a" * 65, "%2e%2e"])
def test_a_models_name_is_checked(api: Service, name: str) -> None:
    assert api.ask("POST", f"/models/{name}/versions", content=b"").status_code in {400, 404, 422}
    assert api.ask("DELETE", f"/models/{name}").status_code in {400, 404, 422}
