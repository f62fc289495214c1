"""Resumable runs: a checkpoint every few minutes, whole or not at all, and the same curve after `kill -9`."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from noisette.errors import UserError

LONGEST = 60.0  # seconds that one step counts for at most: what takes longer was paused
AVERAGED, BEGINNING = 4, 100  # steps from one look at the weights, for their average, to the next: after so many


class Run:
    """A network in training with its optimizer, the average of its weights, its place in the data, its log.

    Everything random comes from `self.rng` and torch's global generator, and both are in the checkpoint: a run
    that was killed repeats the steps since its last checkpoint and goes on as if nothing had happened.
    """

    def __init__(self, folder: Path, name: str, network: nn.Module, optimizer: Any, ema: float) -> None:
        self.path, self.log_path = folder / f"{name}.pt", folder / f"{name}.jsonl"
        self.name, self.network, self.optimizer, self.decay = name, network, optimizer, ema
        self.averages = {key: value.detach().clone() for key, value in network.state_dict().items()}
        self.rng = np.random.default_rng(0)
        self.step, self.seconds, self.samples = 0, 0.0, 0
        self.losses: list[float] = []

    def resume(self) -> None:
        """Takes up the last checkpoint, if there is one."""
        if not self.path.exists():
            return
        state = torch.load(self.path, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.averages = state["averages"]
        self.step, self.seconds = state["step"], state["seconds"]
        self.losses = state["losses"]
        self.rng.bit_generator.state = json.loads(state["rng"])
        torch.set_rng_state(state["torch_rng"])

    def save(self) -> None:
        """Writes the checkpoint beside its name, then renames it. Raises UserError when the disk is full."""
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averages": self.averages,
            "step": self.step,
            "seconds": self.seconds,
            "losses": self.losses,
            "rng": json.dumps(self.rng.bit_generator.state),
            "torch_rng": torch.get_rng_state(),
        }
        part = self.path.with_suffix(".part")
        try:
            torch.save(state, part)
            part.replace(self.path)
        except (OSError, RuntimeError) as error:
            part.unlink(missing_ok=True)
            raise UserError(f"{self.path} can't be written, the one before stays: {error}") from None

    def steps(
        self,
        minutes: float,
        checkpoint_minutes: float,
        every: int,
        saved: Callable[[float], None] = lambda minutes: None,
    ) -> Iterator[float]:
        """Yields the minutes of training that have passed, once a step, until `minutes` have.

        Every `every` steps one line goes to the log (and the terminal), every `checkpoint_minutes` and at the end
        a checkpoint is written and `saved` called with the minutes. What both take is not counted as training, nor
        are the minutes of a process that was stopped meanwhile (`kill -STOP`).
        """
        last = logged = checkpoint = time.monotonic()
        self.samples = 0
        while self.seconds < minutes * 60:
            yield self.seconds / 60
            self.step += 1
            now = time.monotonic()
            self.seconds, last = self.seconds + min(now - last, LONGEST), now
            if self.step % every == 0:
                self.log(self.samples / (now - logged))
                logged, self.samples = now, 0
            if now - checkpoint > checkpoint_minutes * 60:
                self.save()
                saved(self.seconds / 60)
                checkpoint = last = time.monotonic()
                logged += checkpoint - now
        self.save()
        saved(self.seconds / 60)

    def update(self, loss: torch.Tensor, samples: int) -> None:
        """One optimizer step on the mean loss of `samples` samples.

        Raises UserError for a loss that is not finite: the last checkpoint stays.
        """
        if not math.isfinite(loss.item()):
            raise UserError(
                f"the {self.name}'s loss is {loss.item()} at step {self.step}; the checkpoint of"
                f" {self.path} stays: go on with a smaller learning_rate"
            )
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.losses.append(loss.item())
        self.samples += samples
        every = AVERAGED if self.step > BEGINNING else 1
        if self.step % every:
            return
        with torch.no_grad():
            share = 1 - min(self.decay**every, (self.step + every) / (self.step + 20 * every))
            state = self.network.state_dict()
            torch._foreach_lerp_(list(self.averages.values()), [state[key] for key in self.averages], share)

    def log(self, rate: float) -> None:
        """One line of the log: step, seconds, mean loss since the last line, samples a second."""
        line = {
            "step": self.step,
            "seconds": round(self.seconds),
            "loss": round(float(np.mean(self.losses)), 4),
            "samples_a_second": round(rate, 1),
        }
        self.losses = []
        with self.log_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{self.name} {json.dumps(line)}", flush=True)

    def averaged(self) -> nn.Module:
        """The network with its averaged weights, for use: training can't go on with it."""
        self.network.load_state_dict(self.averages)
        return self.network.eval()


def check_exported(flag: str, model: Path) -> None:
    """Raises UserError when there is no exported model in that folder."""
    if not (model / "unet").is_dir():
        raise UserError(f"--{flag} {model} is no folder of `noisette train export`")


def keep_start(folder: Path, model: Path) -> None:
    """Keeps an exported model beside the checkpoints: what has no checkpoint starts from it."""
    check_exported("start", model)
    if not (folder / "start").exists():
        shutil.copytree(model, folder / "start.part", dirs_exist_ok=True)
        (folder / "start.part").replace(folder / "start")


def load_start(network: nn.Module, folder: Path, part: str) -> bool:
    """Fills a network with the weights kept by `keep_start`; False when there are none.

    Raises UserError when they are of another shape.
    """
    weights = folder / "start" / part / "diffusion_pytorch_model.safetensors"
    if not weights.exists():
        return False
    try:
        network.load_state_dict(load_file(weights))
    except RuntimeError as error:
        raise UserError(f"{weights} is not of this configuration: {str(error).splitlines()[-1].strip()}") from None
    return True
