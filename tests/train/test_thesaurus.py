"""The thesaurus that training leaves: what is said of each taught thing, none of what is held out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from noisette import thesaurus as reader
from noisette.train import data, thesaurus
from noisette.train.text import encode, lengths, load_text_encoder, pooled
from tests.tiny import BERT_WORDS, bert_tokenizer
from tests.train.toys import tiny

ENTRIES = [
    {"label": "cat", "tags": ["Kitten", "cat"], "described": ["a small house cat"], "group": 3, "held_out": False},
    {"label": "house", "tags": ["kitten"], "described": [], "group": 4, "held_out": False},
    {"label": "dog", "tags": ["puppy"], "described": [], "group": 3, "held_out": True},
    {"label": "flag", "tags": ["cloth"], "described": [], "group": 9, "held_out": False},
]


def test_what_is_said_of_taught_things_each_once() -> None:
    assert thesaurus.sayings(ENTRIES, [3, 4]) == {
        "cat": [["kitten", "cat"], ["a small house cat"]],
        "house": [["kitten"], []],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A training folder with those entries and a tiny text encoder."""
    from transformers import BertConfig, BertModel

    package = tmp_path / "packages" / "minilm"
    sizes = {"hidden_size": 64, "intermediate_size": 32, "num_attention_heads": 4, "num_hidden_layers": 1}
    BertModel(BertConfig(**sizes, vocab_size=len(BERT_WORDS))).save_pretrained(package)
    bert_tokenizer().save_pretrained(package)
    data.write_json(tmp_path / "pictures.json", ENTRIES)
    return tmp_path


def test_each_thing_is_found_by_what_is_said_of_it(folder: Path) -> None:
    config = tiny()
    thesaurus.export(folder, config, folder / "model-thesaurus")
    assert json.loads((folder / "model-thesaurus" / "names.json").read_text(encoding="utf-8")) == {
        "labels": ["cat", "house"],
        "others": ["kitten"],
    }
    known = reader.load(folder / "model-thesaurus")
    tokenizer, encoder = load_text_encoder(folder / "packages" / "minilm", config["data"]["window"])
    texts = ["cat", "kitten", "a small house cat", "house", "kitten"]
    wanted = pooled(encode(tokenizer, encoder, texts).numpy(), lengths(tokenizer, texts))
    np.testing.assert_allclose(known.vectors, wanted, atol=0.01)
    assert known.of.tolist() == [0, 0, 0, 1, 1]
    assert known.nearest(wanted[3]) == "house"
