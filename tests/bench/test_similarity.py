"""Text-image similarity: each judge against its own encoders called by hand, on tiny random models."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from noisette import codecs
from noisette.bench import similarity
from noisette.bench.similarity import Clip, Own, said_at
from noisette.cli import main
from noisette.errors import UserError
from noisette.reading import Picture, read
from tests import tiny
from tests.bench.test_report import data_of
from tests.test_image_prompt import write_encoder

WORDS = [
    "<|startoftext|>",
    "<|endoftext|>",
    "a</w>",
    "red</w>",
    "cat</w>",
    "a",
    "c",
    "t</w>",
    "r",
    "e",
    "d</w>",
    "at</w>",
]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random CLIP model as `save_pretrained` leaves it."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    folder = tmp_path_factory.mktemp("a clip model")
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**small, "vocab_size": len(WORDS), "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1}
    config = CLIPConfig(
        text_config=text, vision_config={**small, "image_size": 32, "patch_size": 8}, projection_dim=12
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(WORDS)}))
    (folder / "merges.txt").write_text("#version: 0.2\na t</w>\n")
    return folder


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random checkpoint with an image encoder beside it."""
    folder = tmp_path_factory.mktemp("own")
    tiny.save("bert", folder / "model")
    width = json.loads((folder / "model" / "text_encoder" / "config.json").read_text())["hidden_size"]
    write_encoder(folder / "model-image-encoder", 32, width)
    return folder / "model"


@pytest.fixture(scope="module")
def made(own: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of four pictures by the tiny checkpoint."""
    folder = tmp_path_factory.mktemp("store")
    flags = ["--model", str(own), "-W", "64", "-H", "64", "--steps", "1", "--out", str(folder)]
    assert main(["sweep", *flags, "--sweep", "prompt=cat,house", "seed=0..1"]) == 0
    return folder


def test_clip_is_its_models_own_cosine(clip: Path, tmp_path: Path) -> None:
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

    picture = np.random.default_rng(0).integers(0, 256, (40, 56, 3)).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    inputs = {
        **CLIPTokenizer.from_pretrained(clip)("a red cat", return_tensors="pt"),
        **CLIPImageProcessor.from_pretrained(clip)(Image.fromarray(picture), return_tensors="pt"),
    }
    with torch.inference_mode():
        outputs = CLIPModel.from_pretrained(clip)(**inputs)
    wanted = float(outputs.text_embeds[0] @ outputs.image_embeds[0])
    judge = similarity.find(str(clip))
    assert isinstance(judge, Clip)
    assert similarity.similarity(judge, tmp_path / "a.png", "a red cat") == pytest.approx(wanted, abs=1e-5)
    assert np.isfinite(similarity.similarity(judge, tmp_path / "a.png", "cat " * 50))


def test_a_models_own_judge_pools_its_text_states(own: Path, made: Path) -> None:
    from transformers import BertModel

    judge = similarity.find(str(own))
    assert isinstance(judge, Own)
    chunk = similarity.stable_diffusion.load(judge._networks, judge._plan.checkpoint).tokenizer.chunks("cat")[0]
    count = sum(chunk.mask)
    encoder = BertModel.from_pretrained(own / "text_encoder")
    with torch.inference_mode():
        states = encoder(torch.tensor([chunk.ids]), torch.tensor([chunk.mask])).last_hidden_state[0, :count]
    wanted = states.mean(0).numpy()
    np.testing.assert_allclose(judge.text("cat"), wanted / np.linalg.norm(wanted), atol=1e-4)
    vector = judge.picture(read(next((made / "cells").iterdir())))
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_the_built_in_judge_tells_what_noisette_draws(tmp_path: Path) -> None:
    prompts = ("a red apple", "a sailboat")
    for prompt in prompts:
        assert main(["image", "--prompt", prompt, "--steps", "6", "--seed", "0", "--out", str(tmp_path)]) == 0
    judge = similarity.find("noisette-1")
    found = {
        (prompt, text): similarity.similarity(judge, next(tmp_path.glob(f"{prompt.replace(' ', '_')}-*.png")), text)
        for prompt in prompts
        for text in prompts
    }
    for own, other in (prompts, prompts[::-1]):
        assert found[own, own] > found[own, other] + 0.1


def test_a_report_holds_it_and_keeps_it(own: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["report", str(made), "--similarity", str(own)]) == 0
    data = data_of(made / "report.html")
    first = [entry["n"]["similarity"] for entry in data["entries"]]
    assert len(first) == 4
    assert len(set(first)) > 1
    assert all(-1 <= value <= 1 for value in first)
    assert any("image-encoder" in note for note in data["notes"])

    def refuse(self: Own, picture: object) -> None:
        raise AssertionError("kept numbers are not computed again")

    monkeypatch.setattr(Own, "picture", refuse)
    assert main(["report", str(made), "--similarity", str(own)]) == 0
    assert [entry["n"]["similarity"] for entry in data_of(made / "report.html")["entries"]] == first


def test_measure_takes_the_files_prompt_or_another(own: Path, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(next((made / "cells").glob("cat-*.png")))
    found = []
    for more in ([], ["--prompt", "cat"], ["--prompt", "house"]):
        assert main(["measure", path, "--similarity", str(own), "--json", *more]) == 0
        found.append(json.loads(capsys.readouterr().out)["similarity"])
    assert found[0] == found[1] != found[2]


class Angles:
    """Texts are the ends of a quarter circle, and so are black and white."""

    about, key = "angles", "angles"

    def text(self, prompt: str) -> np.ndarray:
        return self._at({"a": 0.0, "b": 1.0}[prompt])

    def picture(self, picture: Picture) -> np.ndarray:
        return self._at(picture.data.mean() / 255)

    def _at(self, share: float) -> np.ndarray:
        return np.array([np.cos(share * np.pi / 2), np.sin(share * np.pi / 2)], np.float32)


def test_a_clip_is_held_against_what_is_said_at_each_frame() -> None:
    stations = [(2, Angles().text("a")), (6, Angles().text("b"))]
    for loop, last in ((False, 1.0), (True, 0.5)):
        said = said_at(stations, 9, loop)
        shares = np.arctan2(said[:, 1], said[:, 0]) / (np.pi / 2)
        np.testing.assert_allclose(shares[:7], [0, 0, 0, 0.25, 0.5, 0.75, 1], atol=1e-6)
        assert shares[8] == pytest.approx(last, abs=0.11)


@pytest.mark.parametrize(("times", "prompt"), [(1, "0: a; 8: b"), (2, "0: a; 4: b")])
def test_frames_between_two_prompts_are_held_against_what_lies_between(
    times: int, prompt: str, tmp_path: Path
) -> None:
    frames = [np.full((16, 16, 3), round(255 * i / 8), np.uint8) for i in range(9)]
    codecs.encode(tmp_path / "a.mkv", frames, codecs.CODECS["ffv1"], (16, 16), Fraction(8))
    found = similarity.similarity(Angles(), tmp_path / "a.mkv", prompt, times)
    assert found == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("report store --similarity nowhere", "'nowhere' is unknown"),
        ("report store --similarity other", "type 'bert': a CLIP model is needed"),
        ("report store --similarity pickled", "no model.safetensors"),
        ("report store --similarity torn", "can't be read"),
        ("measure store --prompt cat", "--prompt needs --similarity"),
    ],
)
def test_mistakes(
    words: str, wanted: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for name, text in (("other", '{"model_type": "bert"}'), ("pickled", '{"model_type": "clip"}'), ("torn", "{")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(text)
    assert main([str(made) if word == "store" else word for word in words.split()]) == 2
    error = capsys.readouterr().err
    assert wanted in error
    assert error.count("\n") == 1


def test_a_model_without_an_image_encoder_says_so(tmp_path: Path) -> None:
    tiny.save("bert", tmp_path / "model")
    with pytest.raises(UserError, match="no image encoder beside it"):
        similarity.find(str(tmp_path / "model"))
