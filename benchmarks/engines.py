"""A denoising step, a decode, loading and memory, against diffusers, openvino-genai and stable-diffusion.cpp on the
same weights.

    python3 benchmarks/engines.py [MODEL] [--side 512] [--rounds 3] [--threads N] [--networks unet vae loop]
                                  [--precisions float32 bfloat16 int8]

A precision at a time, each program is a process of its own; the rounds alternate between them, and medians are
compared with diffusers at float32. Beside the UNet stands what its products alone would take at the rate of one
large product (the gap is the rest). `loop` is the share of sampling that is spent outside the networks.

openvino-genai and stable-diffusion.cpp (pip3 install openvino-genai stable-diffusion-cpp-python) are rows where they
are installed and the text encoder is CLIP's; their loading and memory include the text encoder and the decoder. The
tracing of weights for the first, once, is timed in a line of its own; the second runs once, since its picture takes
minutes. On a busy machine
use --threads 1 and trust the processor seconds: two threads that wait for each other count as work. Without a MODEL,
a Stable Diffusion 1.5 of random weights is written to the cache folder once (2 GB); its int8 networks are calibrated
on noise, for speed only.
"""  # fmt: skip

from __future__ import annotations

import argparse
import atexit
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.programs import (
    GGML,
    HINTS,
    genai_folder,
    inputs,
    product,
    with_diffusers,
    with_genai,
    with_ggml,
    with_noisette,
)

ROOT = Path(__file__).parents[1]
ONCE = "stable-diffusion.cpp"
FIRST = "noisette, first time"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--networks", nargs="+", default=["unet", "vae", "loop"], choices=("unet", "vae", "loop"))
    parser.add_argument("--precisions", nargs="+", default=["float32"], choices=("float32", "bfloat16", "int8"))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(args)
    made = args.model is None
    if made:
        from benchmarks.random_sd15 import write
        from noisette.checkpoint import cache_folder

        args.model = write(cache_folder() / "bench" / "sd15")
    if made and "int8" in args.precisions:  # in a process of its own, whose peak would be taken for its children's
        subprocess.run([sys.executable, __file__, args.model, "--worker", "quantize"], check=True)
    print(f"{args.model.name}, {args.side}x{args.side}; {machine()}, {args.threads} threads")
    if can_join("openvino_genai", args.model):  # traced in a process of its own: it takes several times the memory
        tracing = [sys.executable, ROOT / "benchmarks" / "genai_folder.py", args.model, genai_folder(args.model)]
        said = subprocess.run(tracing, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True)
        print(f"openvino-genai: traced in {said.stdout.splitlines()[-1]}")
    for precision in args.precisions:
        for network in args.networks:
            if network == "loop":
                loop = [f"--side={args.side}", f"--threads={args.threads}", f"--worker=loop/{precision}/unet"]
                subprocess.run([sys.executable, __file__, args.model, *loop], check=True)
            else:
                compare(args, network, precision)


def quantize_on_noise(model: Path) -> None:
    """int8 networks of random weights, where there are none yet.

    As many multiplications stay in float as `noisette optimize` leaves there, but in the layers nearest to the
    output: which are sensitive is nothing that noise tells.
    """
    import numpy as np

    from noisette.checkpoint import locate
    from noisette.engines.openvino import load, quantize
    from noisette.optimized import NETWORKS, REPORT, files_of, folder_of

    checkpoint = locate(str(model))
    if files_of(checkpoint):
        return
    quantize.sensitive = last_layers
    networks = load(checkpoint, networks=("unet_context", "unet"))
    x = [inputs(checkpoint.configs[name], name, 128, checkpoint.vae_scale_factor) for name in ("unet", "vae")]
    folder = folder_of(checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    samples = ((x[0]["sample"], np.float32(500), x[0]["context"]), (x[1]["latents"],))
    for name, sample in zip(NETWORKS, samples, strict=True):
        networks.optimize(name, [sample], folder / f"{name}.xml")
    (folder / REPORT).write_text(json.dumps({"model": str(model), "calibrated": "on noise"}))


def last_layers(floating: Any, quantized: Any, samples: Any, share: float) -> list[str]:
    """The layers nearest to the output that make up `share` of the multiplications."""
    from noisette.engines.openvino.quantize import multiplications

    counts = multiplications(floating, samples[0])
    left, kept = share * sum(counts.values()), []
    for name, count in reversed(counts.items()):
        if count <= left:
            left -= count
            kept.append(name)
    return kept


def compare(args: argparse.Namespace, network: str, precision: str) -> None:
    """Every program on one network, round by round, as a table."""
    names = []
    if precision in GGML and can_join("stable_diffusion_cpp", args.model):
        names.append(f"{ONCE}/{precision}")
    names += ["diffusers/float32", f"{FIRST}/{precision}", f"noisette/{precision}"]
    if precision in HINTS and can_join("openvino_genai", args.model):
        names.append(f"openvino-genai/{precision}")
    if network == "unet":
        names.append(f"product/{precision}")
    workers, loads, memory = {}, {}, {}
    timings: dict[str, list[dict[str, float]]] = {}
    cache = fresh_cache(args.model, precision)
    for name in names:  # one after the other: each loads alone
        workers[name] = start(args, name, network, cache)
        loads[name] = json.loads(ask(workers[name], ""))
        if name.startswith(ONCE):
            timings[name] = [json.loads(ask(workers[name], "run"))]
        if name.startswith((ONCE, FIRST)):
            memory[name] = stop(workers.pop(name))
    for _ in range(args.rounds):
        for name, worker in workers.items():
            timings.setdefault(name, []).append(json.loads(ask(worker, "run")))
    memory |= {name: stop(worker) for name, worker in workers.items()}
    shutil.rmtree(cache)
    base = medians(timings["diffusers/float32"])
    what = "step, guidance on" if network == "unet" else "decode"
    columns = "".join(f"{title:>10}" for title in ("load s", "wall s", "cpu s", "ratio", "cpu ratio", "peak GB"))
    print(f"\n{network + ': ' + what:32}{columns}")
    for name, load in loads.items():
        program, _, at = name.partition("/")
        now = medians(timings[name]) if name in timings else {}
        cells = [load["wall"]]
        if program == "product":
            program, cells = "products alone, at", [float("nan")]
        if now:
            cells += [now["wall"], now["cpu"], *(now[key] / base[key] for key in ("wall", "cpu")), memory[name]]
        print(f"{program + ' ' + at:32}" + "".join(f"{cell:10.3f}" for cell in cells), flush=True)


def outside(args: argparse.Namespace, precision: str) -> None:
    """The share of a sampling loop, from its first step's end to its last's, that no network takes."""
    from noisette import engines
    from noisette.generate import generate
    from noisette.plan import plan
    from noisette.recipe import Recipe

    sides = {"img_w": args.side, "img_h": args.side, "num_inference_steps": 5}
    planned = plan(
        Recipe(prompt="a cat", model=str(args.model), engine="openvino", precision=precision, seed="0", **sides)
    )
    networks = engines.load(planned)
    denoise, spent, ends = networks.denoise, [0.0], []

    def timed_denoise(*given: Any, **more: Any) -> Any:
        began = time.perf_counter()
        found = denoise(*given, **more)
        spent[0] += time.perf_counter() - began
        return found

    def ended() -> None:
        ends.append((time.perf_counter(), spent[0]))

    networks.denoise = timed_denoise  # type: ignore[method-assign]
    list(generate(planned, networks, ended))
    (first, before), (last, after) = ends[0], ends[-1]
    print(f"\nloop {precision}: {1 - (after - before) / (last - first):.2%} outside the networks", flush=True)


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(one[key] for one in rounds) for key in ("wall", "cpu")}


def start(args: argparse.Namespace, name: str, network: str, cache: str) -> subprocess.Popen[str]:
    """A worker process; noisette's keep their compiled models in `cache`.

    Threads that wait must sleep, or they count as work.
    """
    own = {"NOISETTE_CACHE": cache} if name.startswith("noisette") else {}
    command = [sys.executable, __file__, str(args.model), "--side", str(args.side), "--threads", str(args.threads)]
    return subprocess.Popen(
        [*command, "--worker", f"{name}/{network}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | own | {"OMP_WAIT_POLICY": "PASSIVE"},
    )


def ask(worker: subprocess.Popen[str], what: str) -> str:
    """One line to a worker and its answer."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    if what:
        worker.stdin.write(what + "\n")
        worker.stdin.flush()
    return worker.stdout.readline()


def stop(worker: subprocess.Popen[str]) -> float:
    """Ends a worker; its peak memory in GB."""
    peak = float(ask(worker, "stop"))
    worker.wait()
    return peak


def work(args: argparse.Namespace) -> None:
    """A worker: loads and runs once, then answers each line with the times of one more run."""
    if args.worker == "quantize":
        return quantize_on_noise(args.model)
    os.sched_setaffinity(0, range(args.threads))
    name, precision, network = args.worker.split("/")
    if name == "loop":
        return outside(args, precision)
    begun = time.perf_counter()
    programs = {"diffusers": with_diffusers, "openvino-genai": with_genai, ONCE: with_ggml, "product": product}
    run = programs.get(name, with_noisette)(args, network, precision)
    print(json.dumps({"wall": time.perf_counter() - begun}), flush=True)
    if name not in (FIRST, ONCE):
        run()
    for line in sys.stdin:
        if line.strip() == "stop":
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, flush=True)
            return
        print(json.dumps(run()), flush=True)


def can_join(package: str, model: Path) -> bool:
    """Whether another program is installed and the model's text encoder CLIP's, the only one here it knows."""
    config = json.loads((model / "text_encoder" / "config.json").read_text(encoding="utf-8"))
    return bool(find_spec(package) and config.get("model_type") == "clip_text_model")


def fresh_cache(model: Path, precision: str) -> str:
    """A cache folder that holds nothing but the int8 networks, where these are loaded."""
    from noisette.checkpoint import locate
    from noisette.optimized import folder_of

    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)  # gigabytes
    if precision == "int8":
        kept = folder_of(locate(str(model)))
        (Path(folder) / "optimized").mkdir()
        (Path(folder) / "optimized" / kept.name).symlink_to(kept)
    return folder


def machine() -> str:
    """Processor, cores and versions in a line."""
    from importlib.metadata import version

    cpu = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.processor())  # fmt: skip
    known = {"stable_diffusion_cpp": "stable_diffusion_cpp_python"}
    named = [name for name in ("openvino", "torch", "diffusers", "openvino_genai", *known) if find_spec(name)]
    versions = ", ".join(f"{name} {version(known.get(name, name))}" for name in named)
    return f"{cpu}, {os.cpu_count()} cores; {versions}"


if __name__ == "__main__":
    main()
