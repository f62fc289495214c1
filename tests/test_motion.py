"""Windows cover every frame, walks reach their stations, prompts change where they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisette.clip_fields import parse_motion, parse_travel
from noisette.errors import UserError
from noisette.motion import along, even_stops, windowed, windows
from noisette.sampling import Level


@given(st.integers(1, 80), st.integers(1, 32), st.integers(0, 31), st.booleans(), st.integers(0, 9))
def test_windows_cover_all_frames_and_fit(frames: int, length: int, overlap: int, loop: bool, step: int) -> None:
    found = list(windows(frames, length, min(overlap, length - 1), loop, step))
    assert set(np.concatenate(found)) == set(range(frames))
    assert all(len(window) == min(length, frames) for window in found)
    assert all(len(set(window)) == len(window) for window in found)


def test_windows_of_a_long_clip() -> None:
    assert [list(w) for w in windows(10, 4, 1, False, 0)] == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert [list(w) for w in windows(9, 4, 1, False, 0)] == [[0, 1, 2, 3], [3, 4, 5, 6], [5, 6, 7, 8]]
    assert [list(w) for w in windows(4, 4, 0, True, 1)] == [[2, 3, 0, 1]]


@pytest.mark.parametrize("loop", [False, True])
def test_a_denoiser_that_looks_at_one_frame_is_unchanged_by_windows(loop: bool) -> None:
    x = np.random.default_rng(0).normal(size=(1, 3, 11, 2, 2)).astype(np.float32)
    denoise = windowed(lambda window: lambda part, level: part * level.alpha, 11, 4, 2, loop)
    for _ in range(3):
        assert denoise(x, Level(0.5, 0.5)) == pytest.approx(x * 0.5, abs=1e-6)


def test_shared_frames_are_averaged_by_their_distance_from_the_ends() -> None:
    x = np.zeros((1, 1, 3, 1, 1), np.float32)
    denoise = windowed(lambda window: lambda part, level: part + window[0], 3, 2, 1, False)
    assert denoise(x, Level(1, 0)).ravel().tolist() == [0.0, 0.5, 1.0]


def test_a_walk_reaches_its_stations_and_a_loop_returns() -> None:
    a, b = np.eye(2, 16, dtype=np.float32)
    stations = np.stack([a, b])
    straight = along(stations, even_stops(2, 5, False), 5, False)
    assert np.array_equal(straight[0], a)
    assert np.array_equal(straight[4], b)
    assert straight[2] @ a == pytest.approx(np.sqrt(0.5))
    loop = along(stations, even_stops(2, 4, True), 4, True)
    assert np.array_equal(loop[2], b)
    assert loop[1] == pytest.approx(loop[3], abs=1e-6)


def test_a_prompt_that_changes() -> None:
    assert parse_travel("0: a seed; 8: a sapling;16:a tree") == ((0, "a seed"), (8, "a sapling"), (16, "a tree"))
    for plain in ("a red apple", "a clock at 12: 30", "cat; dog", "", "16:9"):
        assert len(parse_travel(plain)) == 1
    assert parse_travel("a clock") == ((0, "a clock"),)
    with pytest.raises(UserError, match="0, 8, 4 do not grow"):
        parse_travel("0: a; 8: b; 4: c")


def test_motion_is_words_a_strength_or_both() -> None:
    assert parse_motion("spin") == ("spin", 1.0)
    assert parse_motion("slide left:1.5") == ("slide left", 1.5)
    assert parse_motion("0.5") == ("", 0.5)
    assert parse_motion("") == ("", 1.0)
    with pytest.raises(UserError, match="out of range"):
        parse_motion("spin:9")
