"""What stands beside a checkpoint or changes it: CLIP skip, an IP-Adapter, motion modules, a small decoder.

No weights are read here either; the hub's client is imported when a hub id is given.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from noisette.checkpoint import (
    HUB_ID,
    IMAGE_ENCODER,
    IP_ADAPTER,
    MOTION,
    WEIGHTS,
    Checkpoint,
    motion_folder,
    read_json,
    weight_names,
)
from noisette.errors import UserError
from noisette.kinds import TEXT_2
from noisette.tensors import read_header, read_headers

OWN_VAE = "vae"  # of --preview_decoder: the model's own decoder
IP_ADAPTERS = ("models/ip-adapter_sd15.safetensors", "sdxl_models/ip-adapter_sdxl.safetensors")  # h94/IP-Adapter's


def with_clip_skip(checkpoint: Checkpoint, layers: int) -> Checkpoint:
    """The checkpoint whose text encoder ends so many layers earlier, its last norm kept.

    Stable Diffusion XL takes the states before the last layer of both encoders, not normed, and so many layers
    earlier; what it pools still comes from the last one.

    Counted as diffusers' `clip_skip`, whose pipeline leaves the negative prompt unskipped: here both prompts are
    read alike, as by the tools from which models with a clip skip come. Raises UserError for another encoder than
    CLIP's, or when no layer is left.
    """
    encoder = checkpoint.configs["text_encoder"]
    if encoder["model_type"] != "clip_text_model":
        raise UserError(f"--clip_skip {layers} is for CLIP text encoders: this model's is {encoder['model_type']}")
    is_xl = TEXT_2 in checkpoint.configs
    encoders = {name: checkpoint.configs[name] for name in ("text_encoder", TEXT_2)[: 1 + is_xl]}
    most = min(config["num_hidden_layers"] for config in encoders.values()) - (2 if is_xl else 1)
    if layers > most:
        raise UserError(f"--clip_skip {layers} leaves no layer of the text encoder: at most {most}")
    if is_xl:
        skipping = {name: config | {"clip_skip": layers} for name, config in encoders.items()}
    else:
        fewer = {"num_hidden_layers": encoder["num_hidden_layers"] - layers, "skipped_layers": layers}
        skipping = {"text_encoder": encoder | fewer}
    return replace(checkpoint, configs=checkpoint.configs | skipping)


def with_ip_adapter(checkpoint: Checkpoint, where: str) -> Checkpoint:
    """The checkpoint with an IP-Adapter (Ye et al. 2023) and the CLIP vision model that it looks through.

    `where`: FILE.safetensors with the folder image_encoder/ beside it, a hub id whose models/ or sdxl_models/ hold
    both for Stable Diffusion 1.5 or XL, or such an id with a file's name behind it: of the hub only the small
    configuration is fetched here. Raises UserError.
    """
    file = Path(where).expanduser()
    missing: tuple[str, ...] = ()
    match = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:/(.+\.safetensors))?", where)
    if not file.exists() and match:
        from noisette.hub import download

        name = match[2] or IP_ADAPTERS[TEXT_2 in checkpoint.configs]
        beside = f"{Path(name).parent.as_posix()}/{IMAGE_ENCODER}"
        root = download(match[1], [f"{beside}/config.json"])
        file, large = root / name, (name, f"{beside}/model.safetensors")
        missing = tuple(f"{match[1]}/{part}" for part in large if not (root / part).is_file())
    folder = file.parent / IMAGE_ENCODER
    if not file.is_file() and not missing:
        raise UserError(f"--ip_adapter {where}: no such file, nor a hub id (owner/name)")
    if file.suffix != ".safetensors":
        raise UserError(f"--ip_adapter {where} is no .safetensors file: others can run code on loading")
    if not (folder / "config.json").is_file():
        raise UserError(f"--ip_adapter {where}: {folder} with CLIP's vision model is missing beside it")
    if not missing:
        check_ip_adapter(where, file)
    parts = [f"{IMAGE_ENCODER}/{path.name}" for path in folder.iterdir()]
    names = weight_names(where, IMAGE_ENCODER, [f"{IMAGE_ENCODER}/model.safetensors"] if missing else parts)
    files = tuple(folder / Path(name).name for name in names)
    if not missing:
        read_headers(files)
    configs = checkpoint.configs | {IMAGE_ENCODER: read_json(folder / "config.json")}
    weights = checkpoint.weights | {IP_ADAPTER: (file,), IMAGE_ENCODER: files}
    return replace(checkpoint, configs=configs, weights=weights, downloads=(*checkpoint.downloads, *missing))


def check_ip_adapter(where: str, file: Path) -> None:
    """Raises UserError when the file of --ip_adapter `where`, which is here by now, is something else."""
    if not any(name.startswith("ip_adapter.") for name in read_header(file)):
        raise UserError(f"--ip_adapter {where} holds no tensors named ip_adapter.…: it is something else")


def with_motion(checkpoint: Checkpoint, where: str) -> Checkpoint:
    """The checkpoint with motion modules beside its UNet: "model" for its own, a folder, a hub id.

    Raises UserError: not there, damaged, or made for a UNet of other widths.
    """
    own = where == "model" and checkpoint.folder is not None
    folder = motion_folder(checkpoint.folder) if own and checkpoint.folder else Path(where).expanduser()
    missing: tuple[str, ...] = ()
    if not folder.exists() and HUB_ID.fullmatch(where):
        from noisette.hub import download

        folder = download(where, ["config.json"])
        missing = () if (folder / WEIGHTS).is_file() else (f"{where}/{WEIGHTS}",)
    if not (folder / "config.json").is_file():
        raise UserError(f"--motion_adapter {where}: no folder with config.json, as diffusers' MotionAdapter has it")
    config = read_json(folder / "config.json")
    widths, wanted = config.get("block_out_channels"), checkpoint.configs["unet"]["block_out_channels"]
    if list(widths or []) != list(wanted):
        raise UserError(f"--motion_adapter {where} is made for a UNet of widths {widths}, this one has {wanted}")
    names = [f"{MOTION}/{path.name}" for path in folder.iterdir()] if not missing else [f"{MOTION}/{WEIGHTS}"]
    files = tuple(folder / Path(name).name for name in weight_names(where, MOTION, names))
    if not missing:
        read_headers(files)
    configs, weights = checkpoint.configs | {MOTION: config}, checkpoint.weights | {MOTION: files}
    return replace(checkpoint, configs=configs, weights=weights, downloads=(*checkpoint.downloads, *missing))


def preview_weights(where: str, checkpoint: Checkpoint, download: bool) -> str:
    """The path of an AutoencoderTiny's weights, config.json beside it: in the folder `where` or behind a hub id.

    The id itself where nothing is to be downloaded. Raises UserError: not there, of another class, or for latents
    of other channels.
    """
    folder, channels = Path(where).expanduser(), checkpoint.configs["vae"].get("latent_channels", 4)
    if not folder.exists() and HUB_ID.fullmatch(where):
        from noisette import hub

        if not download:
            return where
        try:
            folder = hub.download(where, ["config.json", WEIGHTS])
        except UserError as error:
            raise UserError(f"--preview_decoder {where}: {error}; vae is the model's own") from None
    if not ((folder / "config.json").is_file() and (folder / WEIGHTS).is_file()):
        raise UserError(f"--preview_decoder {where}: no folder with config.json and {WEIGHTS}, nor vae")
    config = read_json(folder / "config.json")
    if config.get("_class_name") != "AutoencoderTiny":
        raise UserError(f"--preview_decoder {where} is of class {config.get('_class_name')}: AutoencoderTiny is read")
    if config.get("latent_channels", 4) != channels:
        raise UserError(
            f"--preview_decoder {where} is made for latents of {config.get('latent_channels', 4)} channels,"
            f" this model's have {channels}"
        )
    read_headers((folder / WEIGHTS,))
    return str(folder / WEIGHTS)
