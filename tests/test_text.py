"""Tokens equal to transformers', weights in brackets, prompts in windows."""

import json
from pathlib import Path

import pytest
from transformers import BertTokenizer, CLIPTokenizer

from noisette import text
from noisette.checkpoint import CLIP_MERGES, locate
from tests.tiny import BERT_WORDS, save, with_plain_vocabulary

PROMPTS = [
    "",
    "alien",
    "A Cat, in  the\tHOUSE!",
    "it's 4k, dslr!!! (best) [quality] 100%",
    "naïve café — Ünïcödé 漢字 🦊 e\u0301",
    "<|endoftext|> inside <|startoftext|>",
    "hello ! world !important",
    "word " * 100,
]


def tokenizer_of(folder: Path) -> text.Tokenizer:
    found = locate(str(folder))
    return text.load(
        found.tokenizer, found.configs["tokenizer"], found.configs["text_encoder"]["max_position_embeddings"]
    )


def check_equal(ours: text.Tokenizer, theirs: object, prompt: str) -> None:
    padded = theirs(prompt, padding="max_length", truncation=True, max_length=ours.window)  # type: ignore[operator]
    tokens = [(i, 1.0) for i in ours.ids(prompt)]
    first = ours.chunk(tokens[: ours.window - 2])
    assert first.ids == padded["input_ids"]
    assert first.mask == padded["attention_mask"]


@pytest.mark.parametrize("style", ["sd1", "sd2", "bert"])
def test_tokenizer_json_equals_transformers(style: str, tmp_path: Path) -> None:
    pipe = save(style, tmp_path)
    for prompt in PROMPTS:
        check_equal(tokenizer_of(tmp_path), pipe.tokenizer, prompt)


@pytest.mark.parametrize("style", ["sd1", "sd2"])
def test_vocabulary_and_merges_equal_transformers(style: str, tmp_path: Path) -> None:
    save(style, tmp_path)
    with_plain_vocabulary(tmp_path)
    theirs = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")
    for prompt in PROMPTS:
        check_equal(tokenizer_of(tmp_path), theirs, prompt)


@pytest.mark.parametrize("lower", [True, False])
def test_bert_vocabulary_equals_transformers(lower: bool, tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(BERT_WORDS) + "\n", encoding="utf-8")
    config = {"do_lower_case": lower, "model_max_length": 32, "tokenizer_class": "BertTokenizer"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    theirs = BertTokenizer.from_pretrained(tmp_path)
    ours = text.load({"vocab.txt": tmp_path / "vocab.txt"}, config, 64)
    assert ours.window == 32
    for prompt in PROMPTS:
        if "<|" not in prompt:
            check_equal(ours, theirs, prompt)


def test_whole_clip_vocabulary() -> None:
    ours = text.load({"merges.txt.gz": CLIP_MERGES}, {}, 77)
    assert ours.backend.get_vocab_size() == 49408
    assert (ours.bos, ours.eos, ours.pad) == (49406, 49407, 49407)
    assert ours.ids("a photo of an astronaut riding a horse on mars") == [
        320, 1125, 539, 550, 18376, 6765, 320, 4558, 525, 7496,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("prompt", "pieces"),
    [
        ("", [("", 1)]),
        ("plain", [("plain", 1)]),
        ("a (b) c", [("a ", 1), ("b", 1.1), (" c", 1)]),
        ("a (b:1.3) c", [("a ", 1), ("b", 1.3), (" c", 1)]),
        ("(b: .5 )", [("b", 0.5)]),
        ("(b:-1)", [("b", -1)]),
        ("[b]", [("b", 1 / 1.1)]),
        ("((b))", [("b", 1.21)]),
        ("(a (b:1.5):2)", [("a ", 2), ("b", 3)]),
        (r"\(b\) \[c\] \\", [(r"(b) [c] \ ".rstrip(), 1)]),
        ("(open", [("open", 1.1)]),
        ("smile :)", [("smile :)", 1)]),
        ("(a]", [("a]", 1.1)]),
        ("ratio 16:9 (x:y)", [("ratio 16:9 ", 1), ("x:y", 1.1)]),
        ("[b:1.3]", [("b:1.3", 1 / 1.1)]),
        ("(:1.3)", [("", 1)]),
        ("trailing \\", [("trailing \\", 1)]),
        ("1.5) x", [("1.5) x", 1)]),
        ("a:1.5) x", [("a:1.5) x", 1)]),
    ],
)
def test_weights(prompt: str, pieces: list[tuple[str, float]]) -> None:
    found = text.parse_weights(prompt)
    assert [piece for piece, _ in found] == [piece for piece, _ in pieces]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in pieces])


def test_windows_each_have_their_ends() -> None:
    ours = text.load({"merges.txt.gz": CLIP_MERGES}, {"pad_token": "!"}, 77)
    chunks = ours.chunks("cat " * 75 + "dog")
    assert [len(chunk.ids) for chunk in chunks] == [77, 77]
    assert all(chunk.ids[0] == ours.bos for chunk in chunks)
    assert chunks[0].ids[-1] == ours.eos
    assert chunks[1].ids == [ours.bos, *ours.ids("dog"), ours.eos] + [0] * 74
    assert chunks[1].mask == [1] * 3 + [0] * 74
    assert len(ours.chunks("cat " * 75)) == 1


def test_weights_stay_with_their_tokens() -> None:
    ours = text.load({"merges.txt.gz": CLIP_MERGES}, {}, 77)
    (chunk,) = ours.chunks("a (red:1.5) cat")
    assert chunk.weights[:6] == [1, 1, 1.5, 1, 1, 1]
    assert chunk.ids[:5] == [ours.bos, *ours.ids("a red cat"), ours.eos]


def test_cut_words_begin_where_the_window_ends() -> None:
    ours = text.load({"merges.txt.gz": CLIP_MERGES}, {}, 8)
    assert ours.cut_words("one two three four five six") == ""
    assert ours.cut_words("one two (three:1.2) four five six seven eight") == "seven eight"
    assert ours.cut_words("(" + "cat " * 10 + ") dog") == "cat cat cat cat dog"
    assert ours.cut_words("(one two three four five six seven) (eight) (nine)") == "seven eight nine"
