"""Clips from and to files: every codec, sizes odd and even, what is stamped in, and what is refused."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from noisette import clip_record, clips, codecs, names, stamps
from noisette.cli import run
from noisette.clips import Frame
from noisette.codecs import CODECS
from noisette.errors import UserError
from noisette.reading import read

TEXT = json.dumps({"recipe": {"prompt": "ä “quoted” " + "x" * 70_000}})


def frames(width: int, height: int, count: int) -> list[Frame]:
    """A square that walks over smooth colours."""
    y, x = np.mgrid[:height, :width]
    made = []
    for i in range(count):
        frame = np.stack([x * 2 + i * 5, y * 3 % 256, x + y + 4 * i], -1).clip(0, 255).astype(np.uint8)
        frame[8:24, 4 * i : 4 * i + 16] = (220, 30, 40)
        made.append(frame)
    return made


def psnr(a: list[Frame], b: list[Frame]) -> float:
    return float(10 * np.log10(255**2 / np.mean((np.stack(a).astype(float) - np.stack(b)) ** 2)))


@pytest.mark.parametrize("size", [(64, 48), (65, 47)])
@pytest.mark.parametrize("name", CODECS)
def test_each_codec_keeps_size_count_rate_and_pixels(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    codec = CODECS[name]
    path = tmp_path / f"clip{codec.suffix}"
    made = frames(*size, 10)
    if name == "av1" and size[0] % 2:
        with pytest.raises(UserError, match="takes even sizes only"):
            codecs.encode(path, made, codec, size, Fraction(10))
        return
    codecs.encode(path, iter(made), codec, size, Fraction(10))
    clip = clips.probe(path)
    assert (clip.size, clip.num_frames, clip.fps) == (size, 10, Fraction(10))
    read = list(clips.frames(path))
    assert np.array_equal(read, made) if codec.lossless else psnr(read, made) > 30


def test_colours_survive_h264_within_three_steps(tmp_path: Path) -> None:
    colours = [(220, 30, 40), (30, 200, 60), (20, 60, 230), (255, 255, 255), (0, 0, 0)]
    made = [np.full((64, 64, 3), colour, np.uint8) for colour in colours]
    codecs.encode(tmp_path / "a.mp4", made, CODECS["h264"], (64, 64), Fraction(8))
    read = list(clips.frames(tmp_path / "a.mp4"))
    assert np.abs(np.stack(read).astype(int) - np.stack(made)).max() <= 3


@pytest.mark.parametrize("name", CODECS)
def test_a_stamp_is_read_back_and_changes_no_frame(name: str, tmp_path: Path) -> None:
    codec = CODECS[name]
    plain, stamped = tmp_path / f"plain{codec.suffix}", tmp_path / "stamped.tag"
    codecs.encode(plain, frames(64, 48, 6), codec, (64, 48), Fraction(12))
    stamps.stamp(plain, stamped, codec.suffix, TEXT.encode("ascii", "backslashreplace").decode())
    assert stamps.read_stamp(plain) is None
    assert stamps.read_stamp(stamped) == TEXT.encode("ascii", "backslashreplace").decode()
    assert np.array_equal(list(clips.frames(plain)), list(clips.frames(stamped)))
    assert clips.probe(stamped).fps == 12


FOREIGN = ("Made with another tool", "[1, 2]", '{"prompt": "a cat"}', '{"recipe": {"workflow": 3}}', "7")


@pytest.mark.parametrize("text", FOREIGN)
@pytest.mark.parametrize("name", ["h264", "png", "gif", "webp"])
def test_another_programs_comment_is_no_recipe(
    name: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codec = CODECS[name]
    codecs.encode(tmp_path / "plain", frames(64, 48, 4), codec, (64, 48), Fraction(8))
    path = tmp_path / f"theirs{codec.suffix}"
    stamps.stamp(tmp_path / "plain", path, codec.suffix, text)
    for command, arguments in (("video", ["--from"]), ("inspect", []), ("verify", [])):
        assert run(command, [*arguments, str(path)]) == 2
        error = capsys.readouterr().err
        assert "carries no recipe" in error
        assert error.count("\n") == 1


def test_the_rate_of_television_stays_exact(tmp_path: Path) -> None:
    rate = Fraction(30000, 1001)
    codecs.encode(tmp_path / "a.mkv", frames(32, 32, 20), CODECS["ffv1"], (32, 32), rate)
    assert clips.probe(tmp_path / "a.mkv").fps == rate


def refused(path: Path) -> str:
    """The line that `probe` gives."""
    with pytest.raises(UserError) as error:
        clips.probe(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_no_clip_is_one_line(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.webp")
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nhttp://example.com/a.ts\n")
    codecs.encode(tmp_path / "whole.mp4", frames(64, 48, 8), CODECS["h264"], (64, 48), Fraction(8))
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "whole.mp4").read_bytes()[:900])
    for name in ("a.png", "a.webp"):
        assert "is a picture, not a clip" in refused(tmp_path / name)
    for name in ("text.mp4", "empty.mp4", "list.m3u8", "cut.mp4"):
        assert "no clip that can be read, or is damaged" in refused(tmp_path / name)


def test_sound_alone_has_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    assert "has no video in it" in refused(tmp_path / "a.mp4")


def test_a_codec_that_is_not_known_is_one_line(tmp_path: Path) -> None:
    codecs.encode(tmp_path / "known.mkv", frames(64, 48, 8), CODECS["ffv1"], (64, 48), Fraction(8))
    unknown = (tmp_path / "known.mkv").read_bytes().replace(b"V_FFV1", b"V_QQQ1").replace(b"FFV1", b"QQQ1")
    (tmp_path / "a.mkv").write_bytes(unknown)
    assert "is in a codec that this PyAV can't read" in refused(tmp_path / "a.mkv")


def test_no_frames(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "bgr0"
        container.start_encoding()
    assert "has no frames" in refused(tmp_path / "a.mkv")


def write(path: Path, times: list[int], rotation: int = 0) -> None:
    """A lossless clip with these times in hundredths of a second."""
    with av.open(str(path), "w", options={}) as container:
        stream = container.add_stream("libx264", rate=100, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        if rotation:
            stream.set_display_rotation(rotation)
        for time in times:
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), time, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 100)
            container.mux(stream.encode(frame.reformat(format="yuv444p")))
        container.mux(stream.encode(None))


def test_a_variable_rate_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", [0, 10, 20, 45, 50, 60])
    line = refused(tmp_path / "a.mp4")
    assert "has a variable frame rate (4 to 20 a second)" in line
    assert "ffmpeg -i a.mp4 -vf fps=8" in line


def test_rotation_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", [0, 10, 20], rotation=90)
    assert "is to be turned by" in refused(tmp_path / "a.mp4")


def test_a_size_that_changes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = []
    for size in ((64, 48), (32, 48)):
        codecs.encode(tmp_path / "part.mp4", frames(*size, 4), CODECS["h264"], size, Fraction(8))
        with av.open(str(tmp_path / "part.mp4")) as old, av.open(str(tmp_path / "part.ts"), "w") as new:
            stream = new.add_stream_from_template(old.streams.video[0], opaque=True)
            for packet in old.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    new.mux(packet)
        parts.append((tmp_path / "part.ts").read_bytes())
    (tmp_path / "a.ts").write_bytes(b"".join(parts))
    assert "changes size at frame 4, from 64x48 to 32x48" in refused(tmp_path / "a.ts")


def save(path: Path, made: Iterator[Frame], name: str = "ffv1") -> clip_record.Saved:
    """`clip_record.save` of 64x48 frames."""
    claims = {"recipe": {"prompt": "a"}, "provenance": {}}
    return clip_record.save(path, made, 6, CODECS[name], (64, 48), Fraction(8), lambda: claims)


@pytest.mark.parametrize("name", CODECS)
def test_saving_proves_the_file_and_draws_a_contact_sheet(name: str, tmp_path: Path) -> None:
    path = names.reserve(tmp_path, "a", "text2video", 1, 2, CODECS[name].suffix)
    assert save(path, iter(frames(64, 48, 6)), name).proved
    claims = json.loads(stamps.read_stamp(path) or "")
    assert claims["pixels"] == clip_record.tally(frames(64, 48, 6)).sha256
    assert (claims["decoded"] == claims["pixels"]) == CODECS[name].lossless
    assert len(claims["frames"]) == 6
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, path.name + ".png"]
    with Image.open(tmp_path / (path.name + ".png")) as sheet:
        assert sheet.size == (6 * 64, 48)


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[Frame]:
        yield from frames(64, 48, 3)
        raise KeyboardInterrupt

    path = names.reserve(tmp_path, "a", "text2video", 1, 2, ".mkv")
    with pytest.raises(KeyboardInterrupt):
        save(path, broken())
    assert list(tmp_path.iterdir()) == []


def test_no_room_on_the_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (6, 48, 64, 3)).astype(np.uint8)
    path = names.reserve(tmp_path, "a", "text2video", 1, 2, ".mkv")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(UserError, match="can't be written"):
            save(path, iter(noise))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_a_torn_png_is_told_of_as_a_picture(tmp_path: Path) -> None:
    whole = tmp_path / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(whole)
    torn = tmp_path / "torn.png"
    for length in (30, 2000):  # within the header, within the data
        torn.write_bytes(whole.read_bytes()[:length])
        assert not clips.is_clip(torn)
        with pytest.raises(UserError, match=r"torn\.png is (damaged or cut short|not a picture that can be read)"):
            read(torn)
