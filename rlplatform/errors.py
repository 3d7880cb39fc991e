"""The exception tree.

Every message says what, got, rule and what to do. An error made by the user carries ``exit_code`` 2, one of ours 1.
Each class passes its message, and nothing else, to ``Exception.__init__``: so each of them pickles across processes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RlPlatformError(Exception):
    """Base of everything this package raises on purpose."""

    exit_code = 2


class SpecError(RlPlatformError, ValueError):
    """Raised when a spec, a setting or an override is not valid."""


class UnknownNameError(RlPlatformError, LookupError):
    """Raised when a name is in no catalog."""


class MissingPackageError(RlPlatformError, ImportError):
    """Raised when something needs a package that is not installed; the message holds the install command."""


class EnvError(RlPlatformError):
    """Raised when an environment cannot be made, or breaks its own contract."""


class EnvWorkerDied(EnvError):
    """Raised when a process that holds environments is gone; the run is taken up again from its last checkpoint."""

    exit_code = 1


class AlgorithmError(RlPlatformError, ValueError):
    """Raised when an algorithm cannot work with the environment or the options it was given."""


class StorageError(RlPlatformError):
    """Raised when a folder cannot be written or read: no space, no permission, not there."""


class CheckpointError(RlPlatformError):
    """Raised when no usable checkpoint exists, or a checkpoint belongs to another spec."""


class CheckpointDamaged(CheckpointError):
    """Raised when a checkpoint's files differ from its manifest."""


class RunNotFound(RlPlatformError, LookupError):
    """Raised when no run has the given id."""


class RunStateError(RlPlatformError):
    """Raised when a run cannot go from its state to the requested one."""


class RegistryError(RlPlatformError):
    """Base of the errors of the model registry."""


class ModelNotFound(RegistryError, LookupError):
    """Raised when a model, a version or an alias is not in the registry."""


class BundleError(RegistryError):
    """Raised when a policy cannot be exported, or a bundle's files differ from its manifest."""


class StoreError(RlPlatformError):
    """Raised when the database cannot be reached, is busy for too long, or belongs to a newer version."""


class Conflict(RlPlatformError):
    """Raised when something has changed meanwhile, or exists already, so that a change does not apply."""


class LimitReached(RlPlatformError):
    """Raised when as many are at work as a limit allows."""


class ExperimentNotFound(RlPlatformError, LookupError):
    """Raised when no experiment has the given id."""


class KeyNotFound(RlPlatformError, LookupError):
    """Raised when no API key has the given id."""


class PolicyInputError(RlPlatformError, ValueError):
    """Raised when an observation, a mask or a state does not fit the policy."""


class RequestError(RlPlatformError, ValueError):
    """Raised when a request cannot be read: not JSON, a field missing, unknown, of the wrong type, or too large."""


class RequestTooLarge(RlPlatformError, ValueError):
    """Raised when a request's body, or the batch in it, is larger than the service takes."""


class ResourceError(RlPlatformError):
    """Raised when more is asked for than the cluster has."""


class JobError(RlPlatformError):
    """Raised when a job cannot be submitted, or cannot do what is asked of it."""


class TrainingFailed(RlPlatformError):
    """Raised when a run ended in the state ``failed``; the message holds its reason."""

    exit_code = 1


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the sentence that names the closest known names, or all of them when there are at most ten.

    Args:
        name: What was asked for.
        known: The names that exist.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name.lower(), [known_name.lower() for known_name in names], n=3, cutoff=0.6)
    matches = [known_name for known_name in names if known_name.lower() in close]
    if matches:
        return "Did you mean " + " or ".join(repr(match) for match in matches) + "?"
    if len(names) <= 10:
        return "Known: " + ", ".join(names) + "."
    return f"{len(names)} are known; the nearest are {', '.join(names[:5])}, …"


def unknown_name(kind: str, name: str, known: Iterable[str], list_command: str | None = None) -> UnknownNameError:
    """Build the error for a name that is in no catalog.

    Args:
        kind: What the name stands for, such as ``algorithm``.
        name: What was asked for.
        known: The names that exist.
        list_command: The command that prints them all.
    """
    hint = f" List them with `{list_command}`." if list_command else ""
    return UnknownNameError(f"Unknown {kind} {name!r}. {did_you_mean(name, known)}{hint}")
