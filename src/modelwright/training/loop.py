"""The training loop.

    task --batch(step, rows)--> keywords --task.loss(model)--> loss --backward--> clip --> AdamW at learning_rate(step)
                                                                every save_every steps --> state.save_training
                                                                every eval_every steps --> task.evaluate

What is trained is a task (task.py): a language model over bytes (byte_task.py), summaries (summaries.py), or a model
that goes on learning, with or without a teacher (tuning.py). What happens is told as records (metrics.py), which go to
the metrics file and to one observer, such as a progress bar.
"""

import contextlib
import dataclasses
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from modelwright.checkpoint.sharding import parse_size
from modelwright.core.errors import InputError, ModelwrightError
from modelwright.training import state
from modelwright.training.acceleration import accelerated
from modelwright.training.baselines import Baselines
from modelwright.training.byte_task import ByteTask
from modelwright.training.data import TextBytes
from modelwright.training.folder import check_folder, check_holds_no_model, only_training_in
from modelwright.training.metrics import MetricsFile, Record, peak_rss, read_metrics
from modelwright.training.optim import learning_rate, make_optimizer
from modelwright.training.rng import rng_states, seeded, set_rng_state
from modelwright.training.settings import TrainingSettings
from modelwright.training.task import Figures, Task

if TYPE_CHECKING:
    from accelerate import Accelerator

Observer = Callable[[Record], None]
_SAVE_SECONDS = 120.0  # between checkpoints at most, however many steps `save_every` is
_NAMES = {"bits_per_byte": "loss"}
_ADVICE = "give a lower --lr, a longer --warmup or a smaller --clip. The checkpoints saved before are sound."


class DivergedError(ModelwrightError, RuntimeError):
    """A loss or a gradient that is no longer a finite number."""


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """What a finished training measured.

    held_out_bits: bits per byte on the held-out bytes after the last step; baselines: what they cost without a model.
    seconds: wall clock over all sessions of this training. tokens_per_s: median over the steps of this session, 0 if
    there was none. peak_rss_bytes: of this process, evaluation and saving included.
    """

    folder: Path
    steps: int
    held_out_bits: float
    baselines: Baselines
    seconds: float
    tokens_per_s: float
    peak_rss_bytes: int


@dataclasses.dataclass(frozen=True)
class TaskResult:
    """What a finished training of any task measured: `scores` are those of the last evaluation.

    The rest is as in `TrainingResult`.
    """

    folder: Path
    steps: int
    scores: Figures
    seconds: float
    tokens_per_s: float
    peak_rss_bytes: int


def train(
    model: torch.nn.Module,
    text: TextBytes,
    settings: TrainingSettings,
    *,
    tokenizer: Any,
    out: str | Path,
    resume: bool = False,
    observe: Observer | None = None,
) -> TrainingResult:
    """Train `model` (a causal language model over bytes) on `text` and save it into the folder `out`.

    model: called with `input_ids` and `labels` [batch, window], returns an object whose `loss` is the mean
    cross-entropy in nats of each label given the tokens before it, -100 left out; has `config` and `save_pretrained`.
    tokenizer: a ByteTokenizer. resume: go on from the newest checkpoint in `out` if there is one.
    The same seed, text, settings, torch and number of threads give the same weights bit for bit on a CPU, whether the
    training was interrupted or not. The caller's random streams are not touched.

    Raises InputError (a text, window or setting that cannot work; a resume whose settings differ; a folder that holds
    a model already, or in which another training runs), CheckpointError (nothing sound to resume from), DivergedError.
    """
    task = ByteTask(text, settings, tokenizer)
    result = train_task(model, task, settings, tokenizer=tokenizer, out=out, resume=resume, observe=observe)
    figures = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    bits = figures.pop("scores")["bits_per_byte"]
    return TrainingResult(**figures, held_out_bits=bits, baselines=task.baselines)


def train_task(
    model: torch.nn.Module,
    task: Task,
    settings: TrainingSettings,
    *,
    tokenizer: Any,
    out: str | Path,
    resume: bool = False,
    observe: Observer | None = None,
) -> TaskResult:
    """Train `model` on the examples of `task` and save it, with the tokenizer, into the folder `out`; as `train`.

    model: what `task.loss` can call with what `task.batch` returns.
    """
    out = Path(out).expanduser()
    check_folder(out)
    parse_size(settings.max_shard_size)  # told now, not at the first checkpoint
    task.check_model(model)
    if not state.has_checkpoints(out):
        check_holds_no_model(out)
    with contextlib.ExitStack() as stack:
        stack.enter_context(only_training_in(out))
        saved = state.newest_checkpoint(out)
        if saved is not None and not resume:
            raise InputError(
                f"{out} already holds a training, saved at step {saved.position.step}: go on with it (--resume) or "
                "choose another folder (--out)."
            )
        if saved is not None:
            saved.load_weights(model)
        optimizer = make_optimizer(model, settings)
        stack.enter_context(seeded(settings.seed))
        accelerator, prepared, prepared_optimizer = stack.enter_context(accelerated(settings, model, optimizer))
        run = _Run(
            accelerator=accelerator,
            bare_model=model,
            model=prepared,
            optimizer=prepared_optimizer,
            tokenizer=tokenizer,
            task=task,
            settings=settings,
            out=out,
            observe=observe,
        )
        return run.complete(saved)


@dataclasses.dataclass(eq=False)
class _Run:
    """One training in progress; `bare_model` is the caller's, `model` and `optimizer` are accelerate's view of it."""

    accelerator: "Accelerator"
    bare_model: torch.nn.Module
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    tokenizer: Any
    task: Task
    settings: TrainingSettings
    out: Path
    observe: Observer | None
    step: int = 0
    seconds_before: float = 0.0
    evaluation_seconds: float = 0.0
    scores: Figures = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.started = self.saved = time.monotonic()
        self.step_seconds: list[float] = []
        self.speeds: list[float] = []
        self.total = self.settings.steps
        self.at_start = self.task.start_record()
        config: Any = self.bare_model.config
        self.facts = state.Facts(
            settings=self.settings.to_dict(),
            text=self.task.identity(),
            # As the training started: a forward pass may write derived values into the config (Reformer's num_buckets).
            # Through JSON, as it will be read back: a tuple becomes a list.
            model=json.loads(json.dumps(config.to_dict())),
            processes=self.accelerator.num_processes,
            torch=torch.__version__,
            threads=torch.get_num_threads(),
            text_paths=[str(path.resolve()) for path in self.task.paths],
        )

    def complete(self, saved: state.Saved | None) -> TaskResult:
        """Run to the last step, from the start or from `saved`, then save the model into `out`."""
        if saved is not None:
            self._restore(saved)
        else:
            # Processes draw their own dropout; the weights are the same on all of them.
            torch.manual_seed(self.settings.seed % (1 << 62) + self.accelerator.process_index)
        if self.accelerator.is_main_process:
            self.out.mkdir(parents=True, exist_ok=True)
            self.metrics = MetricsFile(self.out, resume_at=None if saved is None else self.step)
        if saved is None:
            self._report_start()
            self._evaluate()
        self.model.train()
        while self.total is None or self.step < self.total:
            self._train_step()
            if self.total is None and self.step == self.settings.warmup:
                self.total = self._measured_total()
            if self.step == self.total:
                break
            if self.step % self.settings.eval_every == 0:
                self._evaluate()
            if self.step % self.settings.save_every == 0 or self._saved_long_ago():
                self._save()
        if self.step_seconds:
            # Before the last measurement, which may take long, or fail: then --resume measures again.
            self._save()
        self._evaluate(tell=not self._is_measured(), last=True)
        if self.accelerator.is_main_process:
            self.bare_model.save_pretrained(self.out, max_shard_size=self.settings.max_shard_size)  # type: ignore[operator]
            self.tokenizer.save_pretrained(self.out)
        self.accelerator.wait_for_everyone()
        return TaskResult(
            folder=self.out,
            steps=self.step,
            scores=self.scores,
            seconds=self._seconds(),
            tokens_per_s=statistics.median(self.speeds) if self.speeds else 0.0,
            peak_rss_bytes=peak_rss(),
        )

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started

    def _train_step(self) -> None:
        began = time.monotonic()
        rate = learning_rate(self.step, self.total, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        losses, tokens = [], 0
        for micro in range(self.settings.accumulate):
            with self.accelerator.accumulate(self.model):
                batch = self._batch(micro)
                tokens += self.task.tokens(batch)
                loss = self.task.loss(self.model, batch)
                self.accelerator.backward(loss)
                losses.append(loss.detach().float())
                if self.accelerator.sync_gradients:
                    norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.clip or math.inf)
                    self._check_finite(float(sum(losses)), float(norm))
                    self.optimizer.step()
                    self.optimizer.zero_grad()
        mean = float(self.accelerator.reduce(torch.stack(losses).mean(), reduction="mean"))
        self.step += 1
        spent = time.monotonic() - began
        self.step_seconds.append(spent)
        # Of all processes, which read about as much as this one.
        self.speeds.append(tokens * self.accelerator.num_processes / spent)
        self._tell(
            "train",
            loss=mean,
            **self.task.figures(mean),
            lr=rate,
            grad_norm=float(norm),
            tokens_per_s=self.speeds[-1],
        )

    def _batch(self, micro: int) -> dict[str, torch.Tensor]:
        """Return the keywords of one forward pass of this process; rows are dealt out in order."""
        processes, rows = self.accelerator.num_processes, self.settings.batch
        first = (micro * processes + self.accelerator.process_index) * rows
        batch = self.task.batch(self.step, range(first, first + rows))
        return {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}

    def _check_finite(self, loss: float, norm: float) -> None:
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise DivergedError(
                f"Training step {self.step + 1}: the loss is {loss} and the gradient norm {norm}: {_ADVICE}"
            )

    def _measured_total(self) -> int:
        """Fit the number of steps to what is left of `minutes`, from the steps and the evaluation measured so far."""
        settings = self.settings
        assert settings.minutes is not None
        per_step = statistics.median(self.step_seconds[1:] or self.step_seconds)
        per_step += self.evaluation_seconds / settings.eval_every
        left = settings.minutes * 60 - self._seconds() - self.evaluation_seconds
        return int(self._from_main(self.step + max(1, int(left / per_step))))

    def _from_main(self, value: float) -> float:
        """Return the main process's `value` on every process."""
        if self.accelerator.num_processes == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64, device=self.accelerator.device)
        torch.distributed.broadcast(shared, src=0)
        return float(shared)

    def _evaluate(self, *, tell: bool = True, last: bool = False) -> None:
        began = time.monotonic()
        if self.accelerator.is_main_process:
            model = self.accelerator.unwrap_model(self.model)
            self.scores = self.task.evaluate(model, self.accelerator.device, last=last)
        if self.accelerator.num_processes > 1:
            shared = [self.scores]
            torch.distributed.broadcast_object_list(shared, src=0, device=self.accelerator.device)
            self.scores = shared[0]
        for name, value in self.scores.items():
            if not math.isfinite(value):
                what = _NAMES.get(name, name)
                raise DivergedError(f"Held-out text at step {self.step}: the {what} is {value}: {_ADVICE}")
        if tell:
            self._tell("held_out", **self.scores)
        self.evaluation_seconds = time.monotonic() - began

    def _is_measured(self) -> bool:
        """Tell whether the metrics file has an evaluation of this step: of a training that was over when resumed."""
        if not self.accelerator.is_main_process:
            return False
        told = ((record.get("kind"), record.get("step")) for record in read_metrics(self.metrics.path))
        return ("held_out", self.step) in told

    def _saved_long_ago(self) -> bool:
        """Tell whether a kill would cost too much time; never with several processes, whose clocks need not agree."""
        return self.accelerator.num_processes == 1 and time.monotonic() - self.saved > _SAVE_SECONDS

    def _save(self) -> None:
        self.saved = time.monotonic()
        rng = rng_states(self.accelerator)
        if self.accelerator.is_main_process:
            state.save_training(
                self.out,
                model=self.bare_model,  # type: ignore[arg-type]
                tokenizer=self.tokenizer,
                state={"optimizer": self.optimizer.state_dict(), "rng": rng},
                position=state.Position(self.step, self.total, self._seconds()),
                facts=self.facts,
                max_shard_size=self.settings.max_shard_size,
                keep=self.settings.keep,
            )
        self.accelerator.wait_for_everyone()

    def _restore(self, saved: state.Saved) -> None:
        self.facts.check_continues(saved.facts, saved.folder)
        loaded = saved.state()
        self.optimizer.load_state_dict(loaded["optimizer"])
        set_rng_state(loaded["rng"][self.accelerator.process_index])
        self.step = saved.position.step
        self.total = saved.position.total_steps
        self.seconds_before = saved.position.seconds

    def _report_start(self) -> None:
        self._tell(
            "start",
            model=self.facts.model,
            parameters=sum(parameter.numel() for parameter in self.bare_model.parameters()),
            text=self.facts.text,
            **self.at_start,
            settings=self.facts.settings,
        )

    def _tell(self, kind: str, **record: Any) -> None:
        if not self.accelerator.is_main_process:
            return
        full = {
            "kind": kind,
            "step": self.step,
            "total_steps": self.total,
            "unit": self.task.unit,
            **record,
            "seconds": self._seconds(),
            "peak_rss_bytes": peak_rss(),
        }
        self.metrics.write(full)
        if self.observe is not None:
            self.observe(full)
