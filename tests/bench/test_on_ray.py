"""A real Ray cluster of two nodes on this machine, of which one is killed in the middle."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from noisette.bench.cells import Cell, batches
from noisette.bench.make import Made
from noisette.bench.on_ray import DEATHS, Crew, Worker, pull, run_on_ray, runtime_env
from noisette.bench.run import missing, run
from noisette.bench.store import Store
from noisette.metadata import read_metadata
from tests.bench.test_sweep import hashes, resolved

pytestmark = pytest.mark.slow
os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")  # a busy machine; read when Ray is imported
ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def nodes() -> Iterator[tuple[Any, Any]]:
    """The cluster, and the node that a test may kill."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    victim = cluster.add_node(num_cpus=2)
    ray.init(cluster.address, runtime_env=runtime_env(), log_to_driver=False)
    yield cluster, victim
    ray.shutdown()
    cluster.shutdown()


def test_a_cell_that_can_not_be_made_there_is_an_error(nodes: tuple[Any, Any], tmp_path: Path) -> None:
    base = tmp_path / "base.png"
    Image.new("RGB", (64, 64), "red").save(base)
    found = resolved(["steps=4"], base_img=str(base))
    Image.new("RGB", (64, 64), "blue").save(base)
    (landed,) = run_on_ray(found, Store(tmp_path / "out"), "ray")
    assert "not the one that was planned" in landed.error


def test_a_node_is_killed_in_the_middle(nodes: tuple[Any, Any], tmp_path: Path) -> None:
    cluster, victim = nodes
    found = resolved(["sampler=euler,heun", "seed=0..5"], num_inference_steps=4)
    store = Store(tmp_path / "ray")
    landing = run_on_ray(found, store, "ray", workers=2)
    landed = [next(landing) for _ in range(4)]
    places = {actor["node_id"] for actor in alive_workers()}
    assert len(places) == 2
    cluster.remove_node(victim, allow_graceful=False)
    landed += list(landing)
    assert [one.error for one in landed] == [""] * 12
    assert len({one.cell.address for one in landed}) == 12
    local = Store(tmp_path / "local")
    assert all(not one.error for one in run(found, local))
    assert hashes(tmp_path / "ray") == hashes(tmp_path / "local")


def test_a_batch_that_kills_its_workers_ends_and_the_others_are_made(nodes: tuple[Any, Any], tmp_path: Path) -> None:
    class Fragile(Worker):
        def make(self, batch: Sequence[Cell]) -> tuple[list[Made], str]:
            if batch[0].seed == 1:
                os._exit(1)
            return super().make(batch)

    store = Store(tmp_path)
    found = resolved(["seed=0..2"], num_inference_steps=1)
    store.prepare(found)
    crew = Crew(ray, ray.remote(Fragile), 2)
    landed = {one.cell.seed: one.error for one in pull(crew, batches(found), store)}
    crew.dismiss()
    assert (landed[0], landed[2]) == ("", "")
    assert landed[1].startswith(f"its worker died {DEATHS} times: ")
    assert sorted(cell.seed for cell in missing(found, store)) == [1]


def test_clips_come_back_whole(nodes: tuple[Any, Any], tmp_path: Path) -> None:
    fields = {"walk_to": "5", "num_frames": 4, "num_inference_steps": 1}
    found = resolved(["codec=h264,ffv1"], **fields)
    there, here = Store(tmp_path / "ray"), Store(tmp_path / "local")
    assert all(one.proved and not one.error for one in run_on_ray(found, there, "ray", workers=1))
    assert all(one.proved and not one.error for one in run(found, here))
    for address, path in there.done().items():
        ours = read_metadata(here.done()[address])
        assert [read_metadata(path)[name] for name in ("pixels", "decoded", "recipe")] == [
            ours[name] for name in ("pixels", "decoded", "recipe")
        ]
        assert path.with_name(f"{path.name}.png").exists()


def alive_workers() -> list[dict[str, Any]]:
    """The actors that run, with their nodes."""
    from ray._private.state import actors

    return [
        {"node_id": actor["Address"]["NodeID"]} for actor in actors().values() if actor["State"] == "ALIVE"
    ]  # fmt: skip
