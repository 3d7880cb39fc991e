"""/models: what policies there are. Bundles come in and go out as zip files, and hold no code."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import datetime
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import FileResponse
from pydantic import Field
from starlette.background import BackgroundTask

from rlplatform.errors import BundleError, Conflict, SpecError
from rlplatform.policy.promotion import PromotionRule
from rlplatform.policy.registry import ModelVersion, check_model_name
from rlplatform.serve.errors import without_folder
from rlplatform.serve.gateway import Gateway
from rlplatform.serve.routers.experiment_schemas import Body
from rlplatform.serve.routers.params import ModelName, Who, errors
from rlplatform.serve.uploads import pack_bundle, unpack_bundle

AliasName = Annotated[str, Path(max_length=64, description="The name of an alias, such as `champion`.")]
Number = Annotated[int, Path(ge=1, le=999_999, description="The number of a version.")]
_ZIP: dict[str, Any] = {"application/zip": {"schema": {"type": "string", "format": "binary"}}}
ZIP_ANSWER: dict[int | str, dict[str, Any]] = {200: {"description": "A zip file.", "content": _ZIP}}


class ModelAnswer(Body):
    """A model."""

    name: str
    status: Literal["loaded", "saved"]
    """`loaded`: in this replica's memory."""
    versions: tuple[int, ...]
    aliases: dict[str, int]


class ModelsAnswer(Body):
    """All models."""

    models: tuple[ModelAnswer, ...]


class VersionAnswer(Body):
    """A version of a model."""

    model: str
    version: int
    reference: str
    """To be asked for at /inference."""
    published_at: datetime
    environment: str | None
    run_id: str | None
    metrics: dict[str, float]
    sha256: dict[str, str]
    """Of the files that act."""

    @classmethod
    def of(cls, version: ModelVersion) -> VersionAnswer:
        """Return what is told of a version."""
        manifest = version.manifest
        return cls(
            model=version.name,
            version=version.number,
            reference=version.reference,
            published_at=version.published_at,
            environment=manifest.lineage.env_id,
            run_id=manifest.lineage.run_id,
            metrics=dict(manifest.metrics),
            sha256={name: record.sha256 for name, record in manifest.files.items()},
        )


class ModelDetail(ModelAnswer):
    """A model with its versions."""

    details: tuple[VersionAnswer, ...]


class AliasRequest(Body):
    """Where an alias is to point."""

    version: Annotated[int, Field(ge=1, le=999_999)]
    gate: bool = False
    """Move it only if the version's evaluation is better than that of the present one, beyond doubt."""


class AliasAnswer(Body):
    """Where an alias points."""

    model: str
    alias: str
    version: int
    reason: str | None
    """What the gate found; null without it."""


class MessageAnswer(Body):
    """What was done."""

    message: str


class _Routes:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway, self._registry = gateway, gateway.registry

    def models(self) -> ModelsAnswer:
        """Return every model."""
        return ModelsAnswer(models=tuple(self._answer(model) for model in self._registry.models()))

    def model(self, name: ModelName) -> ModelDetail:
        """Return a model with its versions."""
        versions = tuple(VersionAnswer.of(version) for version in self._registry.versions(name))
        return ModelDetail(**dict(self._answer(self._registry.model(name))), details=versions)

    async def upload(self, name: ModelName, request: Request, who: Who) -> VersionAnswer:
        """Publish a bundle, sent as a zip of `policy.onnx` and `policy.json`, as the next version of a model.

        Its structure and its hashes are checked. Anything that may hold a pickle is refused.
        """
        check_model_name(name)
        with tempfile.TemporaryDirectory(prefix="rlplatform-upload-") as folder:
            archive = FilePath(folder, "upload.zip")
            with archive.open("wb") as file:
                async for chunk in request.stream():
                    file.write(chunk)
            version = await asyncio.to_thread(self._publish, name, archive)
        await asyncio.to_thread(
            self._gateway.audit.record, who.name, "model.upload", version.reference, {"run_id": None}
        )
        return VersionAnswer.of(version)

    def _publish(self, name: str, archive: FilePath) -> ModelVersion:
        folder = archive.with_name("bundle")
        folder.mkdir()
        unpack_bundle(archive, folder, self._gateway.settings.max_upload_bytes)
        try:
            return self._registry.publish(name, folder)
        except BundleError as error:  # the sender's fault here, and the path in it is ours
            raise SpecError(without_folder(without_folder(str(error), folder.parent), self._registry.root)) from error

    def download(self, name: ModelName, number: Number) -> FileResponse:
        """Return the bundle of a version as a zip."""
        return bundle_zip(self._registry.resolve(f"{name}@{number}"))

    def delete(self, name: ModelName, who: Who) -> MessageAnswer:
        """Delete a model with all its versions, from memory and disk."""
        self._registry.delete_model(name)
        self._gateway.inference.models.forget(name)
        self._gateway.audit.record(who.name, "model.delete", name)
        return MessageAnswer(message=f"Model {name} is deleted.")

    def set_alias(self, name: ModelName, alias: AliasName, body: AliasRequest, who: Who) -> AliasAnswer:
        """Point an alias at a version; requests under way end with the version that they began with."""
        reason = None
        if body.gate:
            decision = self._registry.promote(f"{name}@{body.version}", PromotionRule(), alias=alias, actor=who.name)
            reason = decision.reason
            if not decision.promote:
                raise Conflict(f"{name}@{body.version} does not become {alias!r}. {reason}")
        else:
            self._registry.set_alias(name, alias, body.version)
        detail = {"alias": alias, "version": body.version, "gate": body.gate, "reason": reason}
        self._gateway.audit.record(who.name, "model.alias", name, detail)
        return AliasAnswer(model=name, alias=alias, version=body.version, reason=reason)

    def remove_alias(self, name: ModelName, alias: AliasName, who: Who) -> MessageAnswer:
        """Remove an alias; the version stays."""
        self._registry.remove_alias(name, alias)
        self._gateway.audit.record(who.name, "model.alias.remove", name, {"alias": alias})
        return MessageAnswer(message=f"{name} has no alias {alias!r} any more.")

    def _answer(self, model: Any) -> ModelAnswer:
        loaded = {held.version.name for held in self._gateway.inference.models.loaded()}
        status: Literal["loaded", "saved"] = "loaded" if model.name in loaded else "saved"
        return ModelAnswer(name=model.name, status=status, versions=model.versions, aliases=dict(model.aliases))


def models_router(gateway: Gateway) -> APIRouter:
    """Return the routes."""
    router, routes = APIRouter(prefix="/models", tags=["models"]), _Routes(gateway)
    add = router.add_api_route
    add("", routes.models, methods=["GET"], responses=errors())
    add("/{name}", routes.model, methods=["GET"], responses=errors(404))
    add("/{name}", routes.delete, methods=["DELETE"], responses=errors(404, 409))
    upload = {"requestBody": {"required": True, "content": _ZIP}}
    add("/{name}/versions", routes.upload, methods=["POST"], status_code=201, responses=errors(), openapi_extra=upload)
    bundle = "/{name}/versions/{number}/bundle"
    add(bundle, routes.download, methods=["GET"], responses=ZIP_ANSWER | errors(404), response_class=Response)
    alias = "/{name}/aliases/{alias}"
    add(alias, routes.set_alias, methods=["PUT"], responses=errors(404, 409))
    add(alias, routes.remove_alias, methods=["DELETE"], responses=errors(404, 409))
    return router


def bundle_zip(version: ModelVersion) -> FileResponse:
    """Return the answer that sends a version's bundle."""
    return zip_file(f"{version.name}-{version.number}.zip", lambda archive: pack_bundle(version.bundle_path, archive))


def zip_file(name: str, write: Any) -> FileResponse:
    """Return the answer that sends a zip file.

    Args:
        name: What it is called.
        write: Writes it to the path it is given.
    """
    folder = tempfile.TemporaryDirectory(prefix="rlplatform-download-")
    archive = FilePath(folder.name, "archive.zip")
    try:
        write(archive)
    except BaseException:
        folder.cleanup()
        raise
    return FileResponse(archive, media_type="application/zip", filename=name, background=BackgroundTask(folder.cleanup))
