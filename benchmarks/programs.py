"""What engines.py times: a step or a decode by noisette, diffusers, openvino-genai and stable-diffusion.cpp.

Each loads when it is called with the arguments of engines.py, a network ("unet", "vae") and a precision, and gives a
function that runs once and tells its wall and processor seconds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HINTS = {"float32": "f32", "bfloat16": "bf16"}
GGML = {"float32": "f32", "int8": "q8_0"}  # the types of stable-diffusion.cpp's weights
PRODUCT = (4096, 1280, 1280)  # rows, inner, columns of the product that tells the rate
TOKENS = 77
Timed = Callable[[], dict[str, float]]


def genai_folder(model: Path) -> Path:
    """Where the model lies in openvino-genai's form."""
    from noisette.checkpoint import cache_folder

    return cache_folder() / "bench" / f"{model.name}-genai"


def timed(call: Callable[[], object]) -> Timed:
    """The call as one that tells what it took."""

    def run() -> dict[str, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}

    return run


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
        "context": rng.standard_normal((2, TOKENS, config["cross_attention_dim"]), np.float32),
    }


def with_noisette(args: argparse.Namespace, network: str, precision: str) -> Timed:
    from noisette.checkpoint import locate
    from noisette.engines.openvino import load

    checkpoint = locate(str(args.model))
    wanted = ("vae_decoder",) if network == "vae" else ("unet_context", "unet")
    networks = load(checkpoint, precision=precision, networks=wanted)
    x = inputs(checkpoint.configs[network], network, args.side, checkpoint.vae_scale_factor)
    networks.wait(wanted)
    if network == "vae":
        return timed(lambda: networks.decode_image(x["latents"]))
    return timed(lambda: networks.denoise(x["sample"], 500.0, x["context"]))


def with_diffusers(args: argparse.Namespace, network: str, precision: str) -> Timed:
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    if network == "vae":
        vae = AutoencoderKL.from_pretrained(args.model / "vae", torch_dtype=torch.float32).eval()
        x = inputs(vae.config, network, args.side, 2 ** (len(vae.config.block_out_channels) - 1))
        return timed(torch.inference_mode()(lambda: vae.decode(torch.tensor(x["latents"])).sample))
    unet = UNet2DConditionModel.from_pretrained(args.model / "unet", torch_dtype=torch.float32).eval()
    x = inputs(unet.config, network, args.side, latent_factor(args.model))
    a, b = torch.tensor(x["sample"]), torch.tensor(x["context"])
    return timed(torch.inference_mode()(lambda: unet(a, 500, b).sample))


def with_genai(args: argparse.Namespace, network: str, precision: str) -> Timed:
    """Its own pipeline: a step is the time from one of its callbacks to the next, its sampler's work included."""
    import openvino
    import openvino_genai

    pipe = openvino_genai.Text2ImagePipeline(
        str(genai_folder(args.model)), "CPU", INFERENCE_PRECISION_HINT=HINTS[precision]
    )
    if network == "vae":
        config = json.loads((args.model / "vae" / "config.json").read_text())
        latents = inputs(config, network, args.side, latent_factor(args.model))["latents"]
        return timed(lambda: pipe.decode(openvino.Tensor(latents)))

    def run() -> dict[str, float]:
        times: list[tuple[float, float]] = []

        def called(step: int, steps: int, latents: object) -> bool:
            times.append((time.perf_counter(), time.process_time()))
            return len(times) == 2  # True ends it

        pipe.generate(
            "a cat", width=args.side, height=args.side, num_inference_steps=3, guidance_scale=7.5, callback=called
        )
        (wall, cpu), (later, cpu_later) = times
        return {"wall": later - wall, "cpu": cpu_later - cpu}

    return run


def with_ggml(args: argparse.Namespace, network: str, precision: str) -> Timed:
    """A picture of two steps by stable-diffusion.cpp: a step is the second, a decode what follows it."""
    from stable_diffusion_cpp import StableDiffusion

    pipe = StableDiffusion(model_path=str(args.model), n_threads=args.threads, wtype=GGML[precision], verbose=False)

    def run() -> dict[str, float]:
        times: list[tuple[float, float]] = []

        def now(*progress: object) -> None:
            times.append((time.perf_counter(), time.process_time()))

        pipe.generate_image(
            "a cat", width=args.side, height=args.side, cfg_scale=7.5, sample_steps=2, sample_method="euler",
            progress_callback=now,
        )  # fmt: skip
        now()
        (wall, cpu), (later, cpu_later) = times[-2:] if network == "vae" else times[-3:-1]
        return {"wall": later - wall, "cpu": cpu_later - cpu}

    return run


def product(args: argparse.Namespace, network: str, precision: str) -> Timed:
    """What a step's products would take at the rate of one large one in openvino; at int8 one of 8-bit whole numbers,
    as its passes make of a quantized layer.
    """
    import numpy as np
    import openvino as ov
    from openvino import opset13 as ops

    rows, inner, columns = PRODUCT
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((rows, inner), np.float32), rng.standard_normal((inner, columns), np.float32)
    given = ops.parameter([rows, inner], np.float32)
    left, right = given, ops.constant(w)
    if precision == "int8":
        ends = [np.float32(4), np.float32(127 / 32)]
        left = ops.fake_quantize(left, -ends[0], ends[1], -ends[0], ends[1], 256)
        right = ops.fake_quantize(right, -ends[1], ends[1], -ends[1], ends[1], 255)
    core = ov.Core()
    network_of_one = ov.Model([ops.matmul(left, right, False, False)], [given])
    model = core.compile_model(network_of_one, "CPU", {"INFERENCE_PRECISION_HINT": HINTS.get(precision, "f32")})
    request = model.create_infer_request()
    run = timed(lambda: request.infer([x]))
    share = flops(args.model, args.side) / (2 * rows * inner * columns)
    return lambda: {key: value * share for key, value in run().items()}


def flops(model: Path, side: int) -> int:
    """Of one step with guidance: the multiplications and additions of all convolutions and products."""
    import torch
    from diffusers import UNet2DConditionModel
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(model / "unet"))
        side //= latent_factor(model)
        sample = torch.empty(2, unet.config.in_channels, side, side)
        states = torch.empty(2, TOKENS, unet.config.cross_attention_dim)
        with FlopCounterMode(display=False) as counter:
            unet(sample, torch.empty(2), states)
    return counter.get_total_flops()


def latent_factor(model: Path) -> int:
    config = json.loads((model / "vae" / "config.json").read_text())
    return 2 ** (len(config["block_out_channels"]) - 1)
