#!/usr/bin/env python3
"""The bench's own promises, measured: `python3 benchmarks/sweeps.py kills|overhead|store|ray [--cells N]`.

kills     a sweep that is killed again and again ends with the pictures of one that was left alone
overhead  processor time a cell costs beyond its generation, beside what a plain loop does; networks are loaded before
store     how long a large store takes to list, to resume and to report
ray       two Ray workers against the plain loop on the same cells: seconds, and the same pictures
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from noisette import engines, output  # noqa: E402
from noisette.bench.axes import cells, read_sweep  # noqa: E402
from noisette.bench.cells import Cell, resolve  # noqa: E402
from noisette.bench.derived import derive  # noqa: E402
from noisette.bench.make import Made, Maker  # noqa: E402
from noisette.bench.report import report  # noqa: E402
from noisette.bench.run import missing, run  # noqa: E402
from noisette.bench.store import Store  # noqa: E402
from noisette.engines import Networks  # noqa: E402
from noisette.generate import generate  # noqa: E402
from noisette.plan import Plan, plan  # noqa: E402
from noisette.reading import Picture, read  # noqa: E402
from noisette.record import pixel_hash  # noqa: E402

SMALL = {"prompt": "alien", "img_w": 64, "img_h": 64, "num_inference_steps": 1}


def asked(axes: list[str], **given: object) -> list[Cell]:
    """The cells of a sweep."""
    free = {name: value for name, value in SMALL.items() if name != "num_inference_steps" or "steps" not in str(axes)}
    return resolve(cells(read_sweep(axes, [], {**free, **given})))[0]


def hashes(folder: Path) -> dict[str, str]:
    """address -> hash of the pixels in the file."""
    return {address: pixel_hash(read(path)) for address, path in Store(folder).done().items()}


def kills(count: int, folder: Path, times: int = 30) -> None:
    """SIGKILL at random moments, then a run to the end, against an undisturbed one."""
    draw = random.Random(0)
    axes = [f"seed=0..{count - 1}"]
    fixed = [f"--{name}={value}" for name, value in SMALL.items()]
    command = [sys.executable, "-m", "noisette", "sweep", *fixed, "--sweep", *axes, "--out"]
    killed = folder / "killed"
    landed = []
    for turn in range(times):
        before = len(Store(killed).done())
        process = subprocess.Popen(
            [*command, str(killed)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if turn % 3 == 2:  # anywhere: while it starts, plans, loads
            time.sleep(draw.uniform(0, 6))
        else:  # between two cells that land
            target = before + draw.randint(1, 2 * count // (times + 1))
            while len(Store(killed).done()) < target and process.poll() is None:
                time.sleep(0.002)
            time.sleep(draw.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.wait()
        landed.append(len(Store(killed).done()))
    halfway = hashes(killed)
    subprocess.run([*command, str(killed)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*command, str(folder / "whole")], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    one, other = hashes(killed), hashes(folder / "whole")
    wrong = sum(other.get(address) != value for address, value in one.items())
    files = len(list((killed / "cells").iterdir()))
    print(f"{times} kills with {landed[0]} to {landed[-1]} cells there; then {len(one)} of {count}, {files} files")
    print(f"lost {count - len(one)}, duplicated {files - len(one)}, differing from the undisturbed run {wrong}")
    print(f"of the {len(halfway)} there at the last kill {sum(one[a] != h for a, h in halfway.items())} changed")


def cpu(work: Callable[[], object]) -> float:
    """Processor seconds, all threads."""
    began = time.process_time()
    work()
    return time.process_time() - began


def overhead(count: int, folder: Path) -> None:
    """Rounds of generation alone, of the plain loop (plan, generate, write) and of the sweep take turns."""
    for side in (64, 256, 512):
        bare, plain, swept = [], [], []
        size = {"img_w": side, "img_h": side}
        planned = plan(asked(["seed=0"], **size)[0].recipe)
        networks = engines.load(planned)
        maker, swept_at = Maker(folder / "claims"), Store(folder / f"swept {side}")
        for _ in run(asked(["seed=999999"], **size), swept_at, maker=maker):  # loads, warms up
            pass
        for turn in range(4):
            found = asked([f"seed={turn * count}..{(turn + 1) * count - 1}"], **size)

            def draw(plans: list[Plan], networks: Networks = networks) -> None:
                for once in plans:
                    for _ in generate(once, networks):
                        pass

            def loop(some: list[Cell] = found, networks: Networks = networks) -> None:
                for cell in some:
                    once = plan(cell.recipe, folder / "plain")
                    for result in generate(once, networks):
                        output.write(once, result)

            def sweep(some: list[Cell] = found, at: Store = swept_at, maker: Maker = maker) -> None:
                for landed in run(some, at, maker=maker):
                    assert landed.proved

            plans = [plan(cell.recipe) for cell in found]
            bare.append(cpu(lambda plans=plans, draw=draw: draw(plans)) / count)
            plain.append(cpu(loop) / count)
            swept.append(cpu(sweep) / count)
        alone, more, most = (1e3 * float(np.median(times[1:])) for times in (bare, plain, swept))
        print(f"{side}x{side}: generation {alone:.1f} ms a picture, one step; a plain loop that plans and writes"
              f" {more - alone:+.1f} ms, the sweep {most - alone:+.1f} ms")  # fmt: skip


def store(count: int, folder: Path) -> None:
    """A store of `count` cells with pictures of noise: seconds to list, to resume, to report."""
    seeds = count // 100
    found = asked(["sampler=euler,heun,dpmpp_2m,unipc,lcm", "steps=1..20", f"seed=0..{seeds - 1}"])
    place = Store(folder / "large")
    place.prepare()
    os.fsync = lambda file: None  # ten thousand files at once, for a test
    draw = np.random.default_rng(0)
    for cell in found:
        picture = Picture(draw.integers(0, 256, (64, 64, 3)).astype(np.uint8))
        facts = {"noisette": "0", "engine": "openvino", "seconds": 0.1, "versions": {}}
        metadata = {
            "recipe": cell.recipe.to_json(),
            "provenance": facts,
            "cell": {"address": cell.address, "at": cell.at},
        }
        place.land(cell, Made(cell.address, picture, metadata, derive(picture, None, None)))
    print(f"{len(found):,} cells")
    tasks: dict[str, Callable[[], object]] = {
        "plan all cells": lambda: asked(
            ["sampler=euler,heun,dpmpp_2m,unipc,lcm", "steps=1..20", f"seed=0..{seeds - 1}"]
        ),
        "list": place.done,
        "find what is missing": lambda: missing(found, place),
        "report": lambda: report(place.root),
    }
    for name, task in tasks.items():
        began = time.perf_counter()
        seconds = cpu(task)
        print(f"{name}: {seconds:.2f} s processor, {time.perf_counter() - began:.2f} s")
    print(f"report.html {(place.root / 'report.html').stat().st_size / 1e6:.1f} MB")


def ray(count: int, folder: Path) -> None:
    """Two workers of this machine against the plain loop, both with loading."""
    from noisette.bench.on_ray import cluster, run_on_ray

    found = asked([f"seed=0..{count - 1}"], num_inference_steps=10, img_w=128, img_h=128)
    began = time.perf_counter()
    list(run(found, Store(folder / "plain")))
    plain = time.perf_counter() - began
    with cluster("ray"):
        warm = asked(["seed=900000,900001"], num_inference_steps=1)
        list(run_on_ray(warm, Store(folder / "warm"), "ray", 2))
        began = time.perf_counter()
        list(run_on_ray(found, Store(folder / "ray"), "ray", 2))
        there = time.perf_counter() - began
    same = hashes(folder / "plain") == hashes(folder / "ray")
    print(f"{count} cells: plain {plain / count:.3f} s each, two Ray workers {there / count:.3f} s each;"
          f" the same pictures: {same}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("kills", "overhead", "store", "ray"))
    parser.add_argument("--cells", type=int)
    values = parser.parse_args()
    counts = {"kills": 200, "overhead": 50, "store": 10_000, "ray": 100}
    with tempfile.TemporaryDirectory() as folder:
        {"kills": kills, "overhead": overhead, "store": store, "ray": ray}[values.what](
            values.cells or counts[values.what], Path(folder)
        )


if __name__ == "__main__":
    main()
