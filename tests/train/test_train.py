"""Training: configuration, resuming bit for bit, the autoencoder's start, the export."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from noisette.cli import run
from noisette.errors import UserError
from noisette.train import (
    STEPS,
    TARGET,
    autoencoder,
    check_ready,
    data,
    decoder,
    denoiser,
    examples,
    upscale,
)
from noisette.train.checkpoint import Run, keep_start, load_start
from noisette.train.config import read_config, rules
from noisette.train.export import check_target
from tests.train.toys import tiny, toy_pictures, vector_package

SHARES = "[denoiser]\nshares = {{ {} }}"
ALL = "white = {}, mirrored = 0.1, ground = 0.1, recoloured = 0.1, pair = 0.1, aspect = 0.0"
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
        (SHARES.format("whit = 1.0"), "unknown key denoiser.shares.whit; did you mean 'white'"),
        (SHARES.format("white = 1.0"), "denoiser.shares lacks aspect, ground, mirrored, pair, recoloured"),
        (SHARES.format(ALL.format(0.5)), "denoiser.shares .* add up to 0.9: 1 is right"),
        (SHARES.format(ALL.replace("aspect = 0.0", "aspect = 0.4").format(0.2)), "data.canvases is 0: take 1"),
        ("[denoiser]\nshares = { white = 'x' }", "denoiser.shares.white 'x' is not of type float"),
        ("[denoiser]\nbatch = 0", "denoiser.batch 0 is out of range: 1 or more"),
        ("[denoiser]\nbatch = true", "denoiser.batch True is not of type int"),
        ("[denoiser]\nempty = 1.5", "denoiser.empty 1.5 is out of range: 0 to 1"),
        ("[denoiser]\nheads = [4, 6]", r"denoiser.heads \[4, 6\] needs 3, as channels"),
        ("[denoiser]\nheads = [4, 5, 10]", r"denoiser.heads \[4, 5, 10\] do not divide denoiser.channels"),
        ("[denoiser]\nchannels = [128, 190, 320]", "are no multiples of 32"),
        ("[denoiser]\ncool_down = 0.0", "denoiser.cool_down 0.0 is out of range: more than 0"),
        ("[autoencoder]\nminutes = [1.0]", r"autoencoder.minutes \[1.0\] needs 2, as sides"),
        ("[autoencoder]\nbatch = [4, 0]", r"autoencoder.batch \[4, 0\] is out of range"),
        ("[autoencoder]\nsides = [100, 256]", r"autoencoder.sides \[100, 256\] is no multiple of 16"),
        ("[autoencoder]\nsides = ['a', 256]", "autoencoder.sides 'a' is not of type int"),
        ("[autoencoder]\nlatent_channels = 500", "autoencoder.latent_channels 500 is out of range: 3 to 160"),
        ("[data]\nheld_out = 0", "data.held_out 0 leaves none to teach or none to judge by"),
        ("[data]\ngroups = [3, 12]", r"data.groups \[3, 12\] are unknown to emojibase: 0 to 9"),
        ("[data]\nside = 250", "data.side 250 is no multiple of 16"),
        ("[data]\nrecoloured = 6", "data.recoloured 6 is more than there are: 5"),
        ("[log]\nevery = 0", "log.every 0 is out of range"),
        ("[card]\nprompts = []", r"card.prompts \[\] is empty"),
        ("[motion]\nheads = 7", "motion.heads 7 does not divide"),
        ("[image_encoder]\nchannels = [8, 8]", "image_encoder.channels .* needs 4"),
        ("[decoder]\ncritic = 6", "decoder.critic 6 is no multiple of 4"),
        ("[upscale]\npatch = 200", "upscale.patch 200 is more than half of data.side 256"),
        ("[packages]\nnoto = { kind = 'npm' }", "packages.noto lacks licence, name, sha256, version"),
        ("[scheduler]\nbeta_start = 0.5", "scheduler.beta_end 0.012 is not above beta_start 0.5"),
    ],
)
def test_configuration_mistakes_are_one_line(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "c.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=word) as caught:
        read_config(tmp_path / "c.toml")
    assert "\n" not in str(caught.value)


def test_the_shipped_configuration_and_the_tests_own_are_right(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("", encoding="utf-8")
    assert read_config(tmp_path / "c.toml", STEPS) == read_config(None)
    assert all(right for _, right, _ in rules(tiny(), ()))
    (tmp_path / "c.toml").write_text("[data]\nside = 128\n", encoding="utf-8")
    read_config(tmp_path / "c.toml", ("denoiser",))
    with pytest.raises(UserError, match=r"data\.side 128 does not suit the image encoder: 256 does"):
        read_config(tmp_path / "c.toml", STEPS)


def test_a_label_that_no_picture_has_is_told_at_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.toml").write_text("[data]\ncommon = ['disc0', 'dsic1']\n", encoding="utf-8")
    data.write_json(tmp_path / "pictures.json", toy_pictures()[0])
    arguments = ["denoiser", "--dir", str(tmp_path), "--config", str(tmp_path / "c.toml")]
    assert run("train", arguments) == 2
    said = capsys.readouterr().err
    assert "data.common 'dsic1' is the label of no picture; did you mean 'disc1'" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("step", ["evaluate", "all"])
def test_only_evaluate_needs_the_bench_and_says_so(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith(("noisette.judge", "skimage"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "skimage", None)
    assert run("train", ["denoiser", "--dir", str(tmp_path)]) == 2
    assert "needs noisette train data first" in capsys.readouterr().err
    assert run("train", [step, "--dir", str(tmp_path / "new")]) == 2
    said = capsys.readouterr().err
    assert said.endswith(": noisette train evaluate needs scikit-image: pip3 install -r requirements-bench.txt\n")
    assert said.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("file", ["thesis.txt", "model_index.json"])
def test_an_export_replaces_nothing_but_an_export(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "mine"
    target.mkdir()
    check_target(target)
    (target / file).write_text('{"_class_name": "StableDiffusionPipeline"}', encoding="utf-8")
    for step in ("export", "all"):
        assert run("train", [step, "--dir", str(tmp_path / "new"), "--to", str(target)]) == 2
        assert f"--to {target} is no exported model" in capsys.readouterr().err
    with pytest.raises(UserError, match="is no exported model"):
        check_target(target / file)
    assert [path.name for path in target.iterdir()] == [file]
    check_target(TARGET)


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
