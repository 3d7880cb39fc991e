"""Where numbers go: one record a line in metrics.jsonl, the same keys to TensorBoard and, by switch, Weights & Biases.

Every sink takes ``write(step, values)``. SB3's logger reaches them through one adapter, so that no key is spelled
twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from stable_baselines3.common.logger import KVWriter
from torch.utils.tensorboard import SummaryWriter

from rlplatform import names
from rlplatform.artifacts.jsonl import JsonlWriter
from rlplatform.errors import MissingPackageError
from rlplatform.specs.run import WandbSpec


class Sink(Protocol):
    """One place where metrics go."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take the values measured at an environment step."""
        ...

    def close(self) -> None:
        """Write out what is buffered."""
        ...


class JsonlSink:
    """metrics.jsonl: the record from which everything else can be drawn again."""

    def __init__(self, writer: JsonlWriter) -> None:
        self._writer = writer

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line: the step, then the values in the order of their keys."""
        self._writer.append({names.STEP: step, **{key: values[key] for key in sorted(values)}})

    def close(self) -> None:
        """Do nothing: the file belongs to the trainer, which notes its length in every checkpoint."""


class TensorBoardSink:
    """TensorBoard event files; what an interrupted attempt wrote after the resumed step is purged from the plots."""

    def __init__(self, folder: Path, purge_step: int) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=purge_step, flush_secs=10)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add one scalar for each value."""
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


class WandbSink:
    """One Weights & Biases run for each run, taken up again under the same id when the run is resumed."""

    def __init__(self, spec: WandbSpec, folder: Path, run_id: str, config: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise MissingPackageError(
                "`tracking.wandb` needs the package wandb, which is missing. Run `pip install wandb`."
            ) from error
        self._run = wandb.init(
            project=spec.project,
            entity=spec.entity,
            group=spec.group,
            tags=spec.tags,
            mode=spec.mode,
            dir=str(folder),
            id=run_id,
            name=run_id,
            config=dict(config),
            resume="allow",
            reinit="create_new",
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values at the step."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Finish the W&B run."""
        self._run.finish()


class Metrics:
    """All sinks of one run."""

    def __init__(self) -> None:
        self._sinks: list[Sink] = []

    def add(self, sink: Sink) -> None:
        """Send what comes from now on to one more sink."""
        self._sinks.append(sink)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Give the values to every sink."""
        for sink in self._sinks:
            sink.write(step, values)

    def close(self) -> None:
        """Close every sink."""
        for sink in self._sinks:
            sink.close()


class LoggerAdapter(KVWriter):
    """An output of SB3's logger that passes numbers on, and keeps the last record for the progress display."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.last: dict[str, float] = {}

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Pass on every value that is a number."""
        self.last = {key: float(value) for key, value in key_values.items() if _is_number(value)}
        self._metrics.write(step, self.last)

    def close(self) -> None:
        """Do nothing: the sinks belong to the trainer."""


def _is_number(value: Any) -> bool:
    return hasattr(value, "__float__") and not isinstance(value, str)
