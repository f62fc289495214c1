"""Export: the trained networks as a standard diffusers folder, float16, that plain diffusers loads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler
from safetensors.torch import load_file, save_file
from torch import nn

from noisette.checkpoint import read_json
from noisette.errors import UserError
from noisette.train import autoencoder, decoder, denoiser
from noisette.train.config import Config
from noisette.train.text import model_folder

CARD = Path(__file__).parent / "card.md"
LOGVAR = -30.0  # diffusers' lower clamp: a posterior without spread


def whiten(network: AutoencoderKL, mean: torch.Tensor, deviation: torch.Tensor) -> None:
    """Folds the latents' whitening into the 1x1 convolutions at the bottleneck, and fixes the posterior's spread.

    Afterwards latents have mean 0 and deviation 1 by channel, and scaling_factor is 1.
    """
    channels = len(mean)
    inward, outward = network.quant_conv, network.post_quant_conv
    with torch.no_grad():
        inward.weight[:channels] /= deviation[:, None, None, None]
        inward.bias[:channels] = (inward.bias[:channels] - mean) / deviation
        inward.weight[channels:] = 0
        inward.bias[channels:] = LOGVAR
        outward.bias += outward.weight[:, :, 0, 0] @ mean
        outward.weight *= deviation[None, :, None, None]


def check_target(target: Path) -> None:
    """Raises UserError where an export would replace anything but an earlier export or an empty folder."""
    index = target / "model_index.json"
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not index.is_file() or "_squares_only" not in read_json(index):
        raise UserError(f"--to {target} is no exported model, which alone is replaced: name another folder")


def export(folder: Path, config: Config, target: Path) -> None:
    """Writes the diffusers folder `target` from the checkpoints in `folder`, in place of an older export.

    Raises UserError when something else is there.
    """
    check_target(target)
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    vae = autoencoder.trained(folder, config)
    decoder.load_trained(vae, folder)
    stored = np.load(folder / "whitening.npz")
    whiten(vae, torch.from_numpy(stored["mean"]), torch.from_numpy(stored["deviation"]))
    unet = denoiser.build(config)
    unet.load_state_dict(torch.load(folder / "denoiser.pt", weights_only=True)["averages"])
    for name, network in (("vae", vae), ("unet", unet)):
        save_network(network, part / name)
    save_text(model_folder(folder / "packages" / "minilm"), part, config["data"]["window"])
    scheduler = DDIMScheduler(
        **config["scheduler"],
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=0,
    )
    scheduler.save_pretrained(part / "scheduler")
    write(part / "model_index.json", INDEX)
    shutil.copy(CARD, part / "README.md")
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    for weights in target.rglob("*.safetensors"):
        weights.chmod(0o644)
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    print(f"export: {target}, {size / 1e6:.0f} MB", flush=True)


INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.42.0",
    "_squares_only": True,  # too few tall and wide pictures were seen to draw on
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "BertModel"],
    "tokenizer": ["transformers", "BertTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def save_network(network: nn.Module, folder: Path) -> None:
    """config.json and float16 weights."""
    network.save_config(folder)
    tensors = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})


def save_text(source: Path, target: Path, window: int) -> None:
    """The text encoder at float16 (but "float32" in its config, the type transformers loads in) and tokenizer.

    To keep the folder small: as many positions as the window has, and of the tokenizer only its vocabulary.
    """
    (target / "text_encoder").mkdir(parents=True)
    (target / "tokenizer").mkdir()
    tensors = {
        name.removeprefix("bert."): value.half()
        for name, value in load_file(source / "model.safetensors").items()
        if "position_ids" not in name
    }
    positions = "embeddings.position_embeddings.weight"
    tensors[positions] = tensors[positions][:window].contiguous()
    save_file(tensors, target / "text_encoder" / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config |= {"architectures": ["BertModel"], "dtype": "float32", "use_attention_mask": True}
    config["max_position_embeddings"] = window
    for key in ("_name_or_path", "torch_dtype", "transformers_version"):
        config.pop(key, None)
    write(target / "text_encoder" / "config.json", config)
    shutil.copy(source / "vocab.txt", target / "tokenizer")
    shutil.copy(source / "special_tokens_map.json", target / "tokenizer")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": window}
    specials = {
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "mask_token": "[MASK]",
    }
    write(target / "tokenizer" / "tokenizer_config.json", settings | specials)


def write(path: Path, value: object) -> None:
    """Readable JSON."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
