"""What the three training scripts share: options, the learning rate, averaged weights, saved states, the log.

Knows nothing of models, losses or scenes.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fiftyone_plugin.errors import OptionError

__all__ = ["Trainer", "TrainingSettings", "half_precision", "load_weights", "read_settings", "save_weights"]

WEIGHTS_NAME = "model.safetensors"
_LOG_EVERY_STEPS = 50
_SAVE_EVERY_STEPS = 500
_MAX_GRADIENT_NORM = 1.0
_AVERAGE_DECAY = 0.999
_SMOKE_STEPS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """Options of a training run."""

    steps: int
    """Updates of the weights, those of an earlier run that is resumed included."""
    batch: int
    """Scenes or objects in an update, as the script says."""
    learning_rate: float
    warm_up_steps: int
    """Steps in which the learning rate rises from 0."""
    constant_part: float
    """Part of the run, in [0, 1], in which the rate is constant; then it falls along a cosine to 2 %."""
    output: Path
    """Folder for the weights."""
    device: str = "cuda"
    seed: int = 1
    workers: int = 0
    """Processes that draw scenes ahead."""
    state: Path | None = None
    """File that keeps the state of the run; a run goes on from it where it exists."""
    weights: Path | None = None
    """Folder whose ``model.safetensors`` the run starts from; None starts from random weights."""
    minutes: float | None = None
    """Longest time of the run; the learning rate then falls with the clock, if that is ahead of the steps."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise OptionError(f"--steps {self.steps} --batch {self.batch}: must be 1 or more")
        if self.minutes is not None and self.minutes <= 0:
            raise OptionError(f"--minutes {self.minutes}: must be more than 0")

    def done_at(self, step: int, seconds: float) -> float:
        """Part of the run, in [0, 1], that is over before the 0-based step, so many seconds after the start."""
        by_clock = seconds / (60 * self.minutes) if self.minutes is not None else 0.0
        return min(1.0, max(step / self.steps, by_clock))

    def learning_rate_at(self, step: int, *, seconds: float = 0.0) -> float:
        """Rate of the 0-based step, taken so many seconds after the start."""
        warm = min(1.0, (step + 1) / self.warm_up_steps)
        done = self.done_at(step, seconds)
        if done < self.constant_part:
            return self.learning_rate * warm
        falling = (done - self.constant_part) / (1 - self.constant_part)
        return self.learning_rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * falling)))


def read_settings(
    argv: Sequence[str] | None, *, about: str, defaults: TrainingSettings, smoke_batch: int
) -> TrainingSettings:
    """Read the command line that all training scripts share.

    Args:
        argv: Arguments without the program's name; None for the process's own.
        about: First line of the help.
        defaults: What holds where nothing is given.
        smoke_batch: Batch of ``--smoke``, a run of two steps on a CPU that shows that everything works.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--batch", type=int, default=defaults.batch)
    parser.add_argument("--learning-rate", type=float, default=defaults.learning_rate)
    parser.add_argument("--device", default=defaults.device)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--workers", type=int, default=defaults.workers, help="processes that draw scenes ahead")
    parser.add_argument("--state", type=Path, help="keep the run's state here, and go on from it where it exists")
    parser.add_argument("--weights", type=Path, help="folder with the weights to start from; random ones otherwise")
    parser.add_argument("--minutes", type=float, help="stop after so long; the learning rate falls with the clock")
    parser.add_argument("--output", type=Path, default=defaults.output, help="folder for the weights")
    parser.add_argument("--smoke", action="store_true", help="two steps with a tiny batch on a CPU")
    arguments = parser.parse_args(argv)
    settings = replace(
        defaults,
        steps=arguments.steps,
        batch=arguments.batch,
        learning_rate=arguments.learning_rate,
        device=arguments.device,
        seed=arguments.seed,
        workers=arguments.workers,
        state=arguments.state,
        weights=arguments.weights,
        minutes=arguments.minutes,
        output=arguments.output,
    )
    if arguments.smoke:
        settings = replace(settings, steps=_SMOKE_STEPS, batch=smoke_batch, device="cpu", workers=0)
    return settings


class Trainer:
    """Updates the weights of one model, and keeps their running average, which is what is saved in the end.

    Args:
        model: Lies on the device already.
        settings: Of the run.
        weight_decay: For all weights but those that `is_exempt` names.
        is_exempt: Of a parameter's name and the parameter.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: TrainingSettings,
        *,
        weight_decay: float,
        is_exempt: Callable[[str, nn.Parameter], bool],
    ) -> None:
        self._model = model
        self._settings = settings
        named = list(model.named_parameters())
        groups = [
            {"params": [p for n, p in named if not is_exempt(n, p)], "weight_decay": weight_decay},
            {"params": [p for n, p in named if is_exempt(n, p)], "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98))
        self._average = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._began = time.perf_counter()
        self.step = 0
        """Updates so far."""
        if settings.state is not None and settings.state.exists():
            self._load(settings.state)

    @property
    def is_done(self) -> bool:
        """Whether all steps are taken, or the time is over."""
        return self.done >= 1

    @property
    def done(self) -> float:
        """Part of the run that is over, in [0, 1]."""
        return self._settings.done_at(self.step, time.perf_counter() - self._began)

    @property
    def averaged_weights(self) -> dict[str, Tensor]:
        """Running average of the weights: float32, on the model's device."""
        return self._average

    def update(self, loss: Tensor, parts: Mapping[str, Tensor | float]) -> None:
        """Take one step down the loss; a step whose gradient is not finite is left out.

        Args:
            loss: Scalar with a graph.
            parts: Numbers for the log.
        """
        for group in self._optimizer.param_groups:
            seconds = time.perf_counter() - self._began
            group["lr"] = self._settings.learning_rate_at(self.step, seconds=seconds)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), _MAX_GRADIENT_NORM)
        if torch.isfinite(norm):
            self._optimizer.step()
        else:
            print(f"step {self.step}: left out, its gradient is not finite", file=sys.stderr)
        # early on the average follows fast, or it would remember the random start
        is_fresh = self._settings.weights is None
        decay = min(_AVERAGE_DECAY, (self.step + 1) / (self.step + 20)) if is_fresh else _AVERAGE_DECAY
        with torch.no_grad():
            for name, value in self._model.state_dict().items():
                if value.is_floating_point():
                    self._average[name].lerp_(value.detach(), 1 - decay)
                else:
                    self._average[name].copy_(value)
        self.step += 1
        self._log({"loss": loss.detach(), "gradient": norm, **parts})
        if self._settings.state is not None and (self.step % _SAVE_EVERY_STEPS == 0 or self.is_done):
            self.save_state(self._settings.state)

    def _log(self, parts: Mapping[str, Tensor | float]) -> None:
        for name, value in parts.items():
            number = value.detach().float() if isinstance(value, Tensor) else torch.tensor(float(value))
            self._sums[name] = self._sums[name] + number if name in self._sums else number
            self._counts[name] = self._counts.get(name, 0) + 1
        if self.step % _LOG_EVERY_STEPS == 0 or self.is_done:
            means = "  ".join(f"{name} {float(total) / self._counts[name]:.4g}" for name, total in self._sums.items())
            seconds = time.perf_counter() - self._began
            print(f"step {self.step}/{self._settings.steps}  {seconds:.0f} s  {means}", file=sys.stderr, flush=True)
            self._sums.clear()
            self._counts.clear()

    def save_state(self, path: Path) -> None:
        """Write everything that another run needs to go on from here; a run cut off while writing loses nothing."""
        content = {
            "step": self.step,
            "model": self._model.state_dict(),
            "average": self._average,
            "optimizer": self._optimizer.state_dict(),
        }
        unfinished = path.with_suffix(path.suffix + ".part")
        torch.save(content, unfinished)
        unfinished.replace(path)

    def _load(self, path: Path) -> None:
        content = torch.load(path, map_location=next(self._model.parameters()).device, weights_only=True)
        self._model.load_state_dict(content["model"], strict=True)
        self._average = content["average"]
        self._optimizer.load_state_dict(content["optimizer"])
        self.step = content["step"]


def load_weights(model: nn.Module, folder: Path) -> None:
    """Load what `save_weights` wrote.

    Raises:
        OptionError: It is not there, or of another model.
    """
    try:
        weights = load_file(folder / WEIGHTS_NAME)
        model.load_state_dict({name: value.float() for name, value in weights.items()})
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise OptionError(f"--weights {folder}: must be a folder with the weights of this model: {reason}") from None


def half_precision(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as they are bundled: float16 on the CPU, everything that is no float as it was."""
    return {
        name: (value.half() if value.is_floating_point() else value).detach().cpu().contiguous().clone()
        for name, value in weights.items()
    }


def save_weights(weights: Mapping[str, Tensor], folder: Path) -> Path:
    """Write ``model.safetensors`` in half precision into a folder, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / WEIGHTS_NAME
    save_file(half_precision(weights), path, metadata={"format": "pt"})
    return path
