"""What a model consists of, told from its small files: configurations, weight files, tokenizer.

No weights are read. `locate` takes a diffusers folder, a single .safetensors file or a hub id. Standard
library only; the hub's client is imported when a hub id is given.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from noisette import ldm_configs, ldm_keys, ldm_tensors
from noisette.errors import UserError
from noisette.kinds import A_REFINER, NETWORKS, TEXT_2, VIDEO_KINDS, check_known, kind_of, networks_of
from noisette.tensors import Tensor, read_header, read_headers

IP_ADAPTER, IMAGE_ENCODER = "ip_adapter", "image_encoder"
MOTION, WEIGHTS = "motion_adapter", "diffusion_pytorch_model.safetensors"
LARGEST_CLIP = 1280
STEMS = ("diffusion_pytorch_model", "model")
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt", "tokenizer_config.json",
                   "special_tokens_map.json")  # fmt: skip
PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
CLIP_MERGES = Path(__file__).parent / "models" / "clip" / "merges.txt.gz"
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


@dataclass(frozen=True)
class Checkpoint:
    """A model on this disk, or known by its small files with the weights to be fetched.

    `configs`: component -> configuration ("tokenizer": tokenizer_config.json over special_tokens_map.json;
    "pipeline": model_index.json, where there is one).
    `weights`: network -> its safetensors files; one file holds all networks when `is_ldm`.
    `tokenizer`, `tokenizer_2`: file name -> path, as far as there are any of TOKENIZER_FILES, or merges.txt.gz.
    `kind`: "sd", "sdxl", both also as "…-inpaint" (`masked`), "wan" or "ltx-video".
    `downloads`: what `fetch` would download, "owner/name/file" each.
    """

    model: str
    kind: str
    configs: dict[str, dict[str, Any]]
    weights: dict[str, tuple[Path, ...]]
    tokenizer: dict[str, Path]
    is_ldm: bool = False
    downloads: tuple[str, ...] = ()
    tokenizer_2: dict[str, Path] = field(default_factory=dict)

    def tensors(self, network: str) -> dict[str, Tensor]:
        """The tensors of one of the networks under the names of diffusers and transformers.

        CLIP's begin with "text_model.", but for its projection's; BERT's do not begin with "bert.". Each is a plain
        run of bytes in its file (`Tensor.start`, `.end`), whatever the file called it. Raises UserError for a
        damaged file.
        """
        stored = read_headers(self.weights[network])
        if self.is_ldm:
            return ldm_tensors.of_network(stored, network, self.configs)
        text = self._text_name
        rename = {"vae": ldm_keys.new_vae_name, "text_encoder": text, TEXT_2: text}.get(network, str)
        return {rename(name): tensor for name, tensor in stored.items()}

    @property
    def masked(self) -> bool:
        """Whether the UNet also takes a mask and the masked picture's latents."""
        return self.kind.endswith("-inpaint")

    @property
    def upcasts_vae(self) -> bool:
        """Whether the VAE overflows float16 and runs in float32 instead, as diffusers' XL pipelines have it."""
        return TEXT_2 in self.configs and bool(self.configs["vae"].get("force_upcast", True))

    @property
    def vae_scale_factor(self) -> int:
        """The grid in pixels that a canvas keeps to: of Stable Diffusion a latent's side, else a token's."""
        vae = self.configs["vae"]
        if "transformer" in self.configs:
            patch = self.configs["transformer"].get("patch_size", 1)
            return self.pixels_to_a_latent * int(patch[-1] if isinstance(patch, list) else patch)
        is_tiny = vae.get("_class_name") == "AutoencoderTiny"
        blocks = vae["encoder_block_out_channels" if is_tiny else "block_out_channels"]
        return int(2 ** (len(blocks) - 1))

    @property
    def native_side(self) -> int:
        """The side of the square that the model was trained on, in pixels; models of whole clips take many sizes."""
        if "transformer" in self.configs:
            return LARGEST_CLIP
        return side_of(self.configs["unet"]["sample_size"]) * self.vae_scale_factor

    @property
    def pixels_to_a_latent(self) -> int:
        """Along each side, of models of whole clips."""
        vae = self.configs["vae"]
        if self.kind == "wan":
            return int(vae.get("scale_factor_spatial") or 8)
        return int(
            vae.get("spatial_compression_ratio") or vae["patch_size"] * 2 ** sum(vae["spatio_temporal_scaling"])
        )

    @property
    def frames_to_a_latent(self) -> int:
        """Frames that one latent stands for, but for the first, which stands for one."""
        vae = self.configs["vae"]
        if self.kind == "wan":
            return int(vae.get("scale_factor_temporal") or 4)
        if self.kind == "ltx-video":
            patch, scaling = vae.get("patch_size_t", 1), vae["spatio_temporal_scaling"]
            return int(vae.get("temporal_compression_ratio") or patch * 2 ** sum(scaling))
        return 1

    @property
    def first_frame(self) -> str:
        """Whether a clip can begin with a given picture: "never", "may" or "must"."""
        if self.kind != "wan" or self.configs["pipeline"].get("expand_timesteps"):
            return "may"
        beside = self.configs["transformer"]["in_channels"] > self.configs["vae"]["z_dim"]
        return "must" if beside else "never"

    @property
    def squares_only(self) -> bool:
        """Whether the model was taught squares alone (`_squares_only` in its model_index.json)."""
        return bool(self.configs.get("pipeline", {}).get("_squares_only", False))

    @property
    def folder(self) -> Path | None:
        """The diffusers folder, if it is one."""
        return None if self.is_ldm else self.weights["vae"][0].parent.parent

    @property
    def image_encoder(self) -> Path | None:
        """The folder MODEL-image-encoder beside the model's own (`noisette train image_encoder`), if there is one."""
        return self._beside("image-encoder", "config.json")

    @property
    def thesaurus(self) -> Path | None:
        """The folder MODEL-thesaurus beside the model's own (`noisette train thesaurus`), if there is one."""
        return self._beside("thesaurus", "names.json")

    @property
    def sees(self) -> bool:
        """Whether a picture can stand for a prompt: by an IP-Adapter or by an image encoder beside the model."""
        return IP_ADAPTER in self.weights or self.image_encoder is not None

    @property
    def own_motion(self) -> dict[str, Any]:
        """The configuration of the model's own motion modules, as AnimateDiff has them; {} without."""
        config = None if self.folder is None else motion_folder(self.folder) / "config.json"
        return read_json(config) if config is not None and config.is_file() else {}

    def _beside(self, what: str, file: str) -> Path | None:
        """The folder MODEL-`what` beside the model's own, if it is one and holds `file`."""
        if self.folder is None:
            return None
        beside = self.folder.with_name(f"{self.folder.name}-{what}")
        return beside if (beside / file).is_file() else None

    def _text_name(self, name: str) -> str:
        if self.configs["text_encoder"]["model_type"] == "bert":
            return name.removeprefix("bert.")
        if name.startswith("text_projection."):
            return name
        return "text_model." + name.removeprefix("text_model.")

    @cached_property
    def weight_hashes(self) -> dict[str, str]:
        """SHA-256 of each weight file, by its name under the model ("vae/model.safetensors")."""
        files = {path: network for network, paths in self.weights.items() for path in paths}
        return {path.name if self.is_ldm else f"{n}/{path.name}": file_hash(path) for path, n in files.items()}

    @cached_property
    def weights_hash(self) -> str:
        """One SHA-256 for all weights: a single file's own, or that of the sorted 'hash  name' lines."""
        if self.is_ldm:
            return next(iter(self.weight_hashes.values()))
        lines = "".join(f"{value}  {name}\n" for name, value in sorted(self.weight_hashes.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


def side_of(sample_size: Any) -> int:
    """A configuration's sample_size: one number, or [height, width], of which the smaller side is surely met."""
    return int(min(sample_size) if isinstance(sample_size, list) else sample_size)


def not_skipped(names: Iterable[str], config: Mapping[str, Any]) -> list[str]:
    """The names of a network's tensors but for those in text layers that `adapters.with_clip_skip` leaves out."""
    kept, skipped = config.get("num_hidden_layers", 0), config.get("skipped_layers", 0)
    layers = tuple(f"text_model.encoder.layers.{i}." for i in range(kept, kept + skipped))
    return [name for name in names if not name.startswith(layers)]


def locate(model: str, prediction_type: str | None = None) -> Checkpoint:
    """The checkpoint behind a folder, a .safetensors file or a hub id, whose weights are not fetched yet.

    `prediction_type` ("epsilon", "v_prediction") replaces what the model says; an original 2.x file does not
    say. Raises UserError within seconds: unknown, unreachable, a pickle, damaged, not Stable Diffusion.
    """
    path = Path(model).expanduser()
    if path.suffix.lower() in PICKLES:
        raise UserError(f"{model} is a pickle, which can run code on loading; {convert_hint(path)}")
    if path.is_dir():
        return from_folder(model, path, prediction_type)
    if path.is_file():
        return from_file(model, path, prediction_type)
    if not HUB_ID.fullmatch(model) or path.suffix == ".safetensors":
        raise UserError(f"no model {model}: not a folder, not a .safetensors file, not a hub id (owner/name)")
    from noisette.hub import find

    folder, names, downloads = find(model)
    return from_folder(model, folder, prediction_type, names, downloads)


def fetch(checkpoint: Checkpoint) -> Checkpoint:
    """The same checkpoint with all weights on this disk and their files whole. Raises UserError."""
    wanted: dict[str, list[str]] = {}
    for name in checkpoint.downloads:
        owner, repository, file = name.split("/", 2)
        wanted.setdefault(f"{owner}/{repository}", []).append(file)
    for model, files in wanted.items():
        from noisette.hub import download

        download(model, files)
    for paths in checkpoint.weights.values():
        read_headers(paths)
    return checkpoint


def from_folder(
    model: str,
    folder: Path,
    prediction_type: str | None = None,
    names: Iterable[str] | None = None,
    downloads: tuple[str, ...] = (),
) -> Checkpoint:
    """A diffusers folder. `names`: the files it has or will have; `downloads` of them are still to come."""
    names = list(names) if names is not None else [p.relative_to(folder).as_posix() for p in folder.glob("*/*")]
    index = folder / "model_index.json"
    if not index.is_file():
        raise UserError(f"{model} is no diffusers folder: model_index.json is missing")
    pipeline = read_json(index)
    if pipeline.get("_class_name") in VIDEO_KINDS:
        return of_clips(model, folder, pipeline, names, downloads)
    check_known(model, pipeline)
    networks = networks_of(pipeline)
    tokenizers = ("tokenizer", "tokenizer_2") if TEXT_2 in networks else ("tokenizer",)
    components = (*networks, *tokenizers, "scheduler")
    for component in components:
        if not any(name.startswith(component + "/") for name in names):
            raise UserError(f"{model} has no {component}: a Stable Diffusion folder holds {', '.join(components)}")
    configs = {network: read_json(folder / network / "config.json") for network in networks}
    configs["scheduler"] = read_json(folder / "scheduler" / "scheduler_config.json")
    configs |= {tokenizer: tokenizer_config(folder / tokenizer) for tokenizer in tokenizers}
    configs["pipeline"] = pipeline
    if prediction_type:
        configs["scheduler"]["prediction_type"] = prediction_type
    weights = {n: tuple(folder / name for name in weight_names(model, n, names)) for n in networks}
    files = [tokenizer_files(folder / tokenizer) for tokenizer in tokenizers]
    if not downloads:
        for paths in weights.values():
            read_headers(paths)
    kind = kind_of(model, configs)
    return Checkpoint(model, kind, configs, weights, files[0], downloads=downloads, tokenizer_2=files[-1])


def tokenizer_config(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json over special_tokens_map.json, as far as they are there."""
    files = (folder / name for name in ("special_tokens_map.json", "tokenizer_config.json"))
    return {key: value for path in files if path.is_file() for key, value in read_json(path).items()}


def tokenizer_files(folder: Path) -> dict[str, Path]:
    """Those of TOKENIZER_FILES that are there."""
    return {name: path for name in TOKENIZER_FILES if (path := folder / name).is_file()}


def of_clips(
    model: str, folder: Path, pipeline: dict[str, Any], names: list[str], downloads: tuple[str, ...]
) -> Checkpoint:
    """A diffusers folder of a model of whole clips. Raises UserError for a component without its files."""
    networks = networks_of(pipeline)
    for component in ("transformer", "vae", "text_encoder", "tokenizer", "scheduler"):
        if not any(name.startswith(component + "/") for name in names):
            raise UserError(f"{model} has no {component}, which its model_index.json names")
    configs = {network: read_json(folder / network / "config.json") for network in networks}
    configs |= {"scheduler": read_json(folder / "scheduler" / "scheduler_config.json"), "pipeline": pipeline}
    weights = {n: tuple(folder / name for name in weight_names(model, n, names)) for n in networks}
    if not downloads:
        for paths in weights.values():
            read_headers(paths)
    return Checkpoint(model, VIDEO_KINDS[pipeline["_class_name"]], configs, weights, {}, downloads=downloads)


def motion_folder(model: Path) -> Path:
    """Where a model's own motion modules are: MODEL/motion_adapter as diffusers saves them, else MODEL-motion."""
    inside = model / MOTION
    return inside if inside.is_dir() else model.with_name(f"{model.name}-motion")


def from_file(model: str, path: Path, prediction_type: str | None = None) -> Checkpoint:
    """An original Stable Diffusion file (ldm names), its configurations told from the shapes."""
    stored = read_header(path)
    if not ldm_configs.is_ldm(stored):
        if any(name.startswith(ldm_keys.REFINER) for name in stored):
            raise UserError(f"{model} {A_REFINER}")
        raise UserError(f"{model} is not Stable Diffusion 1.x, 2.x or XL: its networks are not all in it")
    configs = ldm_configs.configs(stored, prediction_type)
    weights: dict[str, tuple[Path, ...]] = {n: (path,) for n in (*NETWORKS, TEXT_2) if n in configs}
    merges = {"merges.txt.gz": CLIP_MERGES}
    return Checkpoint(model, kind_of(model, configs), configs, weights, merges, is_ldm=True, tokenizer_2=merges)


def weight_names(model: str, network: str, names: Iterable[str]) -> list[str]:
    """The safetensors files of one network out of all file names: the full precision ones, all shards.

    A variant (".fp16.") is taken only when there is nothing else. Raises UserError for pickles alone.
    """
    ours = sorted(name for name in names if name.startswith(network + "/"))
    for variant in ("", ".fp16"):
        shard = rf"{network}/({'|'.join(STEMS)}){re.escape(variant)}(-\d{{5}}-of-\d{{5}})?\.safetensors"
        found = [name for name in ours if re.fullmatch(shard, name)]
        if found:
            return [name for name in found if "-of-" not in name] or found
    if any(name.endswith(PICKLES) for name in ours):
        raise UserError(f"{model} has {network} only as a pickle; {convert_hint(None)}")
    raise UserError(f"{model} has no weights for {network}: no .safetensors file in {network}/")


def convert_hint(path: Path | None) -> str:
    """The way from a pickle to safetensors."""
    if path is None:
        return "convert it where you trust it: DiffusionPipeline.from_pretrained(model).save_pretrained(folder)"
    return (
        'convert it where you trust it: python3 -c "import torch, safetensors.torch as s;'
        f" d = torch.load('{path.name}', weights_only=True); s.save_file({{k: v.contiguous().clone()"
        f" for k, v in d.get('state_dict', d).items() if hasattr(v, 'shape')}}, '{path.stem}.safetensors')\""
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises UserError when the file is missing or not one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged: not a JSON object")
    return value


def cache_folder() -> Path:
    """Where this program keeps what it can make again: NOISETTE_CACHE, or the platform's cache folder."""
    if "NOISETTE_CACHE" in os.environ:
        return Path(os.environ["NOISETTE_CACHE"])
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "noisette"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "noisette"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "noisette"


def file_hash(path: Path) -> str:
    """SHA-256 of a file, remembered by path, size and time of change where the cache can be written."""
    status = path.stat()
    key = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
    memo = cache_folder() / "hashes" / hashlib.sha256(key.encode()).hexdigest()
    if memo.is_file() and re.fullmatch(r"[0-9a-f]{64}", text := memo.read_text(encoding="ascii", errors="replace")):
        return text
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    try:
        memo.parent.mkdir(parents=True, exist_ok=True)
        part = memo.with_suffix(f".{os.getpid()}")
        part.write_text(digest.hexdigest(), encoding="ascii")
        part.replace(memo)
    except OSError:
        pass
    return digest.hexdigest()
