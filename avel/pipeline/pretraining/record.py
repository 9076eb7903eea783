"""Writes what a pretraining run keeps of each epoch: metrics, checkpoints, encoders, the summary."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor

from avel.errors import TrainingError
from avel.pipeline.encoders.header import BEST, LAST
from avel.pipeline.encoders.saved import save_encoder
from avel.pipeline.pretraining.checkpoint import (
    CHECKPOINT,
    Reached,
    copy_state,
    load_checkpoint,
    save_checkpoint,
)
from avel.pipeline.pretraining.monitor import EpochMeans, Movement, collapse
from avel.pipeline.pretraining.parallel import barrier, rank
from avel.pipeline.pretraining.probe import Probe
from avel.pipeline.pretraining.schedule import lr_fraction
from avel.pipeline.pretraining.training import Trainer
from avel.progress import note
from avel.stores.runs import Run
from avel.stores.watching import Watchers
from avel.text import duration, plural


@dataclass(frozen=True)
class PretrainSummary:
    """Summary of a finished run; `best_score` is the probe's val accuracy, or minus the loss."""

    run: str
    encoder: str
    clips: int
    epochs: int
    seconds: float
    clips_per_second: float
    loss: float
    on_diagonal: float
    off_diagonal: float
    best_epoch: int
    best_score: float
    collapsed: str

    def headline(self) -> str:
        """Returns the result in one line."""
        trained = f"trained on {plural(self.clips, 'clip')} for {plural(self.epochs, 'epoch')}"
        fallen = f"; {self.collapsed}" if self.collapsed else ""
        return (
            f"{self.run}: AV-BT encoders {trained} in {duration(self.seconds)}, loss {self.loss:.4g}, "
            f"best epoch {self.best_epoch}{fallen}"
        )


class Recorder:
    """Records a run's epochs. Only the first process writes; the others check that training may go on."""

    def __init__(self, run: Run, trainer: Trainer, clips: int, steps: int, probe: Probe | None) -> None:
        self.run, self.trainer, self.config, self.probe = run, trainer, trainer.config, probe
        self.clips, self.steps = clips, steps
        self.movement = Movement(trainer.projected)
        self.reached = Reached()
        self._warned = ""
        self._began = self._trained = time.monotonic()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._watchers: Watchers | None = None
        if rank() == 0:
            self._watchers = Watchers(run.path, self.config.metrics_hook, self.config.tensorboard)

    def resume(self) -> Reached:
        """Goes back to the last checkpoint, if there is one; later lines of the metrics are dropped."""
        path = self.run.path / CHECKPOINT
        if path.is_file():
            self.reached = load_checkpoint(path, self.trainer.projected, self.trainer.optimizer)
            note(f"{self.run.path}: goes on after epoch {self.reached.epochs}")
        if rank() == 0:
            kept = [line for line in self.run.metrics() if line["epoch"] <= self.reached.epochs]
            self.run.rewind(kept)
            self._warned = kept[-1].get("collapsed", "") if kept else ""
        return self.reached

    def begin_epoch(self) -> None:
        """Starts the clock of an epoch; what passed since the last one went into scores and checkpoints."""
        self._began = time.monotonic()

    def epoch(self, means: EpochMeans) -> None:
        """Records one epoch that has just ended.

        Raises:
            TrainingError: the loss is not finite; the last checkpoint stays.
        """
        waited, self._trained = self._began - self._trained, time.monotonic()
        seconds = {"seconds": self._trained - self._began, "seconds_between": waited}
        number = self.reached.epochs + 1
        warning = collapse(means)
        if not means.is_finite:
            raise TrainingError(f"{self.run.path}: epoch {number}: {warning}")
        self.reached = replace(self.reached, epochs=number)
        if rank() != 0:
            return
        if warning and warning != self._warned:
            note(f"epoch {number}: {warning}")
        self._warned = warning or ""
        score = self._score(number, means)
        self._log(number, means, score, seconds)
        self._keep(number, score)

    def close(self) -> None:
        """Waits until the last checkpoint is written, and closes the files of TensorBoard."""
        if self._watchers is not None:
            self._watchers.close()
        self._writer.shutdown()
        self._wait()

    def summary(self) -> PretrainSummary:
        """Returns the summary of the run; the first process makes it and marks the run finished."""
        if rank() == 0:
            self._wait()
            self.run.finish(self._sum_up())
        barrier()
        return self.run.read_results(PretrainSummary)

    def _sum_up(self) -> PretrainSummary:
        lines = self.run.metrics()
        seconds = sum(line["seconds"] + line["seconds_between"] for line in lines)
        seconds += time.monotonic() - self._trained
        return PretrainSummary(
            run=str(self.run.path),
            encoder=str(self.run.path / LAST),
            clips=self.clips,
            epochs=self.reached.epochs,
            seconds=round(seconds, 1),
            clips_per_second=round(self.clips * len(lines) / max(seconds, 1e-9), 1),
            loss=lines[-1]["loss"],
            on_diagonal=lines[-1]["on_diagonal"],
            off_diagonal=lines[-1]["off_diagonal"],
            best_epoch=self.reached.best_epoch,
            best_score=self.reached.best_score or 0.0,
            collapsed=self._warned,
        )

    def _score(self, number: int, means: EpochMeans) -> float | None:
        """Returns what "best" goes by: the probe's accuracy where there are probes, else minus the loss."""
        if self.probe is None:
            return -means.loss
        due = number % self.config.probe_every == 0 or number == self.config.epochs
        return self.probe.score(self.trainer.projected.encoder) if due else None

    def _log(self, number: int, means: EpochMeans, score: float | None, seconds: dict[str, float]) -> None:
        values: dict[str, Any] = {
            "epoch": number,
            "step": number * self.steps,
            **asdict(means),
            "lr_fraction": lr_fraction(number * self.steps - 1, self.steps, self.config),
            **seconds,
            "clips_per_second": self.clips / seconds["seconds"],
            "moved": self.movement.measure(self.trainer.projected),
        }
        if self.probe is not None and score is not None:
            values["probe_accuracy"] = score
        if self._warned:
            values["collapsed"] = self._warned
        self.run.log(**values)
        if self._watchers is not None:
            self._watchers.log(values)

    def _keep(self, number: int, score: float | None) -> None:
        """Copies the state and has a thread write it, while training goes on."""
        if number % self.config.checkpoint_every and number != self.config.epochs:
            return
        best = self.reached.best_score
        is_best = score is not None and (best is None or score > best)
        if is_best:
            self.reached = replace(self.reached, best_score=score, best_epoch=number)
        self._wait()
        state = copy_state(self.trainer.projected, self.trainer.optimizer)
        self._writing = self._writer.submit(self._write, state, self.reached, is_best)

    def _write(self, state: dict[str, Tensor], reached: Reached, is_best: bool) -> None:
        """Writes the encoders, then the checkpoint, which says that they are there."""
        prefix = "model.encoder."
        weights = {
            name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
        }
        encoder, path = self.trainer.projected.encoder, self.run.path
        if is_best:
            save_encoder(encoder, path / BEST, weights, epoch=reached.epochs, score=reached.best_score)
        save_encoder(encoder, path / LAST, weights, epoch=reached.epochs)
        save_checkpoint(path / CHECKPOINT, state, reached)

    def _wait(self) -> None:
        """Waits for the last checkpoint, and raises what went wrong with it."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()
