"""Motion modules for an exported model: its UNet stays as it is, temporal transformers learn between its layers.

AnimateDiff (Guo et al. 2024), in diffusers' format, beside the model: MODEL-motion. Latents and text states come
from the exported folder itself, so that any model of `noisette train export` will do.

What makes it learn within an hour:
* clips are of things the model draws, and their latents are made once;
* modules before the middle of the UNet stay zero: nothing is propagated back through its first half;
* noise is shared between the frames of a clip (PYoCo, Ge et al. 2023), as it is when clips are made;
* clips start from a moved still that is noised part-way: only noise levels up to `taught_strength` are taught.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import MotionAdapter
from safetensors.torch import save_file

from noisette.checkpoint import Checkpoint, locate, motion_folder
from noisette.engines import torch_engine
from noisette.engines.openvino import engine as openvino_engine
from noisette.engines.torch_motion import Tie, insert
from noisette.families.stable_diffusion import StableDiffusion
from noisette.moving import MOTIONS, clip_caption, moved
from noisette.train.checkpoint import Run
from noisette.train.config import Config
from noisette.train.data import read_pictures, write_json
from noisette.train.examples import draw, make_examples
from noisette.train.fast import plain_attention, quickened

KINDS = ("white", "recoloured")  # on plain grounds, which can come in from outside the picture
SAVED_EVERY = 10  # clips
HELD_OUT = 20  # one clip of so many


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
    """Trains for the configured minutes, from the last checkpoint if there is one, and writes the adapter.

    Prints the loss on clips held out, with the modules and without.
    """
    checkpoint = locate(str(target))
    prepare(folder, config, checkpoint)
    networks = torch_engine.load(checkpoint, "cpu")
    model = StableDiffusion(networks, checkpoint)
    settings, log = config["motion"], config["log"]
    latents = np.load(folder / "motion_latents.npy", mmap_mode="r")
    states = np.load(folder / "motion_text.npy")
    taught = len(latents) - -(-len(latents) // HELD_OUT)
    torch.manual_seed(config["data"]["seed"])
    adapter = build(config, checkpoint.configs["unet"])
    unet = networks.unet.requires_grad_(False).to(memory_format=torch.contiguous_format)  # see clip_loss
    tie = insert(unet, adapter)
    tie.num_frames = settings["frames"]
    plain_attention(unet, adapter)
    predict = quickened(unet, settings["compiled"])
    learning = [parameter for parameter in adapter.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        learning, lr=settings["learning_rate"], betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    run = Run(folder, "motion", adapter, optimizer, settings["ema"])
    run.resume()
    levels = tuple(torch.from_numpy(v.astype(np.float32)) for v in (model.table.alphas, model.table.sigmas))

    def loss_of(rows: np.ndarray, texts: np.ndarray, share: np.ndarray) -> torch.Tensor:
        """Of clips under texts, noised to a share of what is taught."""
        x0 = torch.from_numpy(latents[rows].astype(np.float32))
        context = torch.from_numpy(states[texts].astype(np.float32))
        timesteps = torch.from_numpy(share * settings["taught_strength"] * 1000).long()
        noise = shared_noise(x0.shape, settings["shared_noise"])
        return clip_loss(predict, x0, noise, context, timesteps, *levels, model.prediction_type)

    at_once = max(1, settings["batch"] // settings["frames"])
    for minutes in run.steps(settings["minutes"], log["checkpoint_minutes"], log["every"]):
        rest = (settings["minutes"] - minutes) / settings["minutes"]  # of the run
        for group in optimizer.param_groups:
            warm, cold = (run.step + 1) / settings["warm_up"], rest / settings["cool_down"]
            group["lr"] = settings["learning_rate"] * min(1, warm, cold)
        rows = run.rng.integers(0, taught, at_once)
        texts = np.where(run.rng.random(at_once) < settings["empty"], len(latents), rows)
        run.update(loss_of(rows, texts, run.rng.random(at_once)), at_once)
    run.averaged()
    made = {key: settings[key] for key in ("moved_strength", "shared_noise")}
    export(adapter, motion_folder(target), {**made, "made_for": checkpoint.weights_hash})
    compare(loss_of, tie, np.arange(taught, len(latents)))


@torch.inference_mode()
def compare(loss_of: Callable[..., torch.Tensor], tie: Tie, held_out: np.ndarray) -> None:
    """Prints the loss on held-out clips, by the modules and by the UNet alone, at the same noise."""
    found = []
    for scale in (1.0, 0.0):
        tie.scale = scale
        torch.manual_seed(0)
        losses = [loss_of(held_out[[i]], held_out[[i]], np.array([share]))
                  for i in range(len(held_out)) for share in (0.1, 0.35, 0.6, 0.85)]  # fmt: skip
        found.append(np.mean([loss.item() for loss in losses]))
    print(f"motion: loss {found[0]:.4f} on clips held out, {found[1]:.4f} without modules", flush=True)


def shared_noise(shape: Any, share: float) -> torch.Tensor:
    """Unit normals [B, F, ...] of which `share` of the variance is common to all frames of a clip (PYoCo, eq. 2)."""
    common = torch.randn(shape[0], 1, *shape[2:])
    return share**0.5 * common + (1 - share) ** 0.5 * torch.randn(shape)


def clip_loss(
    predict: Callable[..., Any],
    x0: torch.Tensor,
    noise: torch.Tensor,
    context: torch.Tensor,
    timesteps: torch.Tensor,
    alphas: torch.Tensor,
    sigmas: torch.Tensor,
    prediction_type: str,
) -> torch.Tensor:
    """Mean squared error of the UNet's predictions for clips x0 [B, F, C, h, w], all frames of one at one level.

    Not in channels_last: there torch 2.13 crashes on the way back through a UNet whose weights are frozen.
    """
    frames = x0.shape[1]
    alpha, sigma = (values[timesteps].view(-1, 1, 1, 1, 1) for values in (alphas, sigmas))
    x = (alpha * x0 + sigma * noise).flatten(0, 1)
    target = alpha * noise - sigma * x0 if prediction_type == "v_prediction" else noise
    output = predict(x, timesteps.repeat_interleave(frames), context.repeat_interleave(frames, 0)).sample
    return F.mse_loss(output.float(), target.flatten(0, 1))


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
