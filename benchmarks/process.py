"""From the shell to a picture: `image.py` and a plain diffusers script, whole processes with the same weights.

    python3 benchmarks/process.py [MODEL] [--side N] [--steps 25] [--rounds 3] [--threads N]
                                  [--precisions float32 bfloat16 int8]

The rounds alternate; medians of wall and processor seconds and of peak memory. The cache of compiled models is
warm, as after the first picture; the first one is a row of its own. int8 needs `noisette optimize` first. On a busy
machine use --threads 1 and read the processor seconds.
"""  # fmt: skip

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.engines import fresh_cache  # noqa: E402

PLAIN = """
import torch
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained({model!r}, safety_checker=None)
picture = pipe("alien", width={side}, height={side}, num_inference_steps={steps}, guidance_scale=3.0,
               generator=torch.Generator().manual_seed(1024)).images[0]
picture.save({out!r})
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", default=str(ROOT / "noisette" / "models" / "noisette-1"))
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--precisions", nargs="+", default=["float32"], choices=("float32", "bfloat16", "int8"))
    args = parser.parse_args()
    folder = tempfile.mkdtemp()
    image = [str(ROOT / "image.py"), "--prompt", "alien", "--model", args.model, "--seed", "1024", "--out", folder]
    image += ["--width", str(args.side), "--height", str(args.side), "--num_inference_steps", str(args.steps)]
    image += ["--guidance_scale", "3", "--engine", "openvino"]
    plain = PLAIN.format(model=args.model, side=args.side, steps=args.steps, out=f"{folder}/plain.png")
    os.environ["NOISETTE_CACHE"] = fresh_cache(Path(args.model), args.precisions)
    os.sched_setaffinity(0, range(args.threads))
    commands, rows = {}, {}
    for precision in args.precisions:
        commands[f"image.py, {precision}"] = [*image, "--precision", precision]
        rows[f"image.py, {precision}, first ever"] = [run(commands[f"image.py, {precision}"])]
    commands["plain diffusers, float32"] = ["-c", plain]
    rows |= {name: [] for name in commands}
    for _ in range(args.rounds):
        for name, command in commands.items():
            rows[name].append(run(command))
    print(f"{Path(args.model).name}, {args.side}x{args.side}, {args.steps} steps, threads: {args.threads}\n")
    print("| process | wall s | cpu s | peak GB |\n|---|---|---|---|")
    for name, times in rows.items():
        print(
            f"| {name} | "
            + " | ".join(f"{statistics.median(column):.2f}" for column in zip(*times, strict=True))
            + " |"
        )


def run(command: list[str]) -> tuple[float, float, float]:
    """A process to its end: wall seconds, processor seconds, peak memory in GB."""
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {command}")
    return time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e6


if __name__ == "__main__":
    main()
