"""Cells on a Ray cluster: actors hold the networks and pull batches; the driver alone writes the store.

Scheduling, restarts and retries are Ray's. A worker plans each batch again, from the model and the inputs that it
sees itself, and must arrive at the same address; so results are those of a local run or they are refused.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import noisette
from noisette.bench.cells import Cell, batches
from noisette.bench.make import Made, Maker
from noisette.bench.run import POLL, Landed
from noisette.bench.store import Store
from noisette.checkpoint import cache_folder
from noisette.errors import UserError

RESTARTS, RETRIES = 100, 3  # of a worker; of a batch whose worker died (a cell that kills workers must end)
WAIT = 10.0  # seconds to reach a cluster's address


class Worker:
    """Runs inside an actor: keeps networks loaded between batches."""

    def __init__(self) -> None:
        self._maker = Maker(cache_folder() / "checkpoints")

    def make(self, batch: Sequence[Cell]) -> tuple[list[Made], str]:
        """The finished cells of a batch, and why the others failed."""
        made: list[Made] = []
        try:
            made.extend(self._maker.make(batch))
        except UserError as error:
            return made, str(error)
        return made, ""


def runtime_env() -> dict[str, Any]:
    """This very package for the workers, weights included, and as many threads as here: they may decide roundings."""
    threads = os.environ.get("OMP_NUM_THREADS", str(os.cpu_count()))
    return {"py_modules": [str(Path(noisette.__file__).parent)], "env_vars": {"OMP_NUM_THREADS": threads}}


@contextlib.contextmanager
def cluster(on: str) -> Iterator[Any]:
    """Ray, connected to `ray` (a cluster that runs here, else one of this machine) or to `ray://host:port`."""
    try:
        import ray
    except ImportError:
        raise UserError("--on ray needs Ray: pip3 install -r requirements-bench.txt") from None
    mine = not ray.is_initialized()
    if mine:
        place: dict[str, Any] = {"address": on} if on.startswith("ray://") else {"include_dashboard": False}
        try:
            ray.init(**place, runtime_env=runtime_env(), log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(f"--on {on} can't be reached: {str(error).partition(chr(10))[0]}") from None
    try:
        yield ray
    finally:
        if mine:
            ray.shutdown()


def run_on_ray(
    todo: Sequence[Cell], store: Store, on: str, workers: int | None = None
) -> Iterator[Landed]:  # fmt: skip
    """As `run.run`, on a cluster: by default a worker a GPU where there are any, else a worker a node.

    A worker that dies is restarted by Ray where there is room, and its batch done again.
    """
    store.prepare(todo)
    with cluster(on) as ray:
        total = ray.cluster_resources()
        gpus = int(total.get("GPU", 0))
        count = workers or gpus or sum(1 for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU"))
        actor = ray.remote(
            num_gpus=1 if gpus else 0, max_restarts=RESTARTS, max_task_retries=RETRIES, scheduling_strategy="SPREAD",
        )(Worker)  # fmt: skip
        waiting = batches(todo)
        idle = [actor.remote() for _ in range(min(count, len(waiting)))]
        yield from pull(ray, idle, waiting, store)


def pull(ray: Any, idle: list[Any], waiting: list[list[Cell]], store: Store) -> Iterator[Landed]:
    """Hands a batch to each idle worker and lands what comes back, until nothing is left."""
    busy: dict[Any, tuple[Any, list[Cell], contextlib.ExitStack]] = {}
    try:
        while waiting or busy:
            deferred: list[list[Cell]] = []
            while idle and waiting:
                batch = waiting.pop(0)
                held = contextlib.ExitStack()
                mine = held.enter_context(store.claimed(batch))
                others = [cell for cell in batch if cell not in mine and not store.path(cell).exists()]
                deferred += [others] if others else []
                if mine:
                    worker = idle.pop()
                    busy[worker.make.remote(mine)] = worker, mine, held
                else:
                    held.close()
            waiting += deferred
            if not busy:
                time.sleep(POLL if waiting else 0)
                continue
            (ready,), _ = ray.wait(list(busy), num_returns=1)
            worker, batch, held = busy.pop(ready)
            idle.append(worker)
            with held:
                yield from land(ray, ready, batch, store)
    finally:
        for _, _, held in busy.values():
            held.close()


def land(ray: Any, ready: Any, batch: list[Cell], store: Store) -> Iterator[Landed]:
    """Writes a batch that came back; what did not come back failed."""
    try:
        made, error = ray.get(ready)
    except ray.exceptions.RayActorError as death:
        made, error = [], f"its worker died {RETRIES + 1} times: {str(death).partition(chr(10))[0]}"
    by_address = {one.address: one for one in made}
    for cell in batch:
        if one := by_address.get(cell.address):
            saved = store.land(cell, one)
            yield Landed(cell, saved.path, saved.proved)
        else:
            yield Landed(cell, store.path(cell), error=error)
