"""Cells on a Ray cluster: actors hold the networks and pull batches; the driver alone writes the store.

Placing workers is Ray's. A worker plans each batch again, from the model and the inputs that it sees itself, and must
arrive at the same address; so results are those of a local run or they are refused. A worker that is lost (with its
process, its node, or what it had made there) is replaced, and its batch done again by whoever is free.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import noisette
from noisette.bench.cells import Cell, batches
from noisette.bench.make import Made, MadeClip, Maker
from noisette.bench.run import POLL, Landed
from noisette.bench.store import Store
from noisette.checkpoint import cache_folder
from noisette.errors import UserError

Answer = tuple[list["Made | MadeClip"], str]  # what is finished of a batch, and why the rest failed

DEATHS = 4  # workers a batch may take with it: one that kills them must end
START = 600.0  # seconds without any worker until a cluster counts as full
SAY = 10.0  # seconds of those until they are spoken of


class Worker:
    """Runs inside an actor: keeps networks loaded between batches."""

    def __init__(self) -> None:
        self._maker = Maker(cache_folder() / "checkpoints")

    def ready(self) -> None:
        """Answers once the actor has a place."""

    def make(self, batch: Sequence[Cell]) -> Answer:
        """The finished cells of a batch, and why the others failed."""
        made: list[Made | MadeClip] = []
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
        except (ConnectionError, ImportError, ValueError, RuntimeError) as error:
            raise UserError(f"--on {on} can't be reached: {first_line(error)}") from None
    try:
        yield ray
    finally:
        if mine:
            ray.shutdown()


def run_on_ray(todo: Sequence[Cell], store: Store, on: str, workers: int | None = None) -> Iterator[Landed]:
    """As `run.run`, on a cluster: by default a worker a GPU where there are any, else a worker a node."""
    with cluster(on) as ray:
        store.prepare(todo)
        gpus = int(ray.cluster_resources().get("GPU", 0))
        count = workers or gpus or sum(1 for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU"))
        waiting = batches(todo)
        actor = ray.remote(num_gpus=1 if gpus else 0, scheduling_strategy="SPREAD")(Worker)
        crew = Crew(ray, actor, min(count, len(waiting)))
        try:
            yield from pull(crew, waiting, store)
        finally:
            crew.dismiss()


@dataclass
class Task:
    """A batch that a worker is at, its cells claimed until `held` is closed."""

    worker: Any
    batch: list[Cell]
    held: contextlib.ExitStack


@dataclass
class Crew:
    """The workers: those that are asked to start, are free, or are at a batch; refs of Ray lead to the answers."""

    ray: Any
    actor: Any
    count: int
    starting: dict[Any, Any] = field(default_factory=dict)
    idle: list[Any] = field(default_factory=list)
    busy: dict[Any, Task] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for _ in range(self.count):
            self.hire()

    def hire(self) -> None:
        """Asks for one more worker. It gets work when it has answered: there may be no room for it by now."""
        worker = self.actor.remote()
        self.starting[worker.ready.remote()] = worker

    def replace(self, worker: Any) -> None:
        """Gives a lost worker up, should it still be somewhere, and asks for another."""
        self.ray.kill(worker)
        self.hire()

    def give(self, task: Task) -> None:
        """Hands a batch to its worker."""
        self.busy[task.worker.make.remote(task.batch)] = task

    def wait(self, seconds: float | None) -> Any:
        """The next answer of a worker, or None when there is none within the time."""
        ready, _ = self.ray.wait([*self.busy, *self.starting], num_returns=1, timeout=seconds)
        return ready[0] if ready else None

    def dismiss(self) -> None:
        """Ends all workers and gives their claims back."""
        for worker in [*self.starting.values(), *self.idle, *(task.worker for task in self.busy.values())]:
            self.ray.kill(worker)
        for task in self.busy.values():
            task.held.close()


def pull(crew: Crew, waiting: list[list[Cell]], store: Store) -> Iterator[Landed]:
    """Hands a batch to each free worker and lands what comes back, until nothing is left. Raises UserError."""
    deaths: Counter[str] = Counter()
    stillborn, patience = 0, Patience()
    while waiting or crew.busy:
        waiting = hand_out(crew, waiting, store)
        if not waiting and not crew.busy:
            return
        patience.look(alone=not crew.idle and not crew.busy)
        if not crew.busy and not crew.starting:  # all that is left is with other processes
            time.sleep(POLL)
            continue
        ref = crew.wait(None if crew.busy and not (crew.idle and waiting) else POLL)
        if ref in crew.starting:
            worker = crew.starting.pop(ref)
            _, lost = answer_of(crew, ref)
            if lost:
                stillborn += 1
                if stillborn > DEATHS + crew.count:
                    raise UserError(f"--on ray: workers can't start there: {lost}")
                crew.replace(worker)
            else:
                crew.idle.append(worker)
        elif ref is not None:
            task = crew.busy.pop(ref)
            with task.held:
                answer, lost = answer_of(crew, ref)
                if lost:
                    crew.replace(task.worker)
                    deaths[task.batch[0].address] += 1
                    if deaths[task.batch[0].address] < DEATHS:
                        waiting.insert(0, task.batch)
                    else:
                        yield from failed(task.batch, store, f"its worker died {DEATHS} times: {lost}")
                else:
                    crew.idle.append(task.worker)
                    yield from land(answer, task.batch, store)


class Patience:
    """With a cluster that has no room for any worker: it is said, and it ends."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._said = False

    def look(self, alone: bool) -> None:
        """Once a turn. Raises UserError after START seconds without any worker."""
        if not alone:
            self._since = time.monotonic()
        waited = time.monotonic() - self._since
        if waited > START:
            raise UserError(f"--on ray: no worker has found room in the cluster for {START:.0f} seconds")
        if waited > SAY and not self._said:
            self._said = True
            print(f"note: waiting for room in the cluster, {START:.0f} seconds at most", file=sys.stderr)


def hand_out(crew: Crew, waiting: list[list[Cell]], store: Store) -> list[list[Cell]]:
    """Gives free workers what nobody else is at or has done; returns what is still to do."""
    later: list[list[Cell]] = []
    while crew.idle and waiting:
        batch, *waiting = waiting
        held = contextlib.ExitStack()
        mine = held.enter_context(store.claimed(batch))
        others = [cell for cell in batch if cell not in mine and not store.path(cell).exists()]
        later += [others] if others else []
        if mine:
            crew.give(Task(crew.idle.pop(), mine, held))
        else:
            held.close()
    return waiting + later


def answer_of(crew: Crew, ref: Any) -> tuple[Any, str]:
    """What a worker answered, or why that is lost: its process, its node or the answer itself is gone."""
    errors = crew.ray.exceptions
    gone = errors.RayActorError, errors.NodeDiedError, errors.WorkerCrashedError, errors.OutOfMemoryError
    try:
        return crew.ray.get(ref), ""
    except (*gone, errors.ObjectLostError, errors.RuntimeEnvSetupError) as error:
        return None, first_line(error)


def first_line(error: Exception) -> str:
    """Of what Ray says, which goes on for a page; a heading with what stands at the end of it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return f"{lines[0]} {lines[-1]}" if lines[0].endswith(":") and len(lines) > 1 else lines[0]


def land(answer: Answer, batch: list[Cell], store: Store) -> Iterator[Landed]:
    """Writes a batch that came back; what did not come back failed."""
    made, error = answer
    by_address = {one.address: one for one in made}
    for cell in batch:
        if one := by_address.get(cell.address):
            saved = store.land(cell, one)
            yield Landed(cell, saved.path, saved.proved)
        else:
            yield from failed([cell], store, error)


def failed(batch: list[Cell], store: Store, error: str) -> Iterator[Landed]:
    """Cells that can't be made."""
    return (Landed(cell, store.path(cell), error=error) for cell in batch)
