"""How well a picture fits a text: the cosine between the two in a space that an image and a text encoder share.

`noisette-1`, or any model with an image encoder beside it (`noisette train image_encoder`): the space of its own
pooled text states; it knows what the model was taught and little else. A folder with a CLIP model in the form of
transformers (OpenAI's, or OpenCLIP's converted): CLIPScore (Hessel et al. 2021, eq. 1) is 2.5 max(cosine, 0).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from noisette import clips, engines, image_prompt, pixels
from noisette.catalog import MODELS
from noisette.clip_fields import parse_travel
from noisette.errors import UserError
from noisette.families import stable_diffusion
from noisette.motion import along
from noisette.plan import plan
from noisette.reading import Picture, read
from noisette.recipe import Recipe

Vector = NDArray[np.float32]

FRAMES = 8  # of a clip, evenly chosen
INSTALL = "pip3 install -r requirements-torch.txt"


class Judge(Protocol):
    """Two encoders into one space. `about` names them, `key` is another for other weights."""

    about: str
    key: str

    def text(self, prompt: str) -> Vector:
        """Unit vector [D]."""
        ...

    def picture(self, picture: Picture) -> Vector:
        """Unit vector [D]."""
        ...


def find(name: str) -> Judge:
    """The judge of a name or folder; loads nothing before it is asked. Raises UserError."""
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file() and name not in MODELS:
        return Clip(folder)
    if name not in MODELS and "/" not in name and not folder.exists():
        raise UserError(f"--similarity {name!r} is unknown: noisette-1, or a folder with a CLIP model")
    return Own(name)


class Own:
    """A model's text encoder, pooled, and the image encoder that lies beside the model."""

    def __init__(self, name: str) -> None:
        planned = plan(Recipe(model=name, seed="0"), download=False)
        folder = planned.checkpoint.image_encoder
        if folder is None:
            raise UserError(
                f"--similarity {name} has no image encoder beside it (`noisette train image_encoder` makes one):"
                " name a folder with a CLIP model, as transformers has it"
            )
        self._plan, self._encoder = planned, image_prompt.load(folder)
        self.about = f"cosine between a picture and its prompt by {folder.name}"
        self.key = self._encoder.hash[:12] + planned.checkpoint.weights_hash[:12]

    @cached_property
    def _networks(self) -> engines.Networks:
        return engines.load(plan(self._plan.recipe))

    def text(self, prompt: str) -> Vector:
        """The mean of the states of the prompt's first window, as the image encoder was trained on."""
        return stable_diffusion.load(self._networks, self._plan.checkpoint).pooled(prompt)

    def picture(self, picture: Picture) -> Vector:
        """By the image encoder's second head."""
        checkpoint = self._plan.checkpoint
        latents = image_prompt.latents(self._encoder, checkpoint, self._networks, picture)
        return unit(self._encoder.encode(latents)[1][0])


class Clip:
    """A CLIP model of transformers (Radford et al. 2021) in a local folder, at float32."""

    def __init__(self, folder: Path) -> None:
        if find_spec("transformers") is None or find_spec("torch") is None:
            raise UserError(f"--similarity {folder} needs torch and transformers: {INSTALL}")
        try:
            kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(f"--similarity {folder}: config.json can't be read: {error}") from None
        if kind != "clip":
            raise UserError(f"--similarity {folder} holds a model of type {kind!r}: a CLIP model is needed")
        if not (folder / "model.safetensors").is_file():
            raise UserError(f"--similarity {folder} has no model.safetensors (only safetensors are loaded)")
        self._folder = folder
        stat = (folder / "model.safetensors").stat()
        self.about = f"cosine between a picture and its prompt by the CLIP model in {folder.resolve().name}"
        self.key = f"{folder.resolve().name}-{stat.st_size}-{stat.st_mtime_ns}"

    @cached_property
    def _parts(self) -> tuple[Any, Any, Any]:
        from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

        place = str(self._folder)
        try:
            model: Any = CLIPModel.from_pretrained(place, use_safetensors=True, local_files_only=True)
            tokenizer: Any = CLIPTokenizer.from_pretrained(place, local_files_only=True)
            processor: Any = CLIPImageProcessor.from_pretrained(place, local_files_only=True)
        except (OSError, ValueError) as error:
            raise UserError(f"--similarity {place} can't be loaded: {str(error).partition(chr(10))[0]}") from None
        return model.float().eval(), tokenizer, processor

    def text(self, prompt: str) -> Vector:
        """The projected state of the end token; words beyond the model's window are cut."""
        import torch

        model, tokenizer, _ = self._parts
        longest = model.config.text_config.max_position_embeddings
        words = tokenizer(prompt, truncation=True, max_length=longest, return_tensors="pt")
        with torch.inference_mode():
            state = model.text_model(words.input_ids, attention_mask=words.attention_mask).pooler_output
            return unit(model.text_projection(state)[0].numpy())

    def picture(self, picture: Picture) -> Vector:
        """The projected class token of the picture as the model's own processor prepares it."""
        import torch
        from PIL import Image

        model, _, processor = self._parts
        values = processor(Image.fromarray(pixels.rounded(pixels.shown(picture))), return_tensors="pt").pixel_values
        with torch.inference_mode():
            return unit(model.visual_projection(model.vision_model(values).pooler_output)[0].numpy())


def unit(vector: Vector) -> Vector:
    """Of length one."""
    result: Vector = (vector / np.linalg.norm(vector)).astype(np.float32)
    return result


def similarity(judge: Judge, path: Path, prompt: str, times: int = 1, loop: bool = False) -> float:
    """The cosine, -1 to 1, of a picture and a text; of a clip the mean over FRAMES frames. Raises UserError.

    A prompt that changes on the way is met as a clip is made of it: between its frames by mixtures, in a `loop` back
    to the first, and `times` as far apart where so many frames are made of one.
    """
    if not clips.is_clip(path):
        return float(judge.picture(read(path)) @ judge.text(prompt))
    count = clips.probe(path).num_frames
    chosen = {round(i * (count - 1) / (FRAMES - 1)) for i in range(FRAMES)}
    said = said_at([(frame * times, judge.text(text)) for frame, text in parse_travel(prompt)], count, loop)
    found = []
    for i, frame in enumerate(clips.frames(path)):
        if i in chosen:
            found.append(float(judge.picture(Picture(frame)) @ said[i]))
    return float(np.mean(found))


def said_at(stations: Sequence[tuple[int, Vector]], num_frames: int, loop: bool = False) -> Vector:
    """The texts that hold at each frame [F, D], of unit vectors at some of them."""
    return along(np.stack([text for _, text in stations]), [frame for frame, _ in stations], num_frames, loop)
