"""What a model registry is: models, their immutable versions, and aliases that point at versions.

    cartpole ─ version 1, 2, 3 …            immutable, numbered from 1, a number is never used twice
             └ aliases: champion → 2        movable

A reference names one version: `cartpole@3`, `cartpole@champion`, or `cartpole`, which is the champion, or the newest
version as long as there is no champion. `store.registry` keeps it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from rlplatform.errors import ModelNotFound, RegistryError, did_you_mean
from rlplatform.policy.bundle import BundleManifest

CHAMPION = "champion"
"""The alias of the version that serves."""

_MODEL_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_ALIAS_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_VERSION = re.compile(r"[1-9][0-9]{0,5}")
MAX_VERSION = 999_999


@dataclass(frozen=True)
class ModelVersion:
    """One published policy."""

    name: str
    number: int
    bundle_path: Path
    """Folder of the bundle, and of what stands beside it for resuming and interoperation. Not to be written to."""
    manifest: BundleManifest
    published_at: datetime

    @property
    def reference(self) -> str:
        """The version's unambiguous name, such as `cartpole@3`."""
        return f"{self.name}@{self.number}"


@dataclass(frozen=True)
class Model:
    """A name with its versions and aliases."""

    name: str
    versions: tuple[int, ...]
    """In ascending order."""
    aliases: Mapping[str, int]


@dataclass(frozen=True)
class Reference:
    """A parsed reference; at most one of `number` and `alias` is set."""

    name: str
    number: int | None = None
    alias: str | None = None


class ModelRegistry(Protocol):
    """Where published policies are kept. Every method may be called from several processes at once."""

    def publish(self, name: str, folder: Path) -> ModelVersion:
        """Copy a bundle, and what stands beside it, in as the next version of a model; a new name makes the model.

        Args:
            name: The model.
            folder: Holds `policy.onnx` and `policy.json`, and if wanted `model.zip`, `normalizer.npz`, `spec.yaml`.

        Raises:
            BundleError: The bundle is not whole, or not safe to load.
            RegistryError: The name is not valid.
        """

    def models(self) -> tuple[Model, ...]:
        """Return every model, by name."""

    def model(self, name: str) -> Model:
        """Return one model.

        Raises:
            ModelNotFound: There is none of that name.
        """

    def versions(self, name: str) -> tuple[ModelVersion, ...]:
        """Return a model's versions, oldest first.

        Raises:
            ModelNotFound: There is no such model.
        """

    def resolve(self, reference: str) -> ModelVersion:
        """Return the version that `name`, `name@alias` or `name@number` stands for now.

        Raises:
            ModelNotFound: There is none.
            RegistryError: The reference cannot be read.
        """

    def verify(self, version: ModelVersion) -> None:
        """Compare every file of a version with what was published.

        Raises:
            BundleError: A file is missing, or has changed.
        """

    def set_alias(self, name: str, alias: str, number: int) -> None:
        """Point an alias at a version, moving it if it points elsewhere.

        Raises:
            ModelNotFound: There is no such version.
        """

    def remove_alias(self, name: str, alias: str) -> None:
        """Forget an alias.

        Raises:
            ModelNotFound: There is no such alias.
            Conflict: It is deployed.
        """

    def delete_version(self, name: str, number: int) -> None:
        """Delete a version for good; its number is not used again.

        Raises:
            ModelNotFound: There is no such version.
            RegistryError: An alias points at it.
            Conflict: It is deployed.
        """

    def delete_model(self, name: str) -> None:
        """Delete a model with all its versions and aliases.

        Raises:
            ModelNotFound: There is no such model.
            Conflict: It is deployed.
        """


def choose(model: Model, reference: Reference) -> int:
    """Return the number of the version that a reference stands for.

    Raises:
        ModelNotFound: There is no such version or alias.
    """
    number = reference.number
    if reference.alias is not None:
        number = aliased(model, reference.alias)
    elif number is None:
        number = model.aliases.get(CHAMPION) or max(model.versions, default=None)
    if number is None:
        raise ModelNotFound(f"{model.name!r} has no versions. Publish one with `rlplatform models publish`.")
    check_version(model, number)
    return number


def aliased(model: Model, alias: str) -> int:
    """Return the number of the version that an alias points at.

    Raises:
        ModelNotFound: There is no such alias.
    """
    if alias not in model.aliases:
        raise ModelNotFound(f"{model.name!r} has no alias {alias!r}. It has {_listed(sorted(model.aliases))}.")
    return model.aliases[alias]


def check_version(model: Model, number: int) -> None:
    """Check that a model has a version.

    Raises:
        ModelNotFound: It has none of that number.
    """
    if number not in model.versions:
        raise ModelNotFound(f"{model.name!r} has no version {number}. It has {_listed(model.versions)}.")


def check_deletable(model: Model, number: int) -> None:
    """Check that a model has a version, and that no alias points at it.

    Raises:
        ModelNotFound: It has none of that number.
        RegistryError: An alias points at it.
    """
    check_version(model, number)
    if pointing := sorted(alias for alias, target in model.aliases.items() if target == number):
        raise RegistryError(
            f"{model.name}@{number} cannot be deleted: {', '.join(map(repr, pointing))} points at it. "
            "Move or remove the alias first."
        )


def next_number(name: str, last: int) -> int:
    """Return the number of a model's next version.

    Args:
        name: The model.
        last: The highest number that it ever had; 0 for none.

    Raises:
        RegistryError: There are no more numbers.
    """
    if last >= MAX_VERSION:
        raise RegistryError(f"{name!r} has had {MAX_VERSION} versions, the most. Publish under another name.")
    return last + 1


def no_such_model(name: str, known: Collection[str]) -> ModelNotFound:
    """Build the error for a model that is not there."""
    hint = did_you_mean(name, known) if known else "None is published yet."
    return ModelNotFound(f"No model {name!r}. {hint} Publish with `rlplatform models publish`.")


def parse_reference(reference: str) -> Reference:
    """Read `name`, `name@alias` or `name@number`.

    Raises:
        RegistryError: It is none of these.
    """
    name, at, rest = reference.partition("@")
    check_model_name(name)
    if not at:
        return Reference(name)
    if _VERSION.fullmatch(rest):
        return Reference(name, number=int(rest))
    check_alias(rest)
    return Reference(name, alias=rest)


def check_model_name(name: str) -> str:
    """Return `name`, which then is safe as the name of a folder.

    Raises:
        RegistryError: It breaks the rule.
    """
    if not _MODEL_NAME.fullmatch(name):
        raise RegistryError(
            f"A model's name must be at most 64 lower-case letters, digits, `.`, `_` and `-`, beginning with a "
            f"letter or digit, got {name!r}. Use one like 'cartpole-ppo'."
        )
    return name


def check_alias(alias: str) -> str:
    """Return `alias`.

    Raises:
        RegistryError: It breaks the rule.
    """
    if not _ALIAS_NAME.fullmatch(alias):
        raise RegistryError(
            f"An alias must be at most 64 lower-case letters, digits, `_` and `-`, beginning with a letter, "
            f"got {alias!r}. Use one like 'champion'."
        )
    return alias


def _listed(items: Iterable[object]) -> str:
    return ", ".join(map(str, items)) or "none"
