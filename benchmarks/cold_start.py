"""Where each tenth of a second goes, from a started interpreter to a picture, on the openvino engine.

    python3 benchmarks/cold_start.py [MODEL] [--side 256] [--steps 25] [--no-cache]

Prints wall and processor seconds of every stage, and the share of the steps that is not the UNet's; on a busy machine
read the processor seconds.
"""  # fmt: skip

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

STARTED = time.perf_counter(), time.process_time()


class Stages:
    """Wall and processor time between calls."""

    def __init__(self) -> None:
        self.wall, self.cpu = STARTED
        print(f"{'stage':32}{'wall s':>9}{'cpu s':>9}")
        print(f"{'interpreter':32}{'':9}{self.cpu:9.3f}")

    def done(self, name: str) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        print(f"{name:32}{wall - self.wall:9.3f}{cpu - self.cpu:9.3f}")
        self.wall, self.cpu = wall, cpu


def counted(networks: Any, inside: list[float]) -> Any:
    """The networks, whose UNet adds the wall and processor seconds of its calls to `inside`."""

    class Counted:
        def __getattr__(self, name: str) -> Any:
            return getattr(networks, name)

        def denoise(self, *given: Any, **named: Any) -> Any:
            wall, cpu = time.perf_counter(), time.process_time()
            found = networks.denoise(*given, **named)
            inside[0] += time.perf_counter() - wall
            inside[1] += time.process_time() - cpu
            return found

    return Counted()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", default=str(ROOT / "noisette" / "models" / "noisette-1"))
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--no-cache", action="store_true")
    args = parser.parse_args()
    if args.no_cache:
        os.environ["NOISETTE_CACHE"] = tempfile.mkdtemp()
    stages = Stages()

    import numpy as np

    stages.done("import numpy")
    from noisette.engines.openvino import load

    stages.done("import openvino")
    from noisette.checkpoint import locate
    from noisette.families.stable_diffusion import StableDiffusion
    from noisette.noise import Noise
    from noisette.sampling import SAMPLERS

    stages.done("import noisette")
    checkpoint = locate(str(Path(args.model)))
    stages.done("locate the model")
    networks = load(checkpoint)
    stages.done("start loading")
    family = StableDiffusion(networks, checkpoint)
    stages.done("tokenizer")
    conditions = family.encode_prompt("alien", "")
    stages.done("text (waits for its network)")
    levels = family.levels(args.steps)
    stream = Noise(1024)
    x = stream.normal((1, *family.latent_shape(args.side, args.side))) * np.float32(levels[0].sigma)
    denoise = family.denoiser(conditions, 3.0, levels=levels)
    denoise(x, levels[0])
    stages.done("first step (waits for the UNet)")
    inside = [0.0, 0.0]
    family.networks = counted(networks, inside)
    wall, cpu = time.perf_counter(), time.process_time()
    x = SAMPLERS["euler"](denoise, x, levels, None, lambda i, x, x0: x)
    whole = time.perf_counter() - wall, time.process_time() - cpu
    stages.done(f"{args.steps} steps")
    shares = (f"{1 - spent / of:9.2%}" for spent, of in zip(inside, whole, strict=True))
    print(f"{'… outside the UNet':32}" + "".join(shares))
    family.decode(x)
    stages.done("decode")


if __name__ == "__main__":
    main()
