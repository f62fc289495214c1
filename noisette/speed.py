"""`noisette bench`: which engine and precision is fastest on this processor, measured on the model itself.

All candidates are loaded, warmed once, and then take turns; medians are compared, so that whatever else the
machine does meanwhile meets all of them. What each costs in exactness stands beside.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from noisette import checkpoint as checkpoints
from noisette.catalog import Family
from noisette.engines import MODULES, installed
from noisette.errors import UserError
from noisette.kinds import SIZES, TEXT_2
from noisette.noise import noise
from noisette.optimized import files_of
from noisette.plan import find_model
from noisette.recipe import PRECISIONS

if TYPE_CHECKING:
    from noisette.checkpoint import Checkpoint
    from noisette.engines import Array, Networks

TOKENS, TIMESTEP = 77, 500.0


@dataclass(frozen=True)
class Row:
    """One engine at one precision: median seconds, share of openvino's (or the first row's) float32, exactness.

    `deviation` is the root mean square difference of a step's prediction from the first row's, over its size.
    """

    engine: str
    precision: str
    load: float
    step: float
    decode: float
    ratio: float
    deviation: float


def bench(model: str, side: int | None, rounds: int, say: Callable[[str], object]) -> dict[str, Any]:
    """Times a guided step and a decode at side x side pixels (default: the model's own). Raises UserError."""
    checkpoint, family, _, _ = find_model(model)
    checkpoint = checkpoints.fetch(checkpoint)
    side = side or checkpoint.native_side
    if side % checkpoint.vae_scale_factor:
        raise UserError(f"--side {side} is not a multiple of {checkpoint.vae_scale_factor}, the model's grid")
    given = inputs(checkpoint, side)
    loaded = load_all(checkpoint, family, given, say)
    times: dict[tuple[str, str], list[tuple[float, float]]] = {key: [] for key in loaded}
    for i in range(rounds):
        say(f"round {i + 1} of {rounds}")
        for key, (networks, _, _) in loaded.items():
            times[key].append(timed(networks, given))
    rows = table(loaded, times)
    fastest = min(rows, key=lambda row: row.step)
    return {
        "model": model,
        "side": side,
        "rounds": rounds,
        "machine": machine(),
        "rows": [asdict(row) for row in rows],
        "fastest": f"--engine {fastest.engine} --precision {fastest.precision}",
        "left_out": left_out(checkpoint, family, loaded),
    }


def inputs(checkpoint: Checkpoint, side: int) -> dict[str, tuple[Any, ...]]:
    """Noise as what a guided step (both branches) and a decode are called with; speed does not depend on values."""
    unet, vae = checkpoint.configs["unet"], checkpoint.configs["vae"]
    cells, width = side // checkpoint.vae_scale_factor, unet["cross_attention_dim"]
    context = noise(1, (2, TOKENS, width if isinstance(width, int) else width[0]))
    step: tuple[Any, ...] = (noise(0, (2, unet["in_channels"], cells, cells)), TIMESTEP, context)
    if TEXT_2 in checkpoint.configs:
        step = (*step, (noise(3, (2, checkpoint.configs[TEXT_2]["projection_dim"])), noise(4, (2, SIZES))))
    return {"step": step, "decode": (noise(2, (1, vae.get("latent_channels", 4), cells, cells)),)}


def load_all(
    checkpoint: Checkpoint, family: Family, given: dict[str, tuple[Any, ...]], say: Callable[[str], object]
) -> dict[tuple[str, str], tuple[Networks, float, Array]]:
    """(engine, precision) -> networks that have run once, the seconds until then, and what a step predicts."""
    loaded = {}
    for engine in filter(installed, family.engines):
        for precision in PRECISIONS:
            if precision == "int8" and (engine == "torch" or not files_of(checkpoint)):
                continue
            say(f"loading {engine} {precision}")
            begun = time.perf_counter()
            try:
                networks: Networks = import_module(MODULES[engine]).load(checkpoint, "cpu", precision)
            except UserError:  # this processor does not run it
                continue
            prediction = networks.denoise(*given["step"])
            loaded[engine, precision] = networks, time.perf_counter() - begun, prediction
            networks.decode_image(*given["decode"])
    return loaded


def timed(networks: Networks, given: dict[str, tuple[Any, ...]]) -> tuple[float, float]:
    """Seconds of a step and of a decode."""
    begun = time.perf_counter()
    networks.denoise(*given["step"])
    between = time.perf_counter()
    networks.decode_image(*given["decode"])
    return between - begun, time.perf_counter() - between


def table(
    loaded: dict[tuple[str, str], tuple[Networks, float, Array]],
    times: dict[tuple[str, str], list[tuple[float, float]]],
) -> list[Row]:
    """Medians, held against the first row."""
    first = next(iter(loaded))
    wanted, base = loaded[first][2], statistics.median(step for step, _ in times[first])
    rows = []
    for (engine, precision), (_, seconds, prediction) in loaded.items():
        step, decode = (statistics.median(column) for column in zip(*times[engine, precision], strict=True))
        off = float(np.sqrt(np.mean((prediction - wanted) ** 2) / np.mean(wanted**2)))
        rows.append(Row(engine, precision, seconds, step, decode, step / base, off))
    return rows


def left_out(checkpoint: Checkpoint, family: Family, loaded: dict[tuple[str, str], Any]) -> dict[str, str]:
    """What has no row, and why."""
    found = {engine: "not installed" for engine in family.engines if not installed(engine)}
    for engine in filter(installed, family.engines):
        for precision in PRECISIONS:
            if (engine, precision) not in loaded and not (engine == "torch" and precision == "int8"):
                missing = precision == "int8" and not files_of(checkpoint)
                found[f"{engine} {precision}"] = "noisette optimize first" if missing else "not on this processor"
    return found


def machine() -> dict[str, Any]:
    """The processor, its cores, and how busy it is: waiting threads a core over the last minute."""
    name = platform.processor() or platform.machine()
    if (facts := Path("/proc/cpuinfo")).is_file():
        lines = facts.read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0] / cores if hasattr(os, "getloadavg") else None
    return {"processor": name, "cores": cores, "load_per_core": load}


def to_text(report: dict[str, Any]) -> str:
    """The table for a person."""
    machine = report["machine"]
    busy = "" if machine["load_per_core"] is None else f", load {machine['load_per_core']:.1f} a core"
    lines = [
        f"{report['model']}, {report['side']}x{report['side']}, medians of {report['rounds']} rounds;"
        f" {machine['processor']}, {machine['cores']} cores{busy}",
        "engine    precision   first step s   step s  decode s   ratio  deviation",
    ]
    lines += [
        f"{row['engine']:10}{row['precision']:11}{row['load']:13.2f}{row['step']:9.3f}{row['decode']:10.3f}"
        f"{row['ratio']:8.2f}{row['deviation']:11.1e}"
        for row in report["rows"]
    ]
    lines += [f"no row for {name}: {why}" for name, why in report["left_out"].items()]
    if machine["load_per_core"] is not None and machine["load_per_core"] > 0.5:
        lines.append("the machine is busy: read the ratios, not the seconds")
    return "\n".join([*lines, f"fastest here: {report['fastest']}"])
