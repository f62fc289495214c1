"""Large pictures pass the VAE in diffusers' tiles on both engines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from noisette.checkpoint import locate
from noisette.engines import openvino, tiled, torch_engine
from noisette.noise import noise
from tests import tiny


@pytest.mark.parametrize(("height", "width"), [(96, 160), (64, 72), (32, 200)])
def test_both_engines_blend_the_same_tiles(
    height: int, width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOISETTE_CACHE", str(tmp_path / "cache"))
    tiny.save("sd1", tmp_path / "model")
    found = locate(str(tmp_path / "model"))
    both = [openvino.load(found), torch_engine.load(found)]
    latents = noise(0, (1, 4, height // 8, width // 8))
    pixels = np.clip(noise(1, (1, 3, height, width)) / 2, -1, 1)
    whole = both[0].decode_image(latents)
    monkeypatch.setattr(tiled, "WHOLE_AREA", 48 * 48)
    decoded = [networks.decode_image(latents) for networks in both]
    np.testing.assert_allclose(decoded[0], decoded[1], atol=1e-4)
    assert decoded[0].shape == whole.shape == (1, 3, height, width)
    assert np.abs(decoded[0] - whole).max() > 1e-4
    for ours, theirs in zip(*(networks.encode_image(pixels) for networks in both), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_what_a_tile_does_to_itself_alone_is_done_to_the_whole() -> None:
    """An operation on single values gives the whole picture's result, fades and all."""
    x = noise(0, (2, 3, 37, 50))
    seen: list[tuple[int, ...]] = []

    def double(part: np.ndarray) -> np.ndarray:
        seen.append(part.shape)
        return (part * 2).repeat(2, axis=2).repeat(2, axis=3)

    result = tiled.tiled(double, x, 16, 32)
    np.testing.assert_allclose(result, double(x), atol=1e-6)
    assert max(max(shape[2:]) for shape in seen[:-1]) == 16
