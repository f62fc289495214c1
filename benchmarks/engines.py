"""A denoising step, a decode, loading and memory: openvino against diffusers on the same weights.

    python3 benchmarks/engines.py [MODEL] [--side 512] [--rounds 3] [--threads N] [--networks unet vae]

Each engine runs in a process of its own; the rounds alternate between them, and medians are compared. On a
busy machine use --threads 1 and trust the processor seconds: two threads that wait for each other count as
work. Without a MODEL, a Stable Diffusion 1.5 of random weights is written to the cache folder once (2 GB).
"""  # fmt: skip

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--worker")
    parser.add_argument("--networks", nargs="+", default=["unet", "vae"], choices=("unet", "vae"))
    args = parser.parse_args()
    if args.worker:
        return work(args)
    if args.model is None:
        from benchmarks.random_sd15 import write
        from noisette.checkpoint import cache_folder

        args.model = write(cache_folder() / "bench" / "sd15")
    print(f"{args.model.name}, {args.side}x{args.side}; {machine()}, {args.threads} threads")
    for network in args.networks:
        compare(args, network)


def compare(args: argparse.Namespace, network: str) -> None:
    """Both engines on one network, round by round, as a table."""
    workers = {name: start(args, name, network) for name in ("diffusers", "openvino uncached", "openvino")}
    loads = {name: json.loads(ask(worker, "")) for name, worker in workers.items()}
    stop(workers.pop("openvino uncached"))
    timings: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
    for _ in range(args.rounds):
        for name, worker in workers.items():
            timings[name].append(json.loads(ask(worker, "run")))
    memory = {name: stop(worker) for name, worker in workers.items()}
    base = medians(timings["diffusers"])
    what = "step, guidance on" if network == "unet" else "decode"
    columns = "".join(f"{title:>9}" for title in ("load s", "wall s", "cpu s", "ratio", "cpu ratio", "peak GB"))
    print(f"\n{network + ': ' + what:26}{columns}")
    for name, load in loads.items():
        cells = [load["wall"]]
        if name in timings:
            now = medians(timings[name])
            ratios = [now[key] / base[key] for key in ("wall", "cpu")]
            cells += [now["wall"], now["cpu"], *ratios, memory[name]]
        print(f"{name:26}" + "".join(f"{cell:9.2f}" for cell in cells))


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(one[key] for one in rounds) for key in ("wall", "cpu")}


def start(args: argparse.Namespace, engine: str, network: str) -> subprocess.Popen[str]:
    """A worker process for one engine and network. Threads that wait must sleep, or they count as work."""
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    command = [
        sys.executable,
        __file__,
        str(args.model),
        "--side",
        str(args.side),
        "--worker",
        f"{engine}/{network}",
    ]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


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
    os.sched_setaffinity(0, range(args.threads))
    engine, _, network = args.worker.partition("/")
    begun = time.perf_counter()
    run = {"diffusers": with_diffusers}.get(engine, with_openvino)(args, network, engine)
    print(json.dumps({"wall": time.perf_counter() - begun}), flush=True)
    if engine != "openvino uncached":
        run()
    for line in sys.stdin:
        if line.strip() == "stop":
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, flush=True)
            return
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        print(json.dumps({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}), flush=True)


def inputs(config: dict[str, Any], network: str, side: int, factor: int) -> dict[str, Any]:
    """Random inputs of one call: two branches of guidance for the UNet, one picture for the decoder."""
    import numpy as np

    rng = np.random.default_rng(0)
    h = side // factor
    if network == "vae":
        return {"latents": rng.standard_normal((1, config["latent_channels"], h, h), np.float32)}
    sample = rng.standard_normal((2, config.get("in_channels", 4), h, h), np.float32)
    return {
        "sample": sample,
        "context": rng.standard_normal((2, 77, config["cross_attention_dim"]), np.float32),
    }


def with_openvino(args: argparse.Namespace, network: str, engine: str) -> Any:
    import tempfile

    if engine == "openvino uncached":
        os.environ["NOISETTE_CACHE"] = tempfile.mkdtemp()
    from noisette.checkpoint import locate
    from noisette.engines.openvino import load

    checkpoint = locate(str(args.model))
    wanted = ("vae_decoder",) if network == "vae" else ("unet_context", "unet")
    networks = load(checkpoint, networks=wanted)
    x = inputs(checkpoint.configs[network], network, args.side, checkpoint.vae_scale_factor)
    networks.wait(wanted)
    if network == "vae":
        return lambda: networks.decode_image(x["latents"])
    return lambda: networks.denoise(x["sample"], 500.0, x["context"])


def with_diffusers(args: argparse.Namespace, network: str, engine: str) -> Any:
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    if network == "vae":
        vae = AutoencoderKL.from_pretrained(args.model / "vae", torch_dtype=torch.float32).eval()
        x = inputs(vae.config, network, args.side, 2 ** (len(vae.config.block_out_channels) - 1))
        return torch.inference_mode()(lambda: vae.decode(torch.tensor(x["latents"])).sample)
    unet = UNet2DConditionModel.from_pretrained(args.model / "unet", torch_dtype=torch.float32).eval()
    vae_config = json.loads((args.model / "vae" / "config.json").read_text())
    x = inputs(unet.config, network, args.side, 2 ** (len(vae_config["block_out_channels"]) - 1))
    a, b = torch.tensor(x["sample"]), torch.tensor(x["context"])
    return torch.inference_mode()(lambda: unet(a, 500, b).sample)


def machine() -> str:
    """Processor, cores and versions in a line."""
    from importlib.metadata import version

    cpu = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.processor())  # fmt: skip
    versions = ", ".join(f"{name} {version(name)}" for name in ("openvino", "torch", "diffusers"))
    return f"{cpu}, {os.cpu_count()} cores; {versions}"


if __name__ == "__main__":
    main()
