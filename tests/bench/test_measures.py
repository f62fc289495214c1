"""Measures with answers that are known: from formulas, from constructions, from scikit-image's own definitions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from noisette.bench import measures
from noisette.bench.features import Distance, Encoder, distance
from noisette.cli import main
from noisette.distances import fid, kid
from noisette.errors import UserError
from noisette.reading import Picture

DRAW = np.random.default_rng(0)


def flat(*colour: int, side: int = 32) -> Picture:
    return Picture(np.tile(np.array(colour, np.uint8), (side, side, 1)))


def noisy(sigma: float, side: int = 64, seed: int = 0) -> Picture:
    noise = np.random.default_rng(seed).normal(0, sigma, (side, side, 3))
    return Picture(np.clip(128 + noise, 0, 255).astype(np.uint8))


def test_flat_pictures() -> None:
    numbers = measures.of_picture(flat(128, 128, 128))
    assert numbers["lightness"] == pytest.approx(128 / 255)
    assert (numbers["contrast"], numbers["sharpness"], numbers["clipped"]) == pytest.approx((0, 0, 0), abs=1e-4)
    assert numbers["colourfulness"] == pytest.approx(0, abs=1e-4)
    assert measures.of_picture(flat(0, 255, 7))["clipped"] == pytest.approx(2 / 3)


def test_colourfulness_by_hand() -> None:
    """Half red, half blue: rg is 255 and 0, yb 127.5 and -255 (Hasler and Süsstrunk, eq. 12)."""
    data = np.zeros((10, 10, 3), np.uint8)
    data[:5, :, 0], data[5:, :, 2] = 255, 255
    rg, yb = np.array([255.0, 0.0]), np.array([127.5, -255.0])
    wanted = np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())
    assert measures.of_picture(Picture(data))["colourfulness"] == pytest.approx(wanted, rel=1e-5)


def test_sharpness_falls_with_blur() -> None:
    sharp = noisy(40)
    blurred = Picture(np.asarray(Image.fromarray(sharp.data).filter(ImageFilter.GaussianBlur(1))))
    a, b = (measures.of_picture(p)["sharpness"] for p in (sharp, blurred))
    assert b < a / 10


def test_pairs() -> None:
    same = measures.of_pair(noisy(20), noisy(20))
    assert (same["psnr"], same["ssim"], same["delta_e"]) == (np.inf, pytest.approx(1), 0)
    shifted = measures.of_pair(flat(100, 100, 100), flat(110, 110, 110))
    assert shifted["psnr"] == pytest.approx(20 * np.log10(255 / 10))
    # SSIM of two flat pictures is its luminance term (Wang et al. 2004, eq. 6), C1 = (0.01 * 255)^2.
    c1 = 2.55**2
    assert shifted["ssim"] == pytest.approx((2 * 100 * 110 + c1) / (100**2 + 110**2 + c1), rel=1e-6)
    with pytest.raises(UserError, match="32x32 and 64x64"):
        measures.of_pair(flat(1, 2, 3), noisy(1))


def test_ciede2000_of_a_published_pair() -> None:
    """Sharma et al. 2005, table 1, pair 1, brought through sRGB's neighbourhood: here pure channels, known values."""
    black, white = np.zeros((1, 3)), np.full((1, 3), 255.0)
    assert measures.delta_e(black, white)[0] == pytest.approx(100, abs=1e-3)
    assert measures.delta_e(white, white)[0] == 0


def test_a_seam_is_found_where_it_is() -> None:
    base = flat(120, 120, 120, side=64)
    repaint = np.zeros((64, 64), bool)
    repaint[16:48, 16:48] = True
    edited = base.data.copy()
    edited[repaint] = 150
    with_seam = measures.of_edit(Picture(edited), base, repaint)
    edge = measures.delta_e(np.full((1, 3), 120.0), np.full((1, 3), 150.0))[0]
    assert with_seam["seam"] == pytest.approx(edge)
    assert with_seam["seam_excess"] == pytest.approx(edge)
    assert (with_seam["kept"], with_seam["kept_differing"]) == (64 * 64 - 32 * 32, 0)
    plain, large = noisy(20, side=512), np.kron(repaint, np.ones((8, 8), bool))
    unedited = measures.of_edit(plain, plain, large)
    assert abs(unedited["seam_excess"]) < unedited["seam"] / 10
    edited[0, 0] = 0
    assert measures.of_edit(Picture(edited), base, repaint)["kept_differing"] == 1


def test_a_mask_without_an_edge_has_no_seam() -> None:
    assert "seam" not in measures.of_edit(noisy(1), noisy(1), np.ones((64, 64), bool))


def test_fid_of_gaussians_is_known() -> None:
    """Between N(0, I) and N(m, 4 I) in d dimensions it is |m|^2 + d (Heusel et al. 2017, eq. 6)."""
    d, n = 4, 200_000
    a = DRAW.normal(0, 1, (n, d))
    b = DRAW.normal(0, 2, (n, d)) + np.array([3, 0, 0, 0])
    assert fid(a, b) == pytest.approx(9 + d, rel=0.02)
    assert fid(a, a) == pytest.approx(0, abs=1e-6)


def test_kid_by_hand_and_unbiased() -> None:
    a, b = np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])
    # k(x, y) = (xy + 1)^3: within a k(0,1) = 1, within b k(1,2) = 27, between the mean of 1, 1, 8, 27.
    assert kid(a, b) == pytest.approx(1 + 27 - 2 * (1 + 1 + 8 + 27) / 4)
    sets = [(DRAW.normal(0, 1, (20, 3)), DRAW.normal(0, 1, (20, 3))) for _ in range(2000)]
    values = [kid(a, b) for a, b in sets]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))


def test_small_sets_are_told_of() -> None:
    few = Distance(1.0, 0.001, 0.01, (8, 100), 128)
    assert any("singular" in note for note in few.notes)
    assert any("can't be told apart" in note for note in few.notes)
    assert any("equal size" in note for note in Distance(1.0, 1.0, 0.01, (300, 300), 128).notes)
    assert len(Distance(1.0, 1.0, 0.01, (3000, 3000), 128).notes) == 1
    with pytest.raises(UserError, match="1 and 5 pictures"):
        distance(np.zeros((1, 3)), np.zeros((5, 3)))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder()


def test_perceptual_distance_orders_as_one_would(encoder: Encoder) -> None:
    rows = np.linspace(0, 255, 128).astype(np.uint8)
    picture = Picture(np.stack([*np.meshgrid(rows, rows), np.full((128, 128), 90, np.uint8)], axis=-1))
    assert encoder.perceptual(picture, picture) == 0
    noise = np.random.default_rng(0).normal(0, 1, picture.data.shape)
    near, far = (Picture(np.clip(picture.data + s * noise, 0, 255).astype(np.uint8)) for s in (3, 40))
    assert 0 < encoder.perceptual(near, picture) < encoder.perceptual(far, picture)


def test_sets_of_one_kind_are_nearer_than_of_two(encoder: Encoder) -> None:
    reds, more = ([flat(200 + i, 10 * (i % 3), j, side=64) for i in range(12)] for j in (0, 10))
    blues = [flat(10 * (i % 3), 0, 200 + i, side=64) for i in range(12)]
    red, red2, blue = (encoder.features(some) for some in (reds, more, blues))
    near, far = distance(red, red2), distance(red, blue)
    assert near.kid < far.kid
    assert near.fid < far.fid


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, sigma in (("a", 10), ("b", 11)):
        (tmp_path / folder).mkdir()
        for seed in range(3):
            Image.fromarray(noisy(sigma, seed=seed).data).save(tmp_path / folder / f"{seed}.png")
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert main(["measure", a, "--reference", b, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 3
    assert all(row["psnr"] > 30 and 0.9 < row["ssim"] < 1 and row["perceptual"] > 0 for row in rows)
    assert main(["measure", a]) == 0
    assert "mean of 3: lightness 0.5" in capsys.readouterr().out
    assert main(["measure", a, "--against", b]) == 0
    assert "singular" in capsys.readouterr().out


def test_an_equal_picture_is_left_out_of_the_mean_and_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for name, more in (("equal", 0), ("one", 10), ("two", 5)):
            grey = 100 + more * (folder == "b")
            Image.fromarray(flat(grey, grey, grey).data).save(tmp_path / folder / f"{name}.png")
    assert main(["measure", str(tmp_path / "a"), "--reference", str(tmp_path / "b")]) == 0
    mean = (20 * np.log10(255 / 10) + 20 * np.log10(255 / 5)) / 2
    (said,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("mean of 3: ")]
    assert f"psnr {mean:.4g} ± " in said
    assert said.endswith("1 equal to the reference and left out of psnr")


def test_a_picture_smaller_than_its_window_has_no_ssim() -> None:
    assert set(measures.of_pair(flat(1, 2, 3, side=8), flat(3, 2, 1, side=8))) == {"psnr", "delta_e"}


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["a.png", "--similarity", "nomodel"], "--similarity 'nomodel' is unknown: noisette-1, or a folder"),
        (["nowhere"], "not there"),
        (["."], "holds no pictures"),
        (["a.png", "--reference", "other"], "no picture of the same name"),
        (["a.png", "--reference", "small.png"], "8x8"),
        (["a.png", "--against", "other"], "1 and 1 pictures have no distance"),
    ],
)
def test_mistakes(
    words: list[str], wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if words != ["."]:
        (tmp_path / "other").mkdir()
        for name, side in (("a.png", 32), ("small.png", 8), ("other/b.png", 32)):
            Image.fromarray(flat(1, 2, 3, side=side).data).save(name)
    assert main(["measure", *words]) == 2
    error = capsys.readouterr().err
    assert wanted in error
    assert error.count("\n") == 1
