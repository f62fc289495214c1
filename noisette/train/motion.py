"""Motion modules for an exported model: its UNet stays as it is, temporal transformers learn between its layers.

AnimateDiff (Guo et al. 2024), in diffusers' format, beside the model: MODEL-motion. Latents and text states come
from the exported folder itself, so that any model of `noisette train export` will do.

What makes it learn within an hour of one core:
* clips are of things the model draws, and their latents are made once;
* modules before the middle of the UNet stay zero: nothing is propagated back through its first half;
* a step shows a few frames of several clips, at their own places in time; whole clips come at the end;
* noise is shared between the frames of a clip (PYoCo, Ge et al. 2023), as it is when clips are made;
* clips start from a moved still that is noised part-way: only noise levels up to `taught_strength` are taught.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import MotionAdapter
from diffusers.models.embeddings import SinusoidalPositionalEmbedding
from safetensors.torch import save_file

from noisette.checkpoint import Checkpoint, locate, motion_folder
from noisette.engines import torch_engine
from noisette.engines.openvino import engine as openvino_engine
from noisette.engines.torch_motion import insert
from noisette.families.stable_diffusion import StableDiffusion
from noisette.moving import MOTIONS, clip_caption, moved
from noisette.train.checkpoint import Run
from noisette.train.config import Config
from noisette.train.data import read_pictures, write_json
from noisette.train.denoiser import logit_normal
from noisette.train.examples import draw, make_examples

KINDS = ("white", "recoloured")  # on plain grounds, which can come in from outside the picture
SAVED_EVERY = 10  # clips


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
    adapter.down_blocks.requires_grad_(False)
    return adapter


def prepare(folder: Path, config: Config, checkpoint: Checkpoint) -> None:
    """Writes motion_latents.npy [N, F, C, h, w] and motion_text.npy [N, T, width] of clips made from stills.

    Row N of the texts is the empty prompt. What was stopped goes on; made anew when the model's encoders or the
    clips asked for are others. Another UNet takes modules up where they are.
    """
    settings = config["motion"]
    asked = {key: settings[key] for key in ("clips", "frames", "common_share")}
    encoders = sorted(value for name, value in checkpoint.weight_hashes.items() if not name.startswith("unet/"))
    made_for, note = {"encoders": encoders, **asked}, folder / "motion.json"
    state = json.loads(note.read_text(encoding="utf-8")) if note.exists() else {}
    count, frames, side = settings["clips"], settings["frames"], checkpoint.native_side
    if state.get("made_for") != made_for:
        state = {"made_for": made_for, "captions": []}
        (folder / "motion.pt").unlink(missing_ok=True)  # what was learned of other latents is of no use
    said = state["captions"]
    if len(said) == count and (folder / "motion_text.npy").exists():
        return
    networks = openvino_engine.load(checkpoint, "cpu", "float32")
    model = StableDiffusion(networks, checkpoint)
    entries, cut_outs = read_pictures(folder)
    examples = [e for e in make_examples(entries, cut_outs, config["data"]) if e.kind in KINDS]
    is_common = [entries[e.picture]["label"] in config["data"]["common"] for e in examples]
    common = [e for e, known in zip(examples, is_common, strict=True) if known]
    path = folder / "motion_latents.npy"
    shape = (count, frames, *model.latent_shape(side, side))
    latents = np.lib.format.open_memmap(path, "r+" if said else "w+", np.float16, None if said else shape)
    for i in range(len(said), count):
        rng = np.random.default_rng([config["data"]["seed"], i])
        pool = common if common and rng.random() < settings["common_share"] else examples
        still, motion = pool[rng.integers(len(pool))], list(MOTIONS)[i % len(MOTIONS)]
        clip = np.stack(list(moved(shrunk(draw(still, cut_outs), side), motion, frames)))
        pixels = clip.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
        latents[i] = networks.encode_image(pixels)[0] * model.scaling_factor
        said.append(clip_caption(str(rng.choice(still.captions)), motion, rng))
        if len(said) % SAVED_EVERY == 0:
            latents.flush()
            write_json(note, state)
    latents.flush()
    states = [model.encode_prompt(caption).positive[0] for caption in [*said, ""]]
    np.save(folder / "motion_text.npy", np.stack(states).astype(np.float16))
    write_json(note, state)
    print(f"motion: {count} clips of {frames} frames", flush=True)


def shrunk(picture: np.ndarray, side: int) -> np.ndarray:
    """uint8 [H, W, 3] at side x side."""
    from PIL import Image

    image = Image.fromarray(picture)
    return np.asarray(image if image.size == (side, side) else image.resize((side, side), Image.Resampling.LANCZOS))


def train(folder: Path, config: Config, target: Path) -> None:
    """Trains for the configured minutes, from the last checkpoint if there is one, and writes the adapter."""
    checkpoint = locate(str(target))
    prepare(folder, config, checkpoint)
    networks = torch_engine.load(checkpoint, "cpu")
    model = StableDiffusion(networks, checkpoint)
    settings, log = config["motion"], config["log"]
    latents = np.load(folder / "motion_latents.npy", mmap_mode="r")
    states = np.load(folder / "motion_text.npy")
    torch.manual_seed(config["data"]["seed"])
    adapter = build(config, checkpoint.configs["unet"])
    unet = networks.unet.requires_grad_(False).to(memory_format=torch.contiguous_format)  # see clip_loss
    tie = insert(unet, adapter)
    times = place_in_time(adapter)
    learning = [parameter for parameter in adapter.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        learning, lr=settings["learning_rate"], betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    run = Run(folder, "motion", adapter, optimizer, settings["ema"])
    run.resume()
    alphas, sigmas = (torch.from_numpy(v.astype(np.float32)) for v in (model.table.alphas, model.table.sigmas))
    for minutes in run.steps(settings["minutes"], log["checkpoint_minutes"], log["every"]):
        rest = (settings["minutes"] - minutes) / settings["minutes"]  # of the run
        for group in optimizer.param_groups:
            warm, cold = (run.step + 1) / settings["warm_up"], rest / settings["cool_down"]
            group["lr"] = settings["learning_rate"] * min(1, warm, cold)
        whole = rest < settings["whole"]
        tie.num_frames = settings["frames"] if whole else min(settings["frames_at_once"], settings["frames"])
        times[:] = sorted(run.rng.choice(settings["frames"], tie.num_frames, replace=False))
        rows = run.rng.integers(0, len(latents), max(1, settings["batch"] // tie.num_frames))
        x0 = torch.from_numpy(latents[rows][:, times].astype(np.float32))
        said = np.where(run.rng.random(len(rows)) < settings["empty"], len(latents), rows)
        context = torch.from_numpy(states[said].astype(np.float32))
        timesteps = logit_normal(run.rng, len(rows), settings["timestep_mean"], settings["timestep_deviation"])
        timesteps = (timesteps * settings["taught_strength"]).long()
        noise = shared_noise(x0.shape, settings["shared_noise"])
        loss = clip_loss(unet, x0, noise, context, timesteps, alphas, sigmas, model.prediction_type)
        run.update(loss, len(rows))
    made = {key: settings[key] for key in ("moved_strength", "shared_noise")}
    export(run.averaged(), motion_folder(target), {**made, "made_for": checkpoint.weights_hash})


def place_in_time(adapter: MotionAdapter) -> list[int]:
    """The list of the frames' places in their clip, which the modules look up at each call: the caller fills it."""
    times: list[int] = []
    for module in adapter.modules():
        if isinstance(module, SinusoidalPositionalEmbedding):
            module.register_forward_hook(lambda layer, arguments, output: arguments[0] + layer.pe[:, times])
    return times


def shared_noise(shape: Any, share: float) -> torch.Tensor:
    """Unit normals [B, F, ...] of which `share` of the variance is common to all frames of a clip (PYoCo, eq. 2)."""
    common = torch.randn(shape[0], 1, *shape[2:])
    return share**0.5 * common + (1 - share) ** 0.5 * torch.randn(shape)


def clip_loss(
    unet: Any,
    x0: torch.Tensor,
    noise: torch.Tensor,
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
    alpha, sigma = (values[timesteps].view(-1, 1, 1, 1, 1) for values in (alphas, sigmas))
    x = (alpha * x0 + sigma * noise).flatten(0, 1)
    target = alpha * noise - sigma * x0 if prediction_type == "v_prediction" else noise
    output = unet(x, timesteps.repeat_interleave(frames), context.repeat_interleave(frames, 0)).sample
    return F.mse_loss(output, target.flatten(0, 1))


def export(adapter: Any, folder: Path, made: dict[str, Any]) -> None:
    """config.json and float16 weights, as diffusers' MotionAdapter.from_pretrained takes them.

    `made`, under the key "noisette": how a clip is to be started with these modules.
    """
    folder.mkdir(parents=True, exist_ok=True)
    adapter.save_config(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_json(folder / "config.json", {**config, "noisette": made})
    tensors = {name: value.half().contiguous() for name, value in adapter.state_dict().items()}
    part = folder / "part"
    save_file(tensors, part, metadata={"format": "pt"})
    part.chmod(0o644)
    part.replace(folder / "diffusion_pytorch_model.safetensors")
    print(f"motion: {folder}, {sum(t.nbytes for t in tensors.values()) / 1e6:.0f} MB", flush=True)
