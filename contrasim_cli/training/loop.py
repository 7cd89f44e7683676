"""The loop: one step after another, what is checked in between, and what is kept of it."""

import copy
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from contrasim_cli import distributed, signals
from contrasim_cli.encoder import Config, Encoder, by_member, weights_digest
from contrasim_cli.errors import TrainingError
from contrasim_cli.progress import Advance, Progress, silent
from contrasim_cli.recipes import WITHOUT_NEGATIVES
from contrasim_cli.training.objective import Objective, layer_accuracy, mean_row_accuracy
from contrasim_cli.training.rows import Held, Source, encode_parts
from contrasim_cli.training.shuffle import Step
from contrasim_cli.training.state import Journal, State, Stop, learning_rate
from contrasim_cli.training.whole_batch import rows_of_all, sum_gradients

log = logging.getLogger(__name__)

AT_CHANCE = 0.02  # within so much of the loss of chance, or above it, nothing has been learned
COLLAPSED = 1e-3  # all outputs this close to each other: the encoder says nothing any more


def nothing_saved(state: State, finished: bool) -> None:
    """Keep nothing."""


@dataclass
class Run:
    """A run from where its state stands; `save(state, finished)` is called after every epoch, and `save_every` steps."""

    source: Source
    config: Config
    state: State
    device: torch.device
    save: Callable[[State, bool], None] = nothing_saved
    save_every: int | None = None
    journal: Journal = field(default_factory=lambda: Journal(None))
    progress: Progress = silent
    _since: float = 0.0
    _came: list[int] = field(default_factory=list)
    _told: list[int] = field(default_factory=list)  # the signals that all ranks know of

    def __post_init__(self) -> None:
        data = self.source.data
        self.objective = Objective(self.config, len(data.views), data.n_layers, self.device)
        self.epoch_steps = self.source.order.n_steps
        self._kept = ""

    @property
    def steps_done(self) -> int:
        """Steps of the whole run."""
        return self.state.epoch * self.epoch_steps + self.state.step

    def train(self) -> State:
        """Train to the configured number of epochs, or until held-out rows have not got better for a while.

        Raises:
            TrainingError: the loss or an output is NaN or infinite, or a contrastive objective's encoder has collapsed.
            Terminated, KeyboardInterrupt: SIGTERM or Ctrl-C, after the running step is done and the state saved.
        """
        total = self.config.epochs * self.epoch_steps
        with signals.noted() as came, self.progress("training", total, "steps") as advance:
            self._came = came
            stop = Stop(came if distributed.world() == 1 else self._told)
            advance(self.steps_done, earlier=True)
            finished = self.state.epoch == self.config.epochs
            while not finished:
                self._epoch(stop, advance)
                finished = self._stops_early() or self.state.epoch == self.config.epochs
                self._save(finished)
                if not finished:
                    stop.act(self.state, self._save)
        return self.state

    def _epoch(self, stop: Stop, advance: Advance) -> None:
        """Train to the end of the epoch and note what came of it."""
        state, last = self.state, None
        self._since = time.perf_counter()
        with self.source.groups(state.epoch, state.step) as groups:
            for group, held, before in groups:
                for step in group.steps[max(0, state.step - before) :]:
                    value = self._step(step, held)
                    state.step, state.loss_sum = state.step + 1, state.loss_sum + value
                    advance(1, f"epoch {state.epoch + 1}, loss {value:.4g}")
                    last = (step, held) if state.step == self.epoch_steps else None
                    if last is None:
                        self._write(step, value)
                        if self.save_every and self.steps_done % self.save_every == 0:
                            self._save(False)
                        stop.act(state, self._save)
                del held  # which makes room for the next
        found = {"loss": state.loss_sum / max(1, state.step), **self._validated()}
        if last is not None:
            self._write(last[0], value, **{name: x for name, x in found.items() if name != "loss"})
        state.add(**found)
        state.epoch, state.step, state.loss_sum = state.epoch + 1, 0, 0.0
        self._check_same()
        if last is not None:
            with torch.no_grad():
                z = rows_of_all(self._encode(state.result, last[1], last[0]))
            with distributed.alone():
                self._check_outputs(z)
                if state.epoch == self.config.epochs:
                    self._check_learned(float(self.objective(z)))

    # --- one step -----------------------------------------------------------------------------------------------------

    def _step(self, step: Step, held: Held) -> float:
        state, scaler = self.state, self.state.scaler
        for group in state.optimizer.param_groups:
            group["lr"] = self._learning_rate
        loss = self.objective(self._encode(state.encoder, held, step, train=True), len(step.rows))
        value = float(loss.detach())
        self._check_loss(value)
        state.optimizer.zero_grad()
        each = loss * self.config.members  # so that no member's steps depend on how many there are
        scaler.scale(each).backward()  # type: ignore[no-untyped-call]
        if distributed.world() > 1:
            self._told += sum_gradients(state.encoder.parameters(), self._came)
        scaler.step(state.optimizer)  # type: ignore[arg-type]  # all it asks of one is there
        scaler.update()
        return value

    @property
    def _learning_rate(self) -> float:
        return learning_rate(self.config, self.steps_done, self.config.epochs * self.epoch_steps)

    def _encode(self, encoder: Encoder, held: Held, step: Step, train: bool = False) -> Tensor:
        """The encoded items of a step: this rank's rows of them."""
        layer = step.layer if self.config.task == "pairs" else None
        with torch.set_grad_enabled(train):
            return encode_parts(encoder, held.take(held.own(step.rows), layer), self.device, self.config)

    # --- what comes of it ---------------------------------------------------------------------------------------------

    def _validated(self) -> dict[str, float]:
        """Loss and accuracy on held-out rows, if there are any; as the first rank finds them, where rounding might decide."""
        with distributed.alone(), torch.no_grad():
            found = self._validation()
        agreed: dict[str, float] = distributed.gathered(found)[0]
        return agreed

    def _validation(self) -> dict[str, float]:
        held, data = self.source.held_out, self.source.data
        if not len(held.rows):
            return {}
        encoder = self.state.encoder
        layers = range(data.n_layers) if self.config.task == "pairs" else range(1)
        outputs = [self._encode(encoder, held, Step(held.rows, layer)) for layer in layers]
        losses = [float(self.objective(z)) for z in outputs]
        right = [
            mean_row_accuracy(z) if self.config.task == "pairs" else layer_accuracy(z, data.n_layers) for z in outputs
        ]
        return {
            "validation_loss": sum(losses) / len(losses),
            "validation_accuracy": sum(right) / len(right),
        }

    def _stops_early(self) -> bool:
        """Whether the loss on held-out rows has not fallen for `patience` epochs; the best encoder is kept."""
        losses = self.state.curves.get("validation_loss", [])
        if not self.config.patience or not losses:
            return False
        best = losses.index(min(losses))
        if best == len(losses) - 1:
            self.state.best = copy.deepcopy(self.state.encoder)
        return len(losses) - 1 - best >= self.config.patience

    def _write(self, step: Step, loss: float, **more: float) -> None:
        items = len(self.source.data.views) * (self.source.data.n_layers if self.config.task == "layers" else 1)
        now = time.perf_counter()
        self.journal.write(
            step=self.steps_done,
            epoch=self.state.epoch + 1,
            loss=loss,
            learning_rate=self.state.optimizer.param_groups[0]["lr"],
            rows_per_second=round(items * len(step.rows) / (now - self._since), 1),
            **more,
        )
        self._since = now

    def _save(self, finished: bool) -> None:
        """Save a state that is sound."""
        if not all(bool(torch.isfinite(p).all()) for p in self.state.encoder.parameters()):
            raise self._failure(f"the weights are not finite after {self._place}; {self._lower_lr}")
        self.save(self.state, finished)
        self._kept = f"; the state after {self._place} is kept"

    @property
    def _place(self) -> str:
        if not self.state.step:
            return f"epoch {self.state.epoch}"
        return f"epoch {self.state.epoch + 1}, step {self.state.step}"

    @property
    def _lower_lr(self) -> str:
        """What is advised where steps are too large."""
        return f"give --lr below {self.config.lr:g}"

    # --- what must stop a run -----------------------------------------------------------------------------------------

    def _check_same(self) -> None:
        """Refuse ranks whose encoders have come apart, as those of a machine that computes wrongly do."""
        digests = distributed.gathered(
            weights_digest(self.state.encoder.state_dict()) if distributed.world() > 1 else ""
        )
        if len(set(digests)) > 1:
            raise self._failure(f"the weights of {len(digests)} ranks differ after epoch {self.state.epoch}")

    def _failure(self, text: str) -> TrainingError:
        return TrainingError(text + self._kept)

    def _check_loss(self, loss: float) -> None:
        if not abs(loss) < float("inf"):
            softer = (
                ""
                if self.config.objective in WITHOUT_NEGATIVES
                else f" or --temperature above {self.config.temperature:g}"
            )
            raise self._failure(
                f"the loss is {loss} in epoch {self.state.epoch + 1}, step {self.state.step + 1}; {self._lower_lr}{softer}"
            )

    def _check_outputs(self, z: Tensor) -> None:
        """Refuse outputs that are not finite, or that have collapsed.

        Objectives without negatives may map everything to one point: the paper's own finding, so only a warning.
        """
        flat, epoch = z.flatten(0, -2), self.state.epoch
        if not bool(torch.isfinite(flat).all()):
            raise self._failure(f"after epoch {epoch} the encoder's outputs are not finite; {self._lower_lr}")
        apart = by_member(flat - flat[0], self.config.members)
        spread = float(apart.norm(dim=-1).amax(dim=1).min())  # of the member that has collapsed most
        if spread > COLLAPSED:
            return
        text = f"the encoder has collapsed: after epoch {epoch} all outputs lie within {spread:.1e} of each other"
        if self.config.objective not in WITHOUT_NEGATIVES:
            is_raw = self.config.inputs == "raw" and self.config.standardize == "none"
            standardised = " or --standardize zscore" if is_raw else ""
            raise self._failure(f"{text}; {self._lower_lr}{standardised}")
        if epoch == self.config.epochs:
            log.warning("%s, which objectives without negatives allow", text)

    def _check_learned(self, last: float) -> None:
        """Refuse an encoder of layers whose last epoch and last step are no better than similarities that are all alike."""
        chance, loss = self.objective.chance, min(last, self.state.curves["loss"][-1])
        if self.config.task == "pairs" or chance is None or loss < (1 - AT_CHANCE) * chance:
            return
        text = f"the loss ends at {loss:.4g}, where {chance:.4g} is that of chance: the encoder does not distinguish layers"
        if self.config.recipe == "paper":
            log.warning("%s, which recipe paper allows; recipe default learns faster", text)
            return
        config = self.config
        of_raw = {"--similarity norm": config.similarity != "norm", "--standardize none": config.standardize != "none"}
        remedies = [option for option, differs in of_raw.items() if differs and config.inputs == "raw"]
        raise self._failure(f"{text}; give {' or '.join([f'--epochs above {config.epochs}', *remedies])}")
