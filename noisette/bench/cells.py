"""Cells: one picture or clip each, addressed by the hash of everything that decides its pixels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noisette import thesaurus
from noisette.bench.places import left_open
from noisette.clip_plan import read_clips
from noisette.errors import UserError
from noisette.plan import Clips, Inputs, Plan, find_model, plan, read
from noisette.recipe import FIELDS, INPUTS, Recipe
from noisette.upscaling import enlarging

if TYPE_CHECKING:
    from noisette.bench.axes import Cell as Asked
    from noisette.clips import Clip

ADDRESS = 24  # hex digits: 96 bits
BY_CONTENT = ("model", "engine", *INPUTS, "lora", "motion_adapter", "ip_adapter")  # stand in an address by hash
BY_RESULT = ("img_w", "img_h")  # stand there as the size that is written, given or not
TWICE = ("heun", "dpmpp_sde")  # samplers that evaluate the network twice a step


@dataclass(frozen=True)
class Cell:
    """One picture or clip to make: where it lies on the axes, its complete recipe, its address.

    `work`: network evaluations times canvas area in megapixels, over all frames. `networks` is equal for cells that
    share loaded networks, `kin` for those that differ by seed alone. `suffix`: of its file. `left_open`: the fields
    of the recipe that nobody asked for.
    """

    address: str
    at: dict[str, Any]
    recipe: Recipe
    mode: str
    work: float
    networks: str
    kin: str
    suffix: str = ".png"
    left_open: tuple[str, ...] = ()

    @property
    def seed(self) -> int:
        """The picture's or clip's own seed."""
        return int(self.recipe.seed)


class Memory:
    """Looks at each model and input once for thousands of plans."""

    def __init__(self) -> None:
        self.find = cache(find_model)
        self.digest = cache(digest)
        self._read = cache(read)
        self._read_clips = cache(read_clips)

    def read(self, recipe: Recipe, clip: Clip | None) -> Inputs:
        """`plan.read`, remembered by what it depends on."""
        seen = (*INPUTS, "num_frames", "invert_mask", "fit", "soft_mask", "outpaint")
        return self._read(replace(Recipe(), **{name: getattr(recipe, name) for name in seen}), clip)

    def read_clips(self, recipe: Recipe) -> Clips:
        """`clip_plan.read_clips`, remembered likewise."""
        seen = ("base_video", "mask_video", "num_frames")
        return self._read_clips(replace(Recipe(), **{name: getattr(recipe, name) for name in seen}))

    def plan(self, recipe: Recipe, lenient: bool) -> Plan:
        """`plan.plan` without a second look at anything. Raises UserError."""
        return plan(
            recipe, lenient=lenient, download=False, find=self.find, read=self.read, read_clips=self.read_clips
        )


def digest(path: Path) -> str:
    """'sha256:…' of a file."""
    from noisette.record import file_hash

    return file_hash(path)


def resolve(asked: Iterable[Asked], lenient: bool = False) -> tuple[list[Cell], list[str]]:
    """Plans every cell; returns them in order without repetition, and what is worth a note. Raises UserError."""
    memory = Memory()
    found: dict[str, Cell] = {}
    places: list[tuple[dict[str, Any], str]] = []
    notes: dict[str, None] = {}
    for at, recipe in asked:
        try:
            planned = memory.plan(recipe, lenient)
        except UserError as error:
            raise UserError(f"{place(at)}: {error}; --where leaves cells out") from None
        notes.update(dict.fromkeys(planned.notes))
        cell = cell_of(planned, at, recipe, memory)
        found.setdefault(cell.address, cell)
        places.append((at, cell.address))
    if planned.engine == "torch" and planned.recipe.batch_size > 1:
        notes["torch rounds otherwise in a batch: --batch_size is not used, cells are computed one by one"] = None
    return list(found.values()), [*notes, *idle_axes(places)]


def place(at: dict[str, Any]) -> str:
    """`steps=5 sampler=heun`."""
    return " ".join(f"{name}={value}" for name, value in at.items())


def counted(number: int, what: str) -> str:
    """`1 cell`, `1,200 cells`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def idle_axes(places: Sequence[tuple[dict[str, Any], str]]) -> list[str]:
    """A line for each axis along which there are several cells, of one address all.

    Of zipped fields none moves alone: nothing is said of them.
    """
    found = []
    for name in places[0][0]:
        along: dict[str, list[str]] = {}
        for at, address in places:
            along.setdefault(str({k: v for k, v in at.items() if k != name}), []).append(address)
        if any(len(line) > 1 for line in along.values()) and all(len(set(line)) == 1 for line in along.values()):
            found.append(f"axis {name} changes nothing: its cells are the same pictures")
    return found


def cell_of(planned: Plan, at: dict[str, Any], asked: Recipe, memory: Memory) -> Cell:
    """The cell of a plan, for one seed, of what was asked."""
    content = content_of(planned, memory)
    recipe = replace(planned.recipe, engine=planned.engine)
    times = (2 if recipe.sampler in TWICE else 1) * (2 if (recipe.guidance_scale or 0) > 1 else 1)
    area = sum(window.size.canvas_width * window.size.canvas_height for window in planned.windows)
    frames = planned.clip.num_frames if planned.clip else 1
    work = planned.evaluated_steps / max(1, len(planned.windows)) * times * area * frames / 1e6
    work = work or planned.size.width * planned.size.height / 1e6  # enlarged without a network evaluation
    shared = [content[name] for name in ("weights", "configs", "engine", "loras")]
    evaluates = bool(planned.evaluated_steps)
    networks = short([*shared, recipe.precision, recipe.device, recipe.motion, evaluates])
    kin = short({**content, "recipe": {**content["recipe"], "seed": None}})
    names = left_open(asked, recipe)
    return Cell(short(content), at, recipe, planned.mode, work, networks, kin, planned.suffix, names)


def content_of(planned: Plan, memory: Memory) -> dict[str, Any]:
    """Everything that decides the pixels, as JSON values: files by their hash, the recipe with nothing open."""
    from noisette.reading import resolve as resolved

    recipe = planned.recipe
    fields = {
        name: value
        for name, value in recipe.to_json().items()
        if name not in (*BY_CONTENT, *BY_RESULT) and FIELDS[name].metadata.get("alters", True)
    }
    inputs = {name: getattr(recipe, name) for name in INPUTS}
    shown = planned.checkpoint.image_encoder if recipe.image_prompt else None
    told_by = planned.checkpoint.thesaurus if recipe.interpret else None
    enlarges = planned.mode == "upscale" or any(window.size.hires for window in planned.windows)
    return {
        "recipe": fields,
        "size": [planned.size.width, planned.size.height],
        "weights": planned.checkpoint.weights_hash,
        "configs": short(planned.checkpoint.configs),
        "engine": planned.engine,
        "precision": recipe.precision,
        "inputs": {name: memory.digest(resolved(path)) for name, path in inputs.items() if path},
        **({"image_encoder": memory.digest(shown / "model.safetensors")} if shown else {}),
        **({"thesaurus": thesaurus.digest(told_by)} if told_by else {}),
        **(enlarging(recipe.upscaler) if enlarges else {}),
        "loras": [[memory.digest(path), scale] for path, scale in planned.loras],
    }


def short(value: Any) -> str:
    """The head of the SHA-256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:ADDRESS]


def plan_cells(group: Sequence[Cell], find: Any = find_model, download: bool = True) -> Plan:
    """The plan of cells that differ by seed alone; their addresses are worked out again and must be the same.

    `download`: as of `plan`; not needed while the networks stay loaded. Raises UserError where an input or the model
    is another one by now (or on this machine).
    """
    recipe = replace(group[0].recipe, seed=",".join(cell.recipe.seed for cell in group))
    memory = Memory()
    memory.find = find
    planned = plan(recipe, lenient=True, download=download, find=find)
    for cell in group:
        again = short(content_of(replace(planned, recipe=cell.recipe), memory))
        if again != cell.address:
            raise UserError(f"{place(cell.at)}: the model or an input is not the one that was planned: {again}")
    return planned


def batches(todo: Sequence[Cell]) -> list[list[Cell]]:
    """The cells in an order that loads networks once and encodes a prompt once: kin stand together.

    A batch holds --batch_size of them; on torch, where a batch rounds otherwise, one.
    """
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in todo:
        groups.setdefault((cell.networks, cell.kin), []).append(cell)
    order = {networks: i for i, networks in enumerate(dict.fromkeys(cell.networks for cell in todo))}
    found = []
    for (_, _), group in sorted(groups.items(), key=lambda item: order[item[0][0]]):
        size = 1 if group[0].recipe.engine == "torch" else group[0].recipe.batch_size
        found += [group[i : i + size] for i in range(0, len(group), size)]
    return found
