"""`noisette train evaluate`: what a trained model can do, measured by an eye of its own.

features.py       an ImageNet classifier that no training loss has seen
motion.py         what moves in a clip, and how steadily
measures.py       hue, ground, things, distances
drawing.py        the pictures that are judged, each drawn once and kept
paraphrases.toml  what is asked in other words, and things.toml: in colours, on grounds, in pairs
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tomllib
from PIL import Image

from noisette.distances import fid, kid
from noisette.judge import measures
from noisette.judge.drawing import Artist, compositions, inpaintings, repainted
from noisette.judge.features import features_of, load_judge
from noisette.judge.motion import MOTIONS, motion_of
from noisette.steadiness import first_frame_error, flicker

HERE = Path(__file__).parent
GUIDANCE = 3.0
WIDTH = 1280**0.5  # features of length one, made as long as KID's kernel takes them for
CLIPPED, STEPS_OF_CLIPS = 10, 10  # things that move each way; steps of each clip
LABELS, MEMORY, COMPOSITIONS = 300, 200, 100
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")
STEPS = (5, 10, 15, 25, 50)
MEASURES = (
    "labels",
    "paraphrases",
    "colours",
    "grounds",
    "pairs",
    "sizes",
    "seams",
    "inpainting",
    "samplers",
    "clips",
)
SIZES = ((512, 768), (1024, 1024), (768, 1536))
SIZED = 40  # things drawn at each of them
SAMPLERS = ("euler", "euler_ancestral", "heun", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_sde", "unipc", "lcm")


def evaluate(
    model: Path,
    folder: Path,
    package: Path,
    settings: dict[str, Any],
    only: Sequence[str] = (),
    every: int = 1,
    asked: Mapping[str, Any] = {},
) -> dict[str, Any]:
    """Judges the exported model against the data in `folder`; prints each of the MEASURES, or those in `only`, and
    writes evaluation.json.

    `package` holds the classifier. Of each measure's cases only each `every`-th is drawn, with the recipe's fields
    `asked` above the measure's own. Pictures are kept below `folder`/evaluation and not drawn again while the model
    stays the same, so what was stopped goes on.
    """
    case = Case(model, folder, package, settings, every, asked)
    found: dict[str, Any] = {}
    for name in only or MEASURES:
        for what, value in getattr(case, name)():
            found[what] = value
            print(f"{what}: {value}", flush=True)
            (folder / "evaluation.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


def on_white(cut_out: np.ndarray) -> np.ndarray:
    """A cut-out uint8 [H, W, 4] on white."""
    alpha = cut_out[..., 3:].astype(np.float32) / 255
    return np.rint(alpha * cut_out[..., :3] + (1 - alpha) * 255).astype(np.uint8)


class Case:
    """What is known of the data, and who draws and who looks."""

    def __init__(
        self,
        model: Path,
        folder: Path,
        package: Path,
        settings: dict[str, Any],
        every: int = 1,
        asked: Mapping[str, Any] = {},
    ) -> None:
        self.settings, self.every = settings, every
        self.entries = json.loads((folder / "pictures.json").read_text(encoding="utf-8"))
        self.cut_outs = np.load(folder / "pictures.npy", mmap_mode="r")
        numbered = [(i, entry) for i, entry in enumerate(self.entries) if entry["group"] in settings["groups"]]
        taught = [i for i, entry in numbered if not entry["held_out"]]
        self.held_out = [i for i, entry in numbered if entry["held_out"]]
        self.artist = Artist(model, settings["side"], {"guidance_scale": GUIDANCE}, folder / "evaluation", asked)
        self.judge = load_judge(package)
        self.known = [on_white(self.cut_outs[i]) for i in taught]
        self.known_labels = np.array([self.entries[i]["label"] for i in taught])
        self.known_features = features_of(self.judge, self.known)

    def nearest_labels(self, pictures: list[np.ndarray], count: int = 5) -> np.ndarray:
        """The labels of the nearest training pictures: str [N, count]."""
        return self.known_labels[measures.ranked(features_of(self.judge, pictures), self.known_features)[:, :count]]

    def asked(self, cases: Iterable[Any]) -> list[tuple[int, Any]]:
        """Seeds and cases: each case keeps its seed when only some are drawn."""
        return list(enumerate(cases))[:: self.every]

    def labels(self) -> Iterator[tuple[str, Any]]:
        """Training labels, one seed each: is the nearest training picture that label's? Is it the same picture?"""
        chosen = np.random.default_rng(0).permutation(len(self.known))[:LABELS]
        asked = self.asked(self.known_labels[chosen])
        wanted = np.array([label for _, label in asked])
        drawn = [self.artist.draw(str(label), seed) for seed, label in asked]
        near = self.nearest_labels(drawn)
        yield "labels: nearest", share(near[:, 0] == wanted)
        yield "labels: among the nearest 5", share((near == wanted[:, None]).any(1))
        yield "memorized", round(measures.memorized(drawn[:MEMORY], self.known), 3)

    def paraphrases(self) -> Iterator[tuple[str, Any]]:
        """Texts that stand in no caption."""
        asked = self.asked(tomllib.loads((HERE / "paraphrases.toml").read_text(encoding="utf-8")).items())
        near = self.nearest_labels([self.artist.draw(text, seed) for seed, (text, _) in asked])
        right = [bool(set(row) & set(labels)) for row, (_, (_, labels)) in zip(near, asked, strict=True)]
        yield "paraphrases: among the nearest 5", share(right)

    def colours(self) -> Iterator[tuple[str, Any]]:
        """ "a red car": is red the hue that dominates?"""
        things = read_things()["colour"]
        asked = self.asked((colour, thing) for thing in things for colour in COLOURS)
        drawn = [self.artist.draw(f"{a(colour)} {colour} {thing}", seed) for seed, (colour, thing) in asked]
        right = [measures.hue_name(p) == colour for p, (_, (colour, _)) in zip(drawn, asked, strict=True)]
        yield "colour words", share(right)

    def grounds(self) -> Iterator[tuple[str, Any]]:
        """ "on a blue background", and white where nothing is said."""
        things = read_things()["ground"]
        asked = self.asked((ground, thing) for thing in things for ground in measures.GROUNDS if ground != "white")
        texts = [f"{a(thing)} {thing} on {a(ground)} {ground} background" for _, (ground, thing) in asked]
        drawn = [self.artist.draw(text, seed) for text, (seed, _) in zip(texts, asked, strict=True)]
        right = [measures.ground_name(p) == ground for p, (_, (ground, _)) in zip(drawn, asked, strict=True)]
        yield "backgrounds", share(right)
        plain = [self.artist.draw(f"{a(thing)} {thing}", i) for i, thing in enumerate(things)]
        yield "white where nothing is said", share([measures.ground_name(picture) == "white" for picture in plain])

    def pairs(self) -> Iterator[tuple[str, Any]]:
        """Two things: is each among the nearest 5 of some cut-out?"""
        both = []
        for seed, (text, *words) in self.asked(read_things()["pairs"]):
            near = self.nearest_labels(measures.things(self.artist.draw(text, seed)))
            both.append(all(any(w in label for w in word.split("|") for label in near.ravel()) for word in words))
        yield "two things", share(both)

    def sizes(self) -> Iterator[tuple[str, Any]]:
        """As many separate things at each of SIZES as at the native size, the same seed: the share of SIZED texts."""
        known = sorted(set(self.known_labels) & set(self.settings["common"]))
        asked = self.asked(np.random.default_rng(2).permutation(known)[:SIZED].tolist())
        area = self.settings["side"] ** 2
        native = [measures.count_things(self.artist.draw(text, seed), area) for seed, text in asked]
        for width, height in SIZES:
            drawn = [self.artist.draw(text, seed, size=(width, height)) for seed, text in asked]
            counts = [measures.count_things(picture, area) for picture in drawn]
            yield f"as many things at {width}x{height}", share(np.array(counts) == np.array(native))

    def seams(self) -> Iterator[tuple[str, Any]]:
        """The colour step along the edge of a repainted quarter, over the untouched picture's along the same line."""
        truths = compositions(self.entries, self.cut_outs, self.held_out, COMPOSITIONS // self.every)
        yield from repainted(self.artist, truths).items()

    def inpainting(self) -> Iterator[tuple[str, Any]]:
        """A masked quarter of pictures of held-out concepts: the error, beside Telea's and the mean colour's."""
        truths = compositions(self.entries, self.cut_outs, self.held_out, COMPOSITIONS // self.every)
        for name, value in inpaintings(self.artist, truths).items():
            yield f"inpainting, rms error: {name}", value

    def clips(self) -> Iterator[tuple[str, Any]]:
        """Sixty clips over six motions, with the model's motion modules if it has some: obeyed, kept, steady?

        From a prompt, and for each thing once from a picture, whose error in the first frame is measured.
        """
        things = [label for label in self.settings["common"] if label in set(self.known_labels)]
        chosen = np.random.default_rng(0).permutation(things)[:CLIPPED]
        asked: dict[str, Any] = {"num_frames": 16, "num_inference_steps": STEPS_OF_CLIPS}
        asked |= {"img_w": self.artist.side, "img_h": self.artist.side, "sampler": "euler"}
        obeyed, same, flickers = [], [], []
        for motion in MOTIONS:
            for seed, label in enumerate(chosen):
                frames = self.artist.clip(asked | {"prompt": str(label), "motion": motion, "seed": str(seed)})
                obeyed.append(motion_of(frames) == motion)
                first, last = self.nearest_labels([frames[0], frames[-1]], 1)[:, 0]
                same.append(first == last)
                flickers.append(flicker(frames))
            yield f"clips, {motion}: obeyed", share(obeyed[-len(chosen) :])
        yield "clips: motion obeyed", share(obeyed)
        yield "clips: label of first and last frame equal", share(same)
        yield "clips: flicker, of 255", round(float(np.mean(flickers)), 2)
        errors = []
        for i, label in enumerate(chosen):
            base = self.known[int(np.flatnonzero(self.known_labels == label)[0])]
            path = self.artist.folder / f"base-{i}.png"
            Image.fromarray(base).save(path)
            begun = asked | {"prompt": str(label), "motion": MOTIONS[i % len(MOTIONS)], "seed": "0"}
            errors.append(first_frame_error(self.artist.clip(begun | {"base_img": str(path)}), base))
        yield "clips: first frame's error, of 255", round(float(np.mean(errors)), 2)

    def samplers(self) -> Iterator[tuple[str, Any]]:
        """The distance of held-out labels' drawings to their pictures, by sampler and steps."""
        asked = self.asked(self.entries[i]["label"] for i in self.held_out)
        truth = WIDTH * features_of(self.judge, [on_white(self.cut_outs[i]) for i in self.held_out])
        for sampler in SAMPLERS:
            for steps in STEPS:
                drawn = [self.artist.draw(text, seed, sampler, steps) for seed, text in asked]
                seen = WIDTH * features_of(self.judge, drawn)
                yield f"{sampler}, {steps} steps: KID, FID", [round(kid(seen, truth), 4), round(fid(seen, truth), 2)]


def read_things() -> dict[str, Any]:
    """things.toml."""
    return tomllib.loads((HERE / "things.toml").read_text(encoding="utf-8"))


def a(noun: str) -> str:
    """'a' or 'an'."""
    return "an" if noun[0] in "aeiou" else "a"


def share(right: Any) -> float:
    """The share of what is true."""
    return round(float(np.mean(right)), 3)
