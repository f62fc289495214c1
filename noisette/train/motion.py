"""Motion modules for an exported model: its UNet stays as it is, temporal transformers learn between its layers.

AnimateDiff (Guo et al. 2024), in diffusers' format: MODEL/motion_adapter. Latents and text states come from the
exported folder itself, so that any model of `noisette train export` will do.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import MotionAdapter
from safetensors.torch import save_file

from noisette.checkpoint import MOTION, Checkpoint, locate
from noisette.engines import torch_engine
from noisette.engines.torch_motion import insert
from noisette.families.stable_diffusion import StableDiffusion
from noisette.train.checkpoint import Run
from noisette.train.clips import MOTIONS, clip_caption, moved
from noisette.train.config import Config
from noisette.train.data import read_pictures, write_json
from noisette.train.denoiser import logit_normal
from noisette.train.examples import draw, make_examples

KINDS = ("white", "recoloured")  # on plain grounds, which can come in from outside the picture


def build(config: Config, unet: dict[str, Any]) -> MotionAdapter:
    """Motion modules for a UNet of this configuration, whose last layers are zero: at first nothing moves."""
    settings = config["motion"]
    adapter = MotionAdapter(
        block_out_channels=unet["block_out_channels"],
        motion_layers_per_block=unet["layers_per_block"],
        motion_num_attention_heads=settings["heads"],
        motion_norm_num_groups=unet["norm_num_groups"],
        motion_max_seq_length=settings["frames"],
    )
    for name, parameter in adapter.named_parameters():
        if ".proj_out." in name:
            torch.nn.init.zeros_(parameter)
    return adapter


def prepare(folder: Path, config: Config, model: StableDiffusion, checkpoint: Checkpoint) -> None:
    """Writes motion_latents.npy [N, F, C, h, w] and motion_text.npy [N, T, width] of clips made from stills.

    Row N of the texts is the empty prompt. Made anew when the model's weights are others.
    """
    made_for = {"model": checkpoint.weights_hash, "clips": config["motion"]["clips"]}
    note = folder / "motion.json"
    if note.exists() and json.loads(note.read_text(encoding="utf-8"))["made_for"] == made_for:
        return
    settings = config["motion"]
    rng = np.random.default_rng(config["data"]["seed"])
    entries, cut_outs = read_pictures(folder)
    stills = [still for still in make_examples(entries, cut_outs, config["data"]) if still.kind in KINDS]
    side, count, frames = checkpoint.native_side, settings["clips"], settings["frames"]
    shape = model.latent_shape(side, side)
    latents = np.lib.format.open_memmap(
        folder / "motion_latents.npy", "w+", np.float16, (count, frames, *shape)
    )  # fmt: skip
    captions = []
    for i in range(count):
        still, motion = stills[rng.integers(len(stills))], list(MOTIONS)[i % len(MOTIONS)]
        clip = moved(shrunk(draw(still, cut_outs), side), motion, frames)
        pixels = clip.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
        latents[i] = model.networks.encode_image(pixels)[0] * model.scaling_factor
        captions.append(clip_caption(str(rng.choice(still.captions)), motion, rng))
    latents.flush()
    states = [model.encode_prompt(caption).positive[0] for caption in [*captions, ""]]
    np.save(folder / "motion_text.npy", np.stack(states).astype(np.float16))
    write_json(note, {"made_for": made_for, "captions": captions})
    (folder / "motion.pt").unlink(missing_ok=True)  # what was learned of another model's latents is of no use
    print(f"motion: {count} clips of {frames} frames", flush=True)


def shrunk(picture: np.ndarray, side: int) -> np.ndarray:
    """uint8 [H, W, 3] at side x side."""
    from PIL import Image

    image = Image.fromarray(picture)
    return np.asarray(image if image.size == (side, side) else image.resize((side, side), Image.Resampling.LANCZOS))


def train(folder: Path, config: Config, target: Path) -> None:
    """Trains for the configured minutes, from the last checkpoint if there is one, and writes the adapter."""
    checkpoint = locate(str(target))
    networks = torch_engine.load(checkpoint, "cpu")
    model = StableDiffusion(networks, checkpoint)
    prepare(folder, config, model, checkpoint)
    settings, log = config["motion"], config["log"]
    latents = np.load(folder / "motion_latents.npy", mmap_mode="r")
    states = np.load(folder / "motion_text.npy")
    torch.manual_seed(config["data"]["seed"])
    adapter = build(config, checkpoint.configs["unet"])
    unet = networks.unet.requires_grad_(False).to(memory_format=torch.contiguous_format)  # see clip_loss
    tie = insert(unet, adapter)
    tie.num_frames = settings["frames"]
    optimizer = torch.optim.AdamW(
        adapter.parameters(), lr=settings["learning_rate"], betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    run = Run(folder, "motion", adapter, optimizer, settings["ema"])
    run.resume()
    alphas, sigmas = (torch.from_numpy(v.astype(np.float32)) for v in (model.table.alphas, model.table.sigmas))
    for minutes in run.steps(settings["minutes"], log["checkpoint_minutes"], log["every"]):
        left = (settings["minutes"] - minutes) / (settings["cool_down"] * settings["minutes"])
        for group in optimizer.param_groups:
            group["lr"] = settings["learning_rate"] * min(1, (run.step + 1) / settings["warm_up"], left)
        rows = run.rng.integers(0, len(latents), settings["batch"])
        x0 = torch.from_numpy(latents[rows].astype(np.float32))
        said = np.where(run.rng.random(len(rows)) < settings["empty"], len(latents), rows)
        context = torch.from_numpy(states[said].astype(np.float32))
        timesteps = logit_normal(run.rng, len(rows), settings["timestep_mean"], settings["timestep_deviation"])
        run.update(clip_loss(unet, x0, context, timesteps, alphas, sigmas, model.prediction_type), len(rows))
    export(run.averaged(), target / MOTION)


def clip_loss(
    unet: Any,
    x0: torch.Tensor,
    context: torch.Tensor,
    timesteps: torch.Tensor,
    alphas: torch.Tensor,
    sigmas: torch.Tensor,
    prediction_type: str,
) -> torch.Tensor:
    """Mean squared error of the UNet's prediction for clips x0 [B, F, C, h, w], all frames of one at one level.

    Not in channels_last: there torch 2.13 crashes on the way back through a UNet whose weights are frozen.
    """
    frames = x0.shape[1]
    noise = torch.randn(x0.shape)
    alpha, sigma = (values[timesteps].view(-1, 1, 1, 1, 1) for values in (alphas, sigmas))
    x = (alpha * x0 + sigma * noise).flatten(0, 1)
    target = alpha * noise - sigma * x0 if prediction_type == "v_prediction" else noise
    output = unet(x, timesteps.repeat_interleave(frames), context.repeat_interleave(frames, 0)).sample
    return F.mse_loss(output, target.flatten(0, 1))


def export(adapter: Any, folder: Path) -> None:
    """config.json and float16 weights, as diffusers' MotionAdapter.from_pretrained takes them."""
    folder.mkdir(parents=True, exist_ok=True)
    adapter.save_config(folder)
    tensors = {name: value.half().contiguous() for name, value in adapter.state_dict().items()}
    part = folder / "part"
    save_file(tensors, part, metadata={"format": "pt"})
    part.replace(folder / "diffusion_pytorch_model.safetensors")
    (folder / "diffusion_pytorch_model.safetensors").chmod(0o644)
    print(f"motion: {folder}, {sum(t.nbytes for t in tensors.values()) / 1e6:.0f} MB", flush=True)
