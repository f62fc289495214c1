"""A real Ray cluster of two nodes on this machine, of which one is killed in the middle."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from noisette.bench.on_ray import run_on_ray, runtime_env
from noisette.bench.run import run
from noisette.bench.store import Store
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


@pytest.mark.skipif("NOISETTE_RAY_KILL" not in os.environ, reason="not yet seen to pass")
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


def alive_workers() -> list[dict[str, Any]]:
    """The actors that run, with their nodes."""
    from ray._private.state import actors

    return [
        {"node_id": actor["Address"]["NodeID"]} for actor in actors().values() if actor["State"] == "ALIVE"
    ]  # fmt: skip
