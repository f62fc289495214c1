"""Clips measured: what does length cost, and how far is diffusers' own loop.

How a model moves is measured by `noisette train evaluate --only clips`.

    python3 benchmarks/clips.py memory [MODEL] [--side 128] [--steps 4]
    python3 benchmarks/clips.py speed [--side 256] [--steps 4] [--rounds 3] [--everywhere]

memory: peak of whole processes for 16, 64 and 256 frames, without motion modules, so that any model will do.
speed: noisette's shapes with random weights, here on openvino against diffusers' UNetMotionModel, alternating;
    both also in bfloat16 where this processor has it.
"""  # fmt: skip

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

BUILTIN = str(ROOT / "noisette" / "models" / "noisette-1")


def memory(model: str, side: int, steps: int) -> None:
    """A row for each length."""
    print(f"{Path(model).name}, {side}x{side}, {steps} steps, openvino\n\n| frames | peak MB |\n|---|---|")
    for frames in (16, 64, 256):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, str(ROOT / "video.py"), "--prompt", "a red apple", "--model", model]
            command += ["--walk_to", "2", "--seed", "1", "--frames", str(frames), "--out", folder]
            command += ["--img_w", str(side), "--img_h", str(side), "--steps", str(steps), "--engine", "openvino"]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"failed: {command}")
        print(f"| {frames} | {usage.ru_maxrss / 1e3:.0f} |", flush=True)


def speed(side: int, steps: int, rounds: int, everywhere: bool) -> None:
    """Seconds a frame of the denoising steps alone, guidance on, 16 frames; medians of alternating rounds.

    Modules as `noisette train motion` leaves them add nothing in the first half of the UNet; `everywhere` they do.
    """
    import torch
    from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel, logging

    from noisette.adapters import with_motion
    from noisette.checkpoint import locate
    from noisette.engines.openvino import load
    from noisette.engines.openvino.engine import precisions

    offered = [name for name in ("float32", "bfloat16") if name in precisions()]
    logging.set_verbosity_error()
    torch.manual_seed(0)
    drawn = json.loads((Path(BUILTIN) / "unet" / "config.json").read_text(encoding="utf-8"))
    shapes = {k: v for k, v in drawn.items() if k not in ("addition_embed_type", "resnet_time_scale_shift")}
    unet = UNet2DConditionModel.from_config(shapes)  # without the two things that UNetMotionModel does not know
    adapter = MotionAdapter(
        block_out_channels=shapes["block_out_channels"], motion_layers_per_block=1, motion_num_attention_heads=4,
        motion_max_seq_length=16,
    )  # fmt: skip
    for name, parameter in adapter.named_parameters():
        if not everywhere and name.startswith("down_blocks") and ".proj_out." in name:
            torch.nn.init.zeros_(parameter)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        shutil.copytree(BUILTIN, folder, ignore=shutil.ignore_patterns("unet"))
        unet.save_pretrained(folder / "unet")
        adapter.save_pretrained(folder / "motion_adapter")
        plain = locate(str(folder))
        moving = with_motion(plain, "model")
        ours = {name: load(moving, precision=name, networks=("unet_context",)) for name in offered}
        theirs = {
            name: UNetMotionModel.from_unet2d(unet, adapter).eval().to(getattr(torch, name)) for name in offered
        }
        channels, grid = shapes["in_channels"], side // plain.vae_scale_factor
        rng = np.random.default_rng(0)
        sample = rng.normal(size=(32, channels, grid, grid)).astype(np.float32)  # two branches of 16 frames
        context = rng.normal(size=(32, 32, shapes["cross_attention_dim"])).astype(np.float32)

        def here(precision: str) -> None:
            ours[precision].denoise(sample, 500.0, context, num_frames=16)

        for name in offered:
            here(name)  # reads the weights while they are there
    clip = torch.from_numpy(sample).reshape(2, 16, channels, grid, grid).swapaxes(1, 2)

    @torch.inference_mode()
    def there(precision: str) -> None:
        dtype = getattr(torch, precision)
        theirs[precision](clip.to(dtype), 500, torch.from_numpy(context).to(dtype))

    runs = {f"noisette, openvino, {name}": partial(here, name) for name in offered}
    runs |= {f"diffusers UNetMotionModel, {name}": partial(there, name) for name in offered}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, step in runs.items():
            step()
            began = time.process_time()
            for _ in range(steps):
                step()
            times[name].append((time.process_time() - began) / steps / 16)
    print(
        f"{side}x{side}, 16 frames, processor seconds a frame and step\n\n| loop | seconds | of diffusers' float32 |"
    )
    print("|---|---|---|")
    whole = statistics.median(times["diffusers UNetMotionModel, float32"])
    for name, values in times.items():
        print(f"| {name} | {statistics.median(values):.4f} | {statistics.median(values) / whole:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("memory", "speed"))
    parser.add_argument("model", nargs="?", default=BUILTIN)
    parser.add_argument("--side", type=int, help="128 for memory, 256 for speed")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--everywhere", action="store_true", help="of speed: modules in the UNet's first half too")
    args = parser.parse_args()
    if args.what == "memory":
        memory(args.model, args.side or 128, args.steps)
    else:
        speed(args.side or 256, args.steps, args.rounds, args.everywhere)


if __name__ == "__main__":
    main()
