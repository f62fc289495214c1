"""Pictures from files: exact, upright, or refused in one line."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from noisette import reading
from noisette.errors import UserError
from noisette.reading import read, resolve


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(depth: int, color: int, rows: bytes, width: int = 1, height: int = 1, extra: bytes = b"") -> bytes:
    """A PNG from its parts: `rows` are filter byte and samples, row after row."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def refused(path: Path) -> str:
    with pytest.raises(UserError) as error:
        read(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    return str(error.value)


def test_resolve_takes_backslashes_where_only_slashes_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out" / "edits").mkdir(parents=True)
    (tmp_path / "out" / "edits" / "asia grocery store.png").touch()
    assert resolve("out\\edits\\asia grocery store.png") == Path("out/edits/asia grocery store.png")
    assert resolve("out/edits/asia grocery store.png") == Path("out/edits/asia grocery store.png")
    with pytest.raises(
        UserError, match=r"'out\\\\edits\\\\asia grocery stor\.png' is not there; did you mean .*store"
    ):
        resolve("out\\edits\\asia grocery stor.png")


@pytest.mark.parametrize("path", ["", "no/such/picture.png", "x" * 5000, "a\0b", "."])
def test_resolve_names_what_is_not_there(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        resolve(path)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("suffix", ["png", "webp", "tiff"])
def test_eight_bit_modes_are_read_as_they_are(tmp_path: Path, mode: str, suffix: str) -> None:
    if suffix == "webp" and mode in ("L", "LA"):
        pytest.skip("WebP holds colour only")
    channels = reading.CHANNELS[mode]
    data = np.random.default_rng(0).integers(0, 256, (5, 7, channels)).astype(np.uint8)
    image = Image.fromarray(data[..., 0] if channels == 1 else data)
    image.save(tmp_path / f"a.{suffix}", **({"lossless": True, "exact": True} if suffix == "webp" else {}))
    picture = read(tmp_path / f"a.{suffix}")
    assert picture.mode == mode
    assert picture.size == (7, 5)
    assert np.array_equal(picture.data, data)


def test_sixteen_bit_grey_is_kept(tmp_path: Path) -> None:
    values = np.array([[0, 1, 255, 256, 65_535]], np.uint16)
    for suffix in ("png", "tiff"):
        Image.fromarray(values).save(tmp_path / f"a.{suffix}")
        picture = read(tmp_path / f"a.{suffix}")
        assert (picture.mode, picture.data.dtype) == ("I;16", np.uint16)
        assert np.array_equal(picture.data[..., 0], values)
    pgm = written(tmp_path / "a.pgm", b"P5 2 1 65535\n" + struct.pack(">HH", 300, 65_000))
    assert read(pgm).data.ravel().tolist() == [300, 65_000]


def test_palettes_become_colours_and_bilevel_becomes_grey(tmp_path: Path) -> None:
    palette = [1, 2, 3, 250, 251, 252]
    image = Image.new("P", (2, 1))
    image.putpalette(palette)
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "p.png")
    assert read(tmp_path / "p.png").data.tolist() == [[palette[:3], palette[3:]]]
    image.save(tmp_path / "t.png", transparency=bytes([9, 200]))
    picture = read(tmp_path / "t.png")
    assert picture.mode == "RGBA"
    assert picture.data.tolist() == [[[*palette[:3], 9], [*palette[3:], 200]]]
    assert read(written(tmp_path / "1.png", png(1, 0, b"\0\x40", width=2))).data.ravel().tolist() == [0, 255]


@pytest.mark.parametrize(("depth", "row"), [(1, 0b10000000), (2, 0b10_01_0000), (4, 0b1001_0001)])
def test_a_transparent_grey_is_found_at_any_depth(tmp_path: Path, depth: int, row: int) -> None:
    first = row >> (8 - depth)
    data = png(depth, 0, bytes([0, row]), width=2, extra=chunk(b"tRNS", struct.pack(">H", first)))
    picture = read(written(tmp_path / "a.png", data))
    assert picture.mode == "LA"
    assert picture.data[0, :, 1].tolist() == [0, 255]
    assert picture.data[0, 0, 0] == first * 255 // (2**depth - 1)


def test_a_transparent_colour_becomes_alpha(tmp_path: Path) -> None:
    tail = chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3))
    picture = read(written(tmp_path / "a.png", png(8, 2, b"\0\1\2\3\4\5\6", width=2, extra=tail)))
    assert picture.data.tolist() == [[[1, 2, 3, 0], [4, 5, 6, 255]]]


@pytest.mark.parametrize(("color", "kind", "samples"), [(2, "RGB", 3), (4, "grey with alpha", 2), (6, "RGBA", 4)])
def test_sixteen_bit_colour_is_refused_by_name(tmp_path: Path, color: int, kind: str, samples: int) -> None:
    path = written(tmp_path / "deep.png", png(16, color, b"\0" + bytes(2 * samples)))
    assert f"{kind} of 16 bits a channel, which would be cut to 8" in refused(path)


def test_what_would_be_changed_in_silence_is_refused(tmp_path: Path) -> None:
    Image.new("CMYK", (2, 2)).save(tmp_path / "cmyk.jpg")
    assert "CMYK, which a PNG can't hold: convert it to RGB first" in refused(tmp_path / "cmyk.jpg")
    Image.new("F", (2, 2)).save(tmp_path / "float.tiff")
    refused(tmp_path / "float.tiff")
    Image.new("I", (2, 2)).save(tmp_path / "int.tiff")
    assert "32 bits" in refused(tmp_path / "int.tiff")
    frames = [Image.new("RGB", (2, 2), c) for c in ("red", "blue")]
    for suffix in ("gif", "png", "webp", "tiff"):
        frames[0].save(tmp_path / f"many.{suffix}", save_all=True, append_images=frames[1:])
        assert "2 frames" in refused(tmp_path / f"many.{suffix}")
    assert "1000" in refused(written(tmp_path / "a.ppm", b"P6 1 1 1000\n" + bytes(6)))
    assert "65535" in refused(written(tmp_path / "b.ppm", b"P6 # deep\n1 1\n65535\n" + bytes(6)))
    grey = png(16, 0, b"\0\0\1", extra=chunk(b"tRNS", b"\0\1"))
    assert "transparent" in refused(written(tmp_path / "a.png", grey))


def test_tiff_with_sixteen_bit_colour_is_refused(tmp_path: Path) -> None:
    tags = [(256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 3, 122), (259, 3, 1, 1), (262, 3, 1, 2)]
    tags += [(273, 4, 1, 128), (277, 3, 1, 3), (278, 3, 1, 1), (279, 4, 1, 6)]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    data = b"II*\0\x08\0\0\0" + directory + struct.pack("<HHH", 16, 16, 16) + bytes(6)
    assert len(data) == 134
    assert "16 bits" in refused(written(tmp_path / "deep.tiff", data))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once_and_gone(tmp_path: Path, orientation: int) -> None:
    data = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    exif = Image.Exif()
    exif[reading.ORIENTATION] = orientation
    exif[0x010E] = "described"
    Image.fromarray(data).save(tmp_path / "a.png", exif=exif, dpi=(100, 200))
    turns = {1: data, 2: data[:, ::-1], 3: data[::-1, ::-1], 4: data[::-1], 5: data.T}
    turns |= {6: np.rot90(data, -1), 7: data[::-1, ::-1].T, 8: np.rot90(data)}
    picture = read(tmp_path / "a.png")
    assert np.array_equal(picture.data[..., 0], turns[orientation])
    kept = Image.Exif()
    kept.load(picture.info["exif"])
    assert dict(kept) == {0x010E: "described"}
    dpi = (200, 100) if orientation >= 5 else (100, 200)
    assert picture.info["dpi"] == pytest.approx(dpi, abs=0.02)


def test_profile_and_gps_are_kept(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif.get_ifd(0x8825)[1] = "N"
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg", icc_profile=profile, exif=exif)
    picture = read(tmp_path / "a.jpg")
    assert picture.info["icc_profile"] == profile
    kept = Image.Exif()
    kept.load(picture.info["exif"])
    assert kept.get_ifd(0x8825)[1] == "N"


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"BM" + bytes(60), b"<svg/>"])
def test_what_is_no_picture_is_refused(tmp_path: Path, data: bytes) -> None:
    refused(written(tmp_path / "a.png", data))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"])
def test_a_picture_cut_short_is_refused(tmp_path: Path, kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8))
    buffer = io.BytesIO()
    noise.save(buffer, kind)
    refused(written(tmp_path / "a", buffer.getvalue()[: len(buffer.getvalue()) // 2]))


def test_a_bomb_is_refused_from_its_header(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    for side in (9_999, 10_001, 13_000, 60_000):
        path = written(tmp_path / "bomb.png", png(8, 0, b"", width=side, height=side))
        with pytest.raises(UserError, match="cut short" if side < 10_000 else "at most 100,000,000 pixels|too many"):
            read(path)
    assert not list(recwarn)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF", "GIF", "PPM"]), st.data())
def test_damage_is_a_user_error_or_no_error(tmp_path_factory: pytest.TempPathFactory, kind: str, data: Any) -> None:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[reading.ORIENTATION] = 6
    Image.new("RGB", (9, 7), "red").save(buffer, kind, **({} if kind in ("GIF", "PPM") else {"exif": exif}))
    damaged = bytearray(buffer.getvalue())
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=6)):
        damaged[place] = data.draw(st.integers(0, 255))
    path = written(tmp_path_factory.getbasetemp() / "damaged", bytes(damaged))
    with contextlib.suppress(UserError):
        read(path)


def test_a_cameras_picture_with_a_helper_is_the_picture(tmp_path: Path) -> None:
    first, helper = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (4, 4), "blue")
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[helper])
    assert read(tmp_path / "a.jpg").size == (8, 8)
