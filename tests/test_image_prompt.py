"""Image prompts: NumPy's encoder is torch's, a base stands for the prompt as far as it is asked to, and with an
IP-Adapter the picture is diffusers'."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
)
from diffusers.models.embeddings import IPAdapterPlusImageProjection
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from noisette import engines, image_prompt
from noisette.errors import UserError
from noisette.generate import generate
from noisette.plan import plan
from noisette.recipe import Recipe
from noisette.train.data import write_json
from noisette.train.image_encoder import ImageEncoder
from tests import tiny

SETTINGS = {"channels": [8, 8, 16, 16], "hidden": 24, "rank": 6}


def write_encoder(folder: Path, tokens: int, width: int) -> ImageEncoder:
    """A random image encoder as `noisette train export` leaves it."""
    torch.manual_seed(3)
    network = ImageEncoder(16, SETTINGS, tokens, width).eval()
    folder.mkdir(parents=True)
    save_file({name: value.half() for name, value in network.state_dict().items()}, folder / "model.safetensors")
    write_json(folder / "config.json", network.config)
    return network.half().float()


def test_numpy_encodes_as_torch_does(tmp_path: Path) -> None:
    network = write_encoder(tmp_path / "encoder", 5, 12)
    latents = np.random.default_rng(0).normal(size=(3, 16, 16, 16)).astype(np.float32)
    states, vectors = image_prompt.load(tmp_path / "encoder").encode(latents)
    with torch.inference_mode():
        wanted = network(torch.from_numpy(latents))
    np.testing.assert_allclose(states, wanted[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(vectors, wanted[1].numpy(), atol=1e-5)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A tiny checkpoint with an image encoder beside it, and a base picture."""
    tiny.save("bert", tmp_path / "model")
    config = plan(Recipe(model=str(tmp_path / "model"), seed="1"), tmp_path).checkpoint.configs
    encoder = config["text_encoder"]
    write_encoder(tmp_path / "model-image-encoder", 32, encoder["hidden_size"])
    shades = np.linspace(0, 255, 64 * 96 * 3).reshape(96, 64, 3).astype(np.uint8)
    Image.fromarray(shades).save(tmp_path / "base.png")
    return tmp_path / "model"


def drawn(model: Path, **fields: object) -> np.ndarray:
    base = str(model.parent / "base.png")
    recipe = {"model": str(model), "base_img": base, "seed": "1", "num_inference_steps": 2, "guidance_scale": 2.0}
    planned = plan(Recipe(**(recipe | fields)), model.parent)
    (result,) = generate(planned, engines.load(planned))
    assert ("image_encoder" in result.facts) == bool(planned.recipe.image_prompt)
    return result.picture.data.astype(int)


def test_at_one_the_prompt_is_forgotten_and_at_nothing_the_base(model: Path) -> None:
    assert (drawn(model, prompt="cat", image_prompt=1.0) == drawn(model, prompt="house", image_prompt=1.0)).all()
    assert (drawn(model, prompt="cat", image_prompt=0.0) == drawn(model, prompt="cat")).all()
    assert (drawn(model, prompt="cat", image_prompt=0.0) != drawn(model, prompt="house", image_prompt=0.0)).any()
    assert (drawn(model, prompt="cat", image_prompt=1.0) != drawn(model, prompt="cat", image_prompt=0.0)).any()


def test_a_variation_looks_at_its_base_unless_told_not_to(model: Path, tmp_path: Path) -> None:
    base = str(tmp_path / "base.png")
    filled = plan(Recipe(model=str(model), base_img=base, variation=True, seed="1"), tmp_path).recipe
    assert filled.image_prompt == 1.0
    said = plan(Recipe(prompt="cat", model=str(model), base_img=base, variation=True, seed="1"), tmp_path).recipe
    assert said.image_prompt is not None
    assert 0 < said.image_prompt < 1
    assert plan(Recipe(prompt="cat", model=str(model), base_img=base, seed="1"), tmp_path).recipe.image_prompt is None


def test_without_a_base_or_an_encoder_it_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--image_prompt 0.5 needs --base_img"):
        plan(Recipe(model=str(model), image_prompt=0.5), tmp_path)
    base = str(tmp_path / "base.png")
    (tmp_path / "model-image-encoder" / "config.json").unlink()
    with pytest.raises(UserError, match="needs an image encoder"):
        plan(Recipe(model=str(model), base_img=base, image_prompt=0.5), tmp_path)


def test_a_damaged_encoder_is_one_line(model: Path) -> None:
    (model.parent / "model-image-encoder" / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match="no image encoder that can be read"):
        drawn(model, image_prompt=0.5)


def write_adapter(folder: Path, pipeline: StableDiffusionPipeline, plus: bool) -> Path:
    """A random IP-Adapter for a tiny UNet, and its CLIP vision model, as h94/IP-Adapter keeps them."""
    torch.manual_seed(5)
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes = {"image_size": 32, "patch_size": 8, "projection_dim": 12}
    encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(**vision, **sizes))
    encoder.save_pretrained(folder / "image_encoder")
    unet = pipeline.unet
    wide = unet.config.cross_attention_dim
    if plus:
        resampler = IPAdapterPlusImageProjection(
            embed_dims=16, output_dims=wide, hidden_dims=wide, depth=4, dim_head=64, heads=1, num_queries=4
        )
        state = {f"image_proj.{plus_name(key)}": value for key, value in resampler.state_dict().items()}
        for layer in range(4):
            halves = [state.pop(f"image_proj.layers.{layer}.attn.to_{key}.weight") for key in "kv"]
            state[f"image_proj.layers.{layer}.0.to_kv.weight"] = torch.cat(halves)
    else:
        state = {
            "image_proj.proj.weight": torch.randn(4 * wide, 12),
            "image_proj.proj.bias": torch.randn(4 * wide),
            "image_proj.norm.weight": torch.ones(wide),
            "image_proj.norm.bias": torch.zeros(wide),
        }
    number = 1
    for name in unet.attn_processors:
        if name.endswith("attn2.processor"):
            layer = unet.get_submodule(name.removesuffix(".processor"))
            for key in ("to_k", "to_v"):
                shape = getattr(layer, key).weight.shape
                state[f"ip_adapter.{number}.{key}_ip.weight"] = torch.randn(shape) / 3
            number += 2
    save_file({key: value.contiguous() for key, value in state.items()}, folder / "adapter.safetensors")
    return folder / "adapter.safetensors"


def plus_name(name: str) -> str:
    """diffusers' name of a resampler's tensor in the original's words."""
    for new, old in (
        ("ln0", "0.norm1"),
        ("ln1", "0.norm2"),
        ("attn.to_q", "0.to_q"),
        ("attn.to_out.0", "0.to_out"),
        ("ff.0", "1.0"),
        ("ff.1.net.0.proj", "1.1"),
        ("ff.1.net.2", "1.3"),
    ):
        name = re.sub(rf"(layers\.\d)\.{re.escape(new)}", rf"\1.{old}", name)
    return name


@pytest.mark.parametrize(("style", "plus"), [("sd1", False), ("sd1", True), ("sdxl", False)])
def test_an_ip_adapter_gives_the_picture_that_diffusers_gives(tmp_path: Path, style: str, plus: bool) -> None:
    pipeline = tiny.save(style, tmp_path / "model")
    adapter = write_adapter(tmp_path / "models", pipeline, plus)
    shades = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(shades).save(tmp_path / "base.png")
    recipe = Recipe(
        prompt="a cat", base_img=str(tmp_path / "base.png"), model=str(tmp_path / "model"), seed="3", sampler="ddim",
        num_inference_steps=4, strength=1.0, guidance_scale=3.0, ip_adapter=str(adapter), image_prompt=0.7,
    )  # fmt: skip
    planned = plan(recipe, tmp_path)
    assert planned.engine == "torch"
    (result,) = generate(planned, engines.load(planned))

    state = load_file(adapter)
    parts = {
        part: {key.removeprefix(part + "."): value for key, value in state.items() if key.startswith(part)}
        for part in ("image_proj", "ip_adapter")
    }
    kind, unsafe = {
        "sd1": (StableDiffusionImg2ImgPipeline, {"requires_safety_checker": False}),
        "sdxl": (StableDiffusionXLImg2ImgPipeline, {"add_watermarker": False}),
    }[style]
    pipeline = kind(
        **pipeline.components
        | {
            "image_encoder": CLIPVisionModelWithProjection.from_pretrained(tmp_path / "models" / "image_encoder"),
            "feature_extractor": CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32),
        },
        **unsafe,
    )
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.load_ip_adapter(parts, subfolder="", weight_name="")
    pipeline.set_ip_adapter_scale(0.7)
    pipeline.set_progress_bar_config(disable=True)
    base = Image.open(tmp_path / "base.png")
    (wanted,) = pipeline(
        "a cat", image=base, ip_adapter_image=base, strength=1.0, num_inference_steps=4, guidance_scale=3.0,
        generator=torch.Generator().manual_seed(3),
    ).images  # fmt: skip
    assert np.abs(result.picture.data.astype(int) - np.asarray(wanted).astype(int)).max() <= 2
    plain = generate(plan(replace(recipe, image_prompt=0.0), tmp_path), engines.load(planned))
    assert (next(plain).picture.data != result.picture.data).any()


@pytest.mark.parametrize(("style", "folder"), [("sd1", "models"), ("sdxl", "sdxl_models")])
def test_a_hub_id_gives_the_adapter_of_the_models_kind(
    style: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planned by the image encoder's configuration alone; the weights are fetched when it is to run."""
    write_adapter(tmp_path / "source", tiny.save(style, tmp_path / "model"), plus=False)
    Image.new("RGB", (64, 64)).save(tmp_path / "base.png")
    hub, asked = tmp_path / "hub", []

    def download(model: str, names: list[str]) -> Path:
        asked.append((model, names))
        for name in names:
            (hub / name).parent.mkdir(parents=True, exist_ok=True)
            source = next((tmp_path / "source").rglob(Path(name).name if "encoder" in name else "*.safetensors"))
            (hub / name).write_bytes(source.read_bytes())
        return hub

    monkeypatch.setattr("noisette.hub.download", download)
    recipe = Recipe(
        model=str(tmp_path / "model"), base_img=str(tmp_path / "base.png"), seed="1", ip_adapter="h94/IP-Adapter"
    )
    adapter = f"{folder}/ip-adapter_{'sdxl' if style == 'sdxl' else 'sd15'}.safetensors"
    large = [adapter, f"{folder}/image_encoder/model.safetensors"]
    found = plan(recipe, tmp_path, download=False)
    assert asked == [("h94/IP-Adapter", [f"{folder}/image_encoder/config.json"])]
    assert found.describe()["downloads"] == [f"h94/IP-Adapter/{name}" for name in large]
    assert plan(recipe, tmp_path).checkpoint.weights["ip_adapter"] == (hub / adapter,)
    assert asked[2:] == [("h94/IP-Adapter", large)]
    assert plan(recipe, tmp_path, download=False).checkpoint.downloads == ()


def test_an_ip_adapter_that_is_none_is_one_line(tmp_path: Path) -> None:
    tiny.save("sd1", tmp_path / "model")
    Image.new("RGB", (64, 64)).save(tmp_path / "base.png")
    asked = Recipe(model=str(tmp_path / "model"), base_img=str(tmp_path / "base.png"), seed="1")
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "pickle.bin").write_bytes(b"")
    for name, said in (
        ("nowhere.safetensors", "no such file"),
        ("pickle.bin", "no .safetensors file"),
        ("other.safetensors", "vision model is missing beside it"),
    ):
        with pytest.raises(UserError, match=said):
            plan(replace(asked, ip_adapter=str(tmp_path / name)), tmp_path)
    (tmp_path / "image_encoder").mkdir()
    (tmp_path / "image_encoder" / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="it is something else"):
        plan(replace(asked, ip_adapter=str(tmp_path / "other.safetensors")), tmp_path)
    good = str(write_adapter(tmp_path / "good", tiny.pipeline("sd1"), plus=False))
    with pytest.raises(UserError, match="runs on --engine torch"):
        plan(replace(asked, ip_adapter=good, engine="openvino"), tmp_path)
