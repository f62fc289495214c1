"""The thesaurus: what is said of each taught thing, as the text encoder has it. Nothing is trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from noisette.thesaurus import VECTORS, quantized
from noisette.train.config import Config
from noisette.train.data import write_json
from noisette.train.text import encode, lengths, load_text_encoder, pooled
from noisette.wording import NAMES


def sayings(entries: list[dict[str, object]], groups: list[int]) -> dict[str, list[list[str]]]:
    """Labels that are taught -> their other names (tags) and what else is said of them, in small letters."""
    found: dict[str, list[list[str]]] = {}
    for entry in entries:
        if not entry["held_out"] and entry["group"] in groups:
            parts = found.setdefault(str(entry["label"]), [[], []])
            for part, texts in zip(parts, (entry["tags"], entry["described"]), strict=True):
                small = (str(text).lower() for text in texts)  # type: ignore[attr-defined]
                part += dict.fromkeys(text for text in small if text not in part)
    return found


def export(folder: Path, config: Config, target: Path) -> None:
    """Writes names.json and the vectors of all that is said to `target`."""
    entries = json.loads((folder / "pictures.json").read_text(encoding="utf-8"))
    found = sayings(entries, config["data"]["groups"])
    texts, of = [], []
    for number, (label, (tags, described)) in enumerate(found.items()):
        said = list(dict.fromkeys([label, *tags, *described]))
        texts += said
        of += [number] * len(said)
    tokenizer, encoder = load_text_encoder(folder / "packages" / "minilm", config["data"]["window"])
    count = lengths(tokenizer, texts)
    vectors = np.zeros((len(texts), encoder.config.hidden_size), np.int8)
    for first in range(0, len(texts), 64):
        part = slice(first, first + 64)
        vectors[part] = quantized(pooled(encode(tokenizer, encoder, texts[part]).numpy(), count[part]))
    target.mkdir(parents=True, exist_ok=True)
    save_file({"vectors": vectors, "of": np.array(of, np.int32)}, target / VECTORS)
    (target / VECTORS).chmod(0o644)
    others = {tag for tags, _ in found.values() for tag in tags} - set(found)
    write_json(target / NAMES, {"labels": list(found), "others": sorted(others)})
    size = (target / VECTORS).stat().st_size / 1e6
    print(f"thesaurus: {target}, {len(found)} things, {len(texts)} texts, {size:.0f} MB", flush=True)
