"""The data: packages fetched by name and hash, pictures on white, captions, and the captions' text states."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from noisette.errors import UserError
from noisette.train.captions import descriptions
from noisette.train.config import Config
from noisette.train.examples import make_examples
from noisette.train.wordnet import Nouns

SKIN_TONES = {"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"}
GENDERS = {"2640", "2642"}
VARIATION = "fe0f"


def fetch(folder: Path, key: str, package: dict[str, str]) -> Path:
    """The unpacked package, fetched unless it is there. Raises UserError when that fails or the hash differs."""
    done = folder / "packages" / key
    if done.is_dir():
        return done
    folder = folder / "packages"
    folder.mkdir(parents=True, exist_ok=True)
    incoming = folder / f"{key}.incoming"
    shutil.rmtree(incoming, ignore_errors=True)
    incoming.mkdir()
    name, version = package["name"], package["version"]
    commands = {
        "npm": ["npm", "pack", "--silent", f"{name}@{version}"],
        "pypi": ["pip3", "download", "--quiet", "--no-deps", f"{name}=={version}"],
    }
    try:
        subprocess.run(commands[package["kind"]], cwd=incoming, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is needed to fetch {name}: install it first") from None
    except subprocess.CalledProcessError as error:
        raise UserError(f"fetching {name} {version} failed: {error.stderr.strip().splitlines()[-1:]}") from None
    archive = next(incoming.iterdir())
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != package["sha256"]:
        raise UserError(f"{name} {version} has changed: its hash is {digest}, not {package['sha256']}")
    unpacked = incoming / "unpacked"
    if archive.suffix == ".whl":
        zipfile.ZipFile(archive).extractall(unpacked)
    else:
        with tarfile.open(archive) as tar:
            tar.extractall(unpacked, filter="data")
    unpacked.replace(done)
    shutil.rmtree(incoming)
    return done


def plain(code: str) -> str:
    """A sequence of code points without the variation selector."""
    return "-".join(part for part in code.lower().split("-") if part != VARIATION)


def labels(emojibase: Path, emojilib: Path) -> dict[str, dict[str, Any]]:
    """Code points -> label and tags: emojibase's, then emojilib's keywords."""
    found = {}
    for entry in json.loads((emojibase / "package/en/data.json").read_text(encoding="utf-8")):
        found[plain(entry["hexcode"])] = {
            "label": entry["label"].lower(),
            "tags": list(entry.get("tags", [])),
            "group": entry.get("group"),
        }
    words = json.loads((emojilib / "package/dist/emoji-en-US.json").read_text(encoding="utf-8"))
    for text, keywords in words.items():
        code = plain("-".join(f"{ord(character):04x}" for character in text))
        if code in found:
            found[code]["tags"] += [keyword.replace("_", " ") for keyword in keywords]
    return found


def is_held_out(label: str, share: float) -> bool:
    """Whether a concept is kept from all training, by its name alone: the same in every set and every run."""
    return int.from_bytes(hashlib.sha256(label.encode()).digest()[:4], "big") < share * 2**32


def open_picture(path: Path, side: int) -> np.ndarray:
    """A picture as uint8 [side, side, 4], red green blue alpha."""
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGBA").resize((side, side), Image.Resampling.LANCZOS))


def prepare(folder: Path, config: Config) -> None:
    """Writes pictures.npy [N, side, side, 4] and pictures.json (what is said of each, its source), unless there."""
    if (folder / "pictures.json").exists():
        return
    settings, packages = config["data"], config["packages"]
    places = {key: fetch(folder, key, package) for key, package in packages.items()}
    known = labels(places["emojibase"], places["emojilib"])
    nouns, described = Nouns(places["wordnet"]), descriptions()
    entries, pictures = [], []
    source = packages["fluent-3d"]
    for path in sorted((places["fluent-3d"] / "package" / "assets").glob("*.webp")):
        entry = known.get(plain(path.stem))
        if entry is None or (SKIN_TONES | GENDERS) & set(path.stem.split("-")):
            continue
        pictures.append(open_picture(path, settings["side"]))
        held_out = is_held_out(entry["label"], settings["held_out"])
        licence = {"source": f"{source['name']} {source['version']}", "licence": source["licence"]}
        described_as = [*nouns.captions(entry["label"], entry["group"]), *described.get(entry["label"], [])]
        entries.append({"code": path.stem, **entry, "described": described_as, "held_out": held_out, **licence})
    np.save(folder / "pictures.npy", np.stack(pictures))
    write_json(folder / "pictures.json", entries)
    print(f"data: {len(entries)} pictures, {sum(e['held_out'] for e in entries)} held out", flush=True)


def read_pictures(folder: Path) -> tuple[list[dict[str, Any]], np.ndarray]:
    """What is known of each picture, and the cut-outs uint8 [N, side, side, 4]."""
    entries = json.loads((folder / "pictures.json").read_text(encoding="utf-8"))
    return entries, np.load(folder / "pictures.npy", mmap_mode="r")


def prepare_text(folder: Path, config: Config) -> None:
    """The captions' text states, computed once: captions.json and text.npy [N, window, width]; text 0 is empty."""
    if (folder / "captions.json").exists():
        return
    from noisette.train.text import encode, load_text_encoder

    window = config["data"]["window"]
    examples = make_examples(*read_pictures(folder), config["data"])
    texts = ["", *sorted({text for example in examples for text in example.captions if text})]
    tokenizer, encoder = load_text_encoder(folder / "packages" / "minilm", window)
    shape = (len(texts), window, encoder.config.hidden_size)
    states = np.lib.format.open_memmap(folder / "text.npy", "w+", np.float16, shape)
    for first in range(0, len(texts), 64):
        states[first : first + 64] = encode(tokenizer, encoder, texts[first : first + 64]).numpy()
    states.flush()
    write_json(folder / "captions.json", texts)
    print(f"data: {len(examples)} examples, {len(texts)} captions", flush=True)


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    part.replace(path)
