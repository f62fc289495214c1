"""Training: configuration, resuming bit for bit, the autoencoder's start, the export."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from noisette.cli import run
from noisette.errors import UserError
from noisette.train import (
    autoencoder,
    check_ready,
    data,
    decoder,
    denoiser,
    examples,
    upscale,
)
from noisette.train.checkpoint import Run, keep_start, load_start
from noisette.train.config import read_config
from tests.train.toys import tiny, toy_pictures, vector_package

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[autoencoder]\nbacth = 3", "did you mean 'batch'"),
        ("[autoencodr]\nbatch = 3", "did you mean 'autoencoder'"),
        ("[denoiser]\nbatch = 'x'", "not of type int"),
        ("[data]\ndescribed = -1", "data.described -1 is out of range: 0 or more"),
        ("[denoiser]\nlearning_rate = nan", "learning_rate nan is out of range"),
        ("[autoencoder", "not TOML"),
    ],
)
def test_configuration_mistakes_are_one_line(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "c.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=word):
        read_config(tmp_path / "c.toml")


def test_missing_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", ["data", "--config", "nowhere.toml"]) == 2
    assert "nowhere.toml is not there" in capsys.readouterr().err


@pytest.mark.parametrize(
    "step", ["autoencoder", "denoiser", "decoder", "upscale", "image_encoder", "export", "motion"]
)
def test_a_step_out_of_turn_is_one_line_and_makes_nothing(
    step: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", [step, "--dir", str(tmp_path / "new"), "--to", str(tmp_path / "to")]) == 2
    assert f"noisette train {step} needs noisette train data first" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["motion", "sheet", "evaluate"])
def test_what_is_not_exported_can_not_be_looked_at(
    step: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "captions.json").write_text("[]", encoding="utf-8")
    assert run("train", [step, "--dir", str(tmp_path), "--to", str(tmp_path / "nowhere")]) == 2
    assert "nowhere is no folder of `noisette train export`" in capsys.readouterr().err


def test_a_started_autoencoder_counts_as_trained(tmp_path: Path) -> None:
    (tmp_path / "captions.json").write_text("[]", encoding="utf-8")
    with pytest.raises(UserError, match="needs noisette train autoencoder first"):
        check_ready("denoiser", tmp_path)
    (tmp_path / "start").mkdir()
    check_ready("denoiser", tmp_path)
    with pytest.raises(UserError, match="needs noisette train denoiser first"):
        check_ready("export", tmp_path)


def losses(folder: Path, config: dict[str, dict[str, Any]], steps: int) -> list[float]:
    """The losses of a small regression, resumed from `folder`, until `steps` in all."""
    torch.manual_seed(0)
    network = torch.nn.Linear(4, 4)
    training = Run(folder, "toy", network, torch.optim.AdamW(network.parameters(), lr=0.01), ema=0.9)
    training.resume()
    seen = []
    for _ in training.steps(minutes=9.0, checkpoint_minutes=9.0, every=1000):
        if training.step == steps:
            break
        x = torch.from_numpy(training.rng.normal(size=(8, 4)).astype(np.float32)) + torch.randn(8, 4)
        loss = (network(x) - x.flip(1)).square().mean()
        training.update(loss, 8)
        seen.append(loss.item())
        if training.step == 4:  # the state after the fifth step, as a kill right after a checkpoint leaves it
            training.step += 1
            training.save()
            training.step -= 1
    return seen


def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole = losses(tmp_path, tiny(), 10)
    resumed = losses(tmp_path, tiny(), 10)
    assert len(whole) == 10
    assert resumed == whole[5:]


def test_a_pause_is_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = torch.nn.Linear(2, 2)
    training = Run(tmp_path, "toy", network, torch.optim.AdamW(network.parameters()), ema=0.9)
    clock = iter([0.0, 2.0, 2000.0, 2003.0, 3000.0, 3000.0])
    monkeypatch.setattr("noisette.train.checkpoint.time.monotonic", lambda: next(clock))
    counted = list(training.steps(minutes=1.05, checkpoint_minutes=1e9, every=1000))
    assert counted == [0.0, 2 / 60, 62 / 60]
    assert training.seconds == 65.0


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 2)
    training = Run(tmp_path, "toy", network, torch.optim.AdamW(network.parameters()), ema=0.9)
    training.save()
    before = training.path.read_bytes()
    with pytest.raises(UserError, match="loss is nan"):
        training.update(network(torch.full((1, 2), float("nan"))).mean(), 1)
    assert training.path.read_bytes() == before


def test_the_autoencoder_starts_with_the_right_colours() -> None:
    """Halves of one colour come back as that colour before any training; diffusers' own start gives grey."""
    config = read_config(None)
    network = autoencoder.build(config).eval()
    green = np.full((1, 64, 64, 3), 255, np.uint8)
    green[:, 16:48, 16:48] = (40, 200, 60)
    red = green.copy()
    red[:, 16:48, 16:48] = (220, 30, 40)
    with torch.inference_mode():
        drawn = [network.decode(autoencoder.encode(network, autoencoder.to_pixels(p))).sample for p in (green, red)]
    centres = [picture[0, :, 28:36, 28:36].mean((1, 2)) for picture in drawn]
    assert centres[0].argmax() == 1
    assert centres[1].argmax() == 0


def test_the_steps_run_through_to_a_folder_that_diffusers_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Data of four pictures, some steps of each network, export, and a picture drawn by plain diffusers."""
    from noisette.train import export
    from noisette.train.text import load_text_encoder  # noqa: F401  (its package is stood in for below)
    from tests.tiny import BERT_WORDS, bert_tokenizer

    config = tiny()
    entries, cut_outs = toy_pictures()
    np.save(tmp_path / "pictures.npy", cut_outs)
    data.write_json(tmp_path / "pictures.json", entries)
    made = examples.make_examples(entries, cut_outs, config["data"])
    texts = ["", *sorted({text for example in made for text in example.captions})]
    data.write_json(tmp_path / "captions.json", texts)
    states = np.random.default_rng(0).normal(size=(len(texts), 8, 384)).astype(np.float16)
    np.save(tmp_path / "text.npy", states)
    autoencoder.train(tmp_path, config)
    config["autoencoder"]["minutes"][1] += 0.005
    autoencoder.train(tmp_path, config)  # resumes
    autoencoder.train(tmp_path, config)
    checkpoints: list[float] = []
    denoiser.train(tmp_path, config, checkpoints.append)
    assert checkpoints[-1] >= config["denoiser"]["minutes"]
    decoder.train(tmp_path, config)
    assert "decoder, latents as guessed" in capsys.readouterr().out
    taught, started = (torch.load(tmp_path / f"{name}.pt") for name in ("decoder", "autoencoder"))
    for name, value in taught["averages"].items():
        part, _, inner = name.partition(".")
        if part == "autoencoder":
            kept = torch.equal(value, started["averages"][inner])
            assert kept == (inner.split(".")[0] not in decoder.PARTS)
    log = [json.loads(line) for line in (tmp_path / "denoiser.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {"step", "seconds", "loss", "samples_a_second"} == set(log[0])

    from transformers import BertConfig, BertModel

    package = tmp_path / "packages" / "minilm"
    sizes = {"hidden_size": 384, "intermediate_size": 32, "num_attention_heads": 4, "num_hidden_layers": 1}
    BertModel(BertConfig(**sizes, vocab_size=len(BERT_WORDS))).save_pretrained(package)
    bert_tokenizer().save_pretrained(package)
    (package / "vocab.txt").write_text("\n".join(BERT_WORDS) + "\n", encoding="utf-8")
    (package / "special_tokens_map.json").write_text("{}", encoding="utf-8")
    vector_package(tmp_path / "packages" / "noto", "red")
    vector_package(tmp_path / "packages" / "fluent-flat", "blue")
    upscale.train(tmp_path, config)
    upscale.export(tmp_path, config, tmp_path / "model-upscale")
    export.export(tmp_path, config, tmp_path / "model")

    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "model", safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    (picture,) = pipeline("a red cat", num_inference_steps=2, height=32, width=32).images
    assert picture.size == (32, 32)
    stored = np.load(tmp_path / "latents.npz")
    for name, numbers in zip(stored.files, denoiser.by_canvas(made).values(), strict=True):
        drawn = np.stack([examples.draw(made[i], cut_outs) for i in numbers])
        encoded = pipeline.vae.encode(autoencoder.to_pixels(drawn)).latent_dist
        assert float(encoded.std.detach().max()) < 1e-6
        np.testing.assert_allclose(encoded.mean.detach().numpy(), stored[name].astype(np.float32), atol=0.02)

    again = tmp_path / "again"  # another folder goes on from what was exported
    again.mkdir()
    for name in ("pictures.npy", "pictures.json", "captions.json", "text.npy"):
        (again / name).write_bytes((tmp_path / name).read_bytes())
    shutil.copytree(tmp_path / "packages", again / "packages")
    keep_start(again, tmp_path / "model")
    config["denoiser"]["learning_rate"] = 0.0
    config["data"] |= {"canvases": 0, "pairs": 0}  # other examples: the latents stay what the other networks know
    denoiser.train(again, config, lambda minutes: None)
    export.export(again, config, again / "model")
    for part, most in (("unet", 1e-2), ("vae", 0.0)):
        one, other = (load_file(f / "model" / part / WEIGHTS) for f in (tmp_path, again))
        assert one.keys() == other.keys()
        assert all((one[key].float() - other[key].float()).abs().max() <= most for key in one)


def test_what_training_starts_from_must_be_an_export_of_the_same_shape(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder of `noisette train export`"):
        keep_start(tmp_path, tmp_path / "nowhere")
    network = torch.nn.Linear(2, 3)
    assert not load_start(network, tmp_path, "unet")
    (tmp_path / "start" / "unet").mkdir(parents=True)
    save_file(torch.nn.Linear(2, 2).state_dict(), tmp_path / "start" / "unet" / WEIGHTS)
    with pytest.raises(UserError, match="not of this configuration: size mismatch"):
        load_start(network, tmp_path, "unet")
