"""What every algorithm's spec has, and how a spec is found by the algorithm's name.

The specs themselves are in ``on_policy.py``, ``off_policy.py``, ``random_search.py`` and ``grpo.py``: exactly the
options of each constructor, under SB3's names, with SB3's defaults. What the platform decides itself is no option:
see :data:`PLATFORM_ARGUMENTS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from inspect import Parameter, signature
from typing import Annotated, Any, ClassVar

from pydantic import Field, JsonValue, ValidationError, create_model
from pydantic_core import InitErrorDetails, PydanticCustomError

from rlplatform.algos.catalog import AlgorithmEntry, find_algorithm
from rlplatform.errors import AlgorithmError, SpecError, UnknownNameError, did_you_mean
from rlplatform.specs.algo_options import LearningRate, PositiveInt
from rlplatform.specs.base import Spec

PLATFORM_ARGUMENTS = frozenset(
    {"env", "seed", "device", "verbose", "tensorboard_log", "_init_setup_model", "monitor_wrapper", "reward_function"}
)
"""Constructor arguments that a run decides, not the algorithm's options."""
CLASS_ARGUMENTS = frozenset({"rollout_buffer_class", "rollout_buffer_kwargs", "replay_buffer_class"})
"""Constructor arguments that a file cannot hold: classes of buffers, and what only such a class would take."""


class AlgoSpec(Spec):
    """What every algorithm has. A spec is always one of the subclasses; :func:`parse_algo` finds which."""

    amendable: ClassVar[frozenset[str]] = frozenset({"learning_rate"})
    """Options that may change on a live model."""

    name: str
    """The algorithm, from the catalog."""
    policy: str = "auto"
    """Kind of network. `auto`: CNN for images, several inputs for dictionaries, else MLP."""
    policy_kwargs: Any = {}
    """What the networks look like."""

    def check_n_envs(self, n_envs: int) -> None:
        """Check the options that depend on the number of environments.

        Raises:
            SpecError: If they do not fit.
        """

    def changed_options(self, new: AlgoSpec) -> tuple[str, ...]:
        """Return the options in which another spec of this algorithm differs.

        Raises:
            SpecError: If it is of another algorithm.
        """
        if self.name != new.name:
            raise SpecError(f"A `{self.name}` that has begun cannot become `{new.name}`. Start a new run.")
        return tuple(option for option in type(self).model_fields if getattr(self, option) != getattr(new, option))

    def check_amendment(self, new: AlgoSpec) -> None:
        """Check that a live model of this spec can follow another.

        Raises:
            SpecError: If it is of another algorithm, or an option differs that is fixed once a model is built.
        """
        for option in self.changed_options(new):
            if option not in self.amendable:
                raise SpecError(
                    f"`algorithm.{option}` cannot change on a live model, got {getattr(new, option)!r} instead of "
                    f"{getattr(self, option)!r}: its networks and buffers were built with it. Start a new run, or "
                    f"change only {', '.join(f'`{name}`' for name in sorted(self.amendable))}."
                )

    def __reduce__(self) -> tuple[Callable[..., AlgoSpec], tuple[Any, ...]]:
        """Pickle by name: the class may have been made from another package's signature and stand in no module."""
        return parse_algo, (self.model_dump(mode="json"),)


class LoggedSpec(AlgoSpec):
    """An algorithm that averages the returns it reports."""

    stats_window_size: PositiveInt = 100
    """Episodes over which the reported return and length are averaged."""


class StateDependentExplorationSpec(AlgoSpec):
    """An algorithm that can explore by gSDE (Raffin et al., 2020, arXiv:2005.05719)."""

    use_sde: bool = False
    """Explore by generalized state-dependent noise (gSDE), not independent Gaussian noise; continuous actions only."""
    sde_sample_freq: Annotated[int, Field(ge=-1)] = -1
    """Draw new gSDE noise every this many steps. -1: only at the start of a rollout."""


def parse_algo(value: Mapping[str, JsonValue] | str | AlgoSpec) -> AlgoSpec:
    """Build the spec of the algorithm that ``value["name"]`` says.

    Args:
        value: A mapping with ``name`` and the algorithm's own options, or only the name.

    Raises:
        SpecError: If there is no name, or no algorithm has it.
        pydantic.ValidationError: If an option does not exist or has a wrong value.
    """
    if isinstance(value, AlgoSpec):
        return value
    if not isinstance(value, (str, Mapping)):
        raise SpecError(f"`algorithm` must be a mapping with a `name`, got {value!r}. Use for example {{name: ppo}}.")
    options = {"name": value} if isinstance(value, str) else dict(value)
    name = options.get("name")
    if not isinstance(name, str):
        raise SpecError(f"`algorithm.name` must be an algorithm's name, got {name!r}. Use for example `name: ppo`.")
    try:
        cls = spec_class(name)
        options["name"] = find_algorithm(name).name
    except UnknownNameError as err:
        raise SpecError(f"`algorithm.name`: {err}") from err
    _check_known(cls, options)
    return cls.model_validate(options)


def spec_class(name: str) -> type[AlgoSpec]:
    """Return the spec class of an algorithm.

    Raises:
        UnknownNameError: If no algorithm has that name.
        AlgorithmError: If it is another package's and that package gives something else.
    """
    entry = find_algorithm(name)
    return _derive(entry) if entry.spec is None else _load_spec(entry.name, entry.spec)


def _check_known(cls: type[AlgoSpec], options: Mapping[str, JsonValue]) -> None:
    """Refuse options that the algorithm does not have, each at its place and with the nearest name."""
    errors: list[InitErrorDetails] = []
    for key in options:
        if key not in cls.model_fields:
            message = f"`{key}` is not an option of `{options['name']}`. {did_you_mean(key, cls.model_fields)}"
            custom = PydanticCustomError("unknown_option", "{message}", {"message": message})
            errors.append(InitErrorDetails(type=custom, loc=(key,), input=options[key]))
    if errors:
        raise ValidationError.from_exception_data(cls.__name__, errors)


@cache
def _load_spec(name: str, target: str) -> type[AlgoSpec]:
    module, _, attribute = target.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as err:
        raise AlgorithmError(f"The spec {target!r} of `{name}` cannot be loaded: {err}. Repair its package.") from err
    if not (isinstance(found, type) and issubclass(found, AlgoSpec)):
        raise AlgorithmError(f"The spec {target!r} of `{name}` must be a subclass of AlgoSpec, got {found!r}.")
    return found


@cache
def _derive(entry: AlgorithmEntry) -> type[AlgoSpec]:
    """Make a spec from a constructor's signature; the ranges of its options are checked by the constructor itself."""
    module, _, attribute = entry.algorithm.partition(":")
    name = Annotated[str, Field(pattern=f"^{re.escape(entry.name)}$")]
    fields: dict[str, Any] = {"name": (name, entry.name), "policy_kwargs": (dict[str, JsonValue], {})}
    for parameter in signature(getattr(import_module(module), attribute)).parameters.values():
        if parameter.name in PLATFORM_ARGUMENTS | CLASS_ARGUMENTS | {"policy", *fields}:
            continue
        if parameter.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
            fields[parameter.name] = _field_of(parameter)
    derived: type[AlgoSpec] = create_model(
        f"{attribute}Spec",
        __base__=AlgoSpec,
        __doc__=f"Options of `{entry.algorithm}`, from its signature.",
        **fields,
    )
    derived.amendable = AlgoSpec.amendable & derived.model_fields.keys()
    return derived


def _field_of(parameter: Parameter) -> tuple[Any, Any]:
    """Return type and default of one option, by the default: annotations may name what only its module knows."""
    default = ... if parameter.default is Parameter.empty else parameter.default
    if parameter.name == "learning_rate":
        return LearningRate, default
    if isinstance(default, bool):
        return bool, default
    if isinstance(default, (int, float)):
        return int | float, default
    return JsonValue, default
