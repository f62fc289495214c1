"""Text to tokens with the `tokenizers` library alone: CLIP's BPE, BERT's WordPiece, weights, long prompts."""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noisette.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

ROUND, SQUARE = 1.1, 1 / 1.1
MARKS = re.compile(r"\\[\\()\[\]]|\(|\[|:\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*\)|\)|\]|[^\\()\[\]:]+|:|\\")
CLIP_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def parse_weights(prompt: str) -> list[tuple[str, float]]:
    """A prompt as pieces with weights, in the notation of AUTOMATIC1111.

    `(word)` is 1.1, `[word]` 1/1.1, `(word:1.3)` 1.3; they nest and multiply. `\\(`, `\\)`, `\\[`, `\\]` and
    `\\\\` are the characters themselves. A bracket never closed counts to the end; one never opened is text.
    """
    pieces: list[tuple[str, float]] = []
    opened: list[tuple[str, int]] = []

    def weigh(start: int, factor: float) -> None:
        pieces[start:] = [(text, weight * factor) for text, weight in pieces[start:]]

    for match in MARKS.finditer(prompt):
        mark, number = match[0], match[1]
        inside = opened[-1][0] if opened else ""
        if mark in "([":
            opened.append((mark, len(pieces)))
        elif number is not None and inside == "(":
            weigh(opened.pop()[1], float(number))
        elif mark in ")]" and inside == {")": "(", "]": "["}[mark]:
            weigh(opened.pop()[1], ROUND if mark == ")" else SQUARE)
        else:
            pieces.append((mark[1:] if len(mark) == 2 and mark[0] == "\\" else mark, 1.0))
    for bracket, start in opened:
        weigh(start, ROUND if bracket == "(" else SQUARE)
    return merged(pieces) or [("", 1.0)]


def merged(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Neighbours of equal weight as one piece, so that an unweighted prompt is tokenized whole."""
    joined: list[tuple[str, float]] = []
    for text, weight in pieces:
        if joined and joined[-1][1] == weight:
            joined[-1] = (joined[-1][0] + text, weight)
        else:
            joined.append((text, weight))
    return joined


@dataclass(frozen=True)
class Tokenizer:
    """Text to ids, without truncation or padding; `window` is the text encoder's length with both ends."""

    backend: Backend
    bos: int
    eos: int
    pad: int
    window: int

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, without the two ends."""
        found: list[int] = self.backend.encode(text, add_special_tokens=False).ids
        return found

    def weighted(self, prompt: str) -> list[tuple[int, float]]:
        """Token ids of a prompt with their weights."""
        return [(i, weight) for text, weight in parse_weights(prompt) for i in self.ids(text)]

    def chunks(self, prompt: str) -> list[Chunk]:
        """A prompt in windows, each with its own ends; the last one padded. At least one."""
        tokens, room = self.weighted(prompt), self.window - 2
        return [self.chunk(tokens[i : i + room]) for i in range(0, max(len(tokens), 1), room)]

    def chunk(self, tokens: list[tuple[int, float]]) -> Chunk:
        """One window of at most `window` - 2 tokens: start, tokens, end, padding."""
        ids = [self.bos, *(i for i, _ in tokens), self.eos]
        weights = [1.0, *(weight for _, weight in tokens), 1.0]
        rest = self.window - len(ids)
        return Chunk(ids + [self.pad] * rest, weights + [1.0] * rest, [1] * len(ids) + [0] * rest)

    def cut_words(self, prompt: str) -> str:
        """The end of a prompt that one window has no room for, '' when it fits; begins at a word."""
        room = self.window - 2
        cut: list[str] = []
        for text, _ in parse_weights(prompt):
            offsets = self.backend.encode(text, add_special_tokens=False).offsets
            if len(offsets) > room:
                cut.append(text[offsets[room][0] :].strip())
            room = max(room - len(offsets), 0)
        return " ".join(cut)


@dataclass(frozen=True)
class Chunk:
    """One window of tokens, each list `window` long; `mask` is 0 for padding, else 1."""

    ids: list[int]
    weights: list[float]
    mask: list[int]


def load(files: Mapping[str, Path], config: Mapping[str, Any], window: int) -> Tokenizer:
    """A tokenizer from its files (tokenizer.json, vocab.json and merges.txt, merges.txt.gz, or vocab.txt).

    `config`: tokenizer_config.json; its pad_token pads (Stable Diffusion 1 with the end token, 2 with "!").
    `window`: the text encoder's positions; the tokenizer's model_max_length where that is smaller. Remembered as
    long as the files stay the same: a sweep of a thousand pictures asks a thousand times.
    """
    import json

    stamps = tuple((name, path, path.stat().st_mtime_ns) for name, path in sorted(files.items()))
    return loaded(stamps, json.dumps(config, sort_keys=True), window)


@lru_cache(maxsize=4)
def loaded(stamps: tuple[tuple[str, Path, int], ...], config_text: str, window: int) -> Tokenizer:
    """`load` of files that bear these stamps of time."""
    import json

    files, config = {name: path for name, path, _ in stamps}, json.loads(config_text)
    window = min(window, int(config.get("model_max_length", window)))
    backend = read_backend(files, config)
    backend.no_truncation()
    backend.no_padding()
    is_bert = backend.token_to_id("[CLS]") is not None
    first, last = ("cls_token", "sep_token") if is_bert else ("bos_token", "eos_token")
    start, end = ("[CLS]", "[SEP]") if is_bert else ("<|startoftext|>", "<|endoftext|>")
    bos = token_id(backend, token(config, first, start))
    eos = token_id(backend, token(config, last, end))
    pad = token_id(backend, token(config, "pad_token", "[PAD]" if is_bert else end))
    return Tokenizer(backend, bos, eos, pad, window)


def token_id(backend: Backend, name: str) -> int:
    """The id of a special token. Raises UserError when the vocabulary lacks it."""
    found: int | None = backend.token_to_id(name)
    if found is None:
        raise UserError(f"the tokenizer has no token {name}: it is neither CLIP's nor BERT's, or damaged")
    return found


def token(config: Mapping[str, Any], role: str, default: str) -> str:
    """A special token's text: configurations hold it as a string or as an object with `content`."""
    value = config.get(role) or default
    return str(value["content"] if isinstance(value, Mapping) else value)


def read_backend(files: Mapping[str, Path], config: Mapping[str, Any]) -> Backend:
    """The `tokenizers` object of whichever files there are."""
    import json

    from tokenizers import Tokenizer as Backend

    if "tokenizer.json" in files:
        return Backend.from_file(str(files["tokenizer.json"]))
    if "vocab.json" in files:
        merges = files["merges.txt"].read_text(encoding="utf-8").splitlines()
        return clip(json.loads(files["vocab.json"].read_text(encoding="utf-8")), merges, config)
    if "vocab.txt" in files:
        return bert(files["vocab.txt"].read_text(encoding="utf-8").splitlines(), config)
    merges = gzip.decompress(files["merges.txt.gz"].read_bytes()).decode("utf-8").splitlines()
    return clip(clip_vocabulary(merges), merges, config)


def clip(vocabulary: dict[str, int], merges: list[str], config: Mapping[str, Any]) -> Backend:
    """CLIP's byte-level BPE with `</w>` at word ends, lower-casing (Radford et al. 2021)."""
    from tokenizers import Regex, models, normalizers, pre_tokenizers
    from tokenizers import Tokenizer as Backend

    start, end = token(config, "bos_token", "<|startoftext|>"), token(config, "eos_token", "<|endoftext|>")
    pairs = [(left, right) for left, right in (line.split() for line in merges if line) if left != "#version:"]
    backend = Backend(
        models.BPE(vocabulary, pairs, continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token=end)
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CLIP_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    pad = token(config, "pad_token", end)  # a special token, so "!" in a prompt is one too (as transformers has it)
    backend.add_special_tokens([start, end, pad])
    return backend


def clip_vocabulary(merges: list[str]) -> dict[str, int]:
    """CLIP's 49,408 tokens from its merges: bytes, bytes at word ends, merged pairs, the two ends."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    characters = [chr(b) for b in printable] + [chr(256 + n) for n in range(256 - len(printable))]
    pairs = ["".join(line.split()) for line in merges[1:]]
    words = [*characters, *(c + "</w>" for c in characters), *pairs, "<|startoftext|>", "<|endoftext|>"]
    return {word: i for i, word in enumerate(words)}


def bert(words: list[str], config: Mapping[str, Any]) -> Backend:
    """BERT's WordPiece (Devlin et al. 2019), lower-casing unless do_lower_case is false."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, normalizers, pre_tokenizers

    backend = Backend(
        models.WordPiece({word: i for i, word in enumerate(words)}, unk_token=token(config, "unk_token", "[UNK]"))
    )
    lower = bool(config.get("do_lower_case", True))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lower, strip_accents=config.get("strip_accents"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    roles = {
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    }
    backend.add_special_tokens([token(config, role, default) for role, default in roles.items()])
    return backend
