"""File names: safe anywhere, short enough, one owner each."""

from __future__ import annotations

import multiprocessing
import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noisette import names
from noisette.errors import UserError
from noisette.names import (
    LONGEST,
    PART,
    check_writable,
    file_name,
    part_of,
    preview,
    publish,
    release,
    reserve,
    slug,
)

DOCUMENTED = (
    "shop keeper and customers, photo, photography, dslr, humans, indoor lighting, national geographic,"
    " sharp focus, realistic, beautiful, 4k"
)


def safe_on_windows(name: str) -> bool:
    """Microsoft's rules for a file name, written independently of `slug`."""
    stem = name.split(".")[0].rstrip(" ").upper()
    devices = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"}
    devices |= {f"{port}{n}" for port in ("COM", "LPT") for n in "0123456789¹²³"}
    return (
        not any(c in '<>:"/\\|?*' or ord(c) < 32 for c in name)
        and not name.endswith((" ", "."))
        and stem not in devices
        and 0 < len(name.encode("utf-16-le")) // 2 <= 255
    )


def test_the_documented_name() -> None:
    expected = (
        "shop_keeper_and_customers,_photo,_photography,_dslr,_humans,_indoor_lighting,_national_geographic,"
        "_sharp_focus,_realistic,_beautiful,_4k-inpainting-1024-50its-0.png"
    )
    assert file_name(DOCUMENTED, "inpainting", 1024, 50, 0) == expected


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("alien", "alien"),
        ("", "untitled"),
        ("...", "untitled"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ('a <b>: c|d?*\\"', "a__b___c_d____"),
        ("line\none\ttab\0nul", "line_one_tabnul"),
        ("con", "_con"),
        ("NUL.txt of things", "_NUL.txt_of_things"),
        ("com¹.x", "_com¹.x"),
        ("control", "control"),
        ("--help me", "help_me"),
        ("u\u0308ber", "über"),
        ("exe\u202egnp.x", "exegnp.x"),
        ("dots. . .", "dots._._"),
    ],
)
def test_slugs(prompt: str, expected: str) -> None:
    assert slug(prompt) == expected


@settings(max_examples=120, deadline=None)
@given(st.text(max_size=150) | st.text("aä漢👩\u200d🚀\u0301", min_size=90, max_size=200), st.integers(0, 10**6))
def test_any_prompt_gives_a_name_that_every_system_takes(prompt: str, n: int) -> None:
    name = file_name(prompt, "inpainting", 2**63 - 1, 1000, n)
    assert safe_on_windows(name)
    assert len((name + PART).encode()) <= LONGEST
    assert unicodedata.is_normalized("NFC", name)
    assert not name.startswith((".", "-"))


def test_the_cut_is_between_whole_characters() -> None:
    assert slug("é" * 300, 7) == "ééé"
    assert slug("ab" + "x\u0301", 3) == "ab"
    assert slug("a\U0001f469\u200d\U0001f680", 8) == "a\U0001f469"


def test_names_count_up_and_a_taken_one_is_never_given_again(tmp_path: Path) -> None:
    out = tmp_path / "not" / "yet"
    wanted = (out, "alien", "text2img", 1024, 25)
    assert preview(*wanted) == out / "alien-text2img-1024-25its-0.png"
    assert not out.exists()
    first = reserve(*wanted)
    assert first == out / "alien-text2img-1024-25its-0.png"
    assert preview(*wanted).name == reserve(*wanted).name == "alien-text2img-1024-25its-1.png"
    part_of(first).write_bytes(b"whole")
    publish(first)
    assert first.read_bytes() == b"whole"
    assert not part_of(first).exists()
    assert reserve(*wanted).name == "alien-text2img-1024-25its-2.png"
    release(out / "alien-text2img-1024-25its-1.png")
    assert reserve(*wanted).name == "alien-text2img-1024-25its-1.png"


@pytest.mark.parametrize("links", [True, False])
def test_publishing_overwrites_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    ours, theirs = (reserve(tmp_path, prompt, "text2img", 1, 1) for prompt in ("ours", "theirs"))
    theirs.write_bytes(b"theirs")
    with pytest.raises(FileExistsError):
        publish(theirs)
    assert theirs.read_bytes() == b"theirs"
    publish(ours)
    assert ours.exists()
    assert not part_of(ours).exists()


def test_a_name_published_between_looking_and_taking_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.touch()
    assert not names.take(path)
    assert not part_of(path).exists()


def take_names(out: Path, barrier: object, queue: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    taken = []
    for i in range(100):
        path = reserve(out, "alien", "text2img", 7, 25)
        taken.append(path.name)
        if i % 2:
            publish(path)
    queue.put(taken)  # type: ignore[attr-defined]


def test_two_processes_at_once_never_get_the_same_name(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(2), context.Queue()
    workers = [context.Process(target=take_names, args=(tmp_path, barrier, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    taken = [*queue.get(timeout=60), *queue.get(timeout=60)]
    for worker in workers:
        worker.join()
    assert len(taken) == len(set(taken)) == 200
    assert set(taken) == {f"alien-text2img-7-25its-{n}.png" for n in range(200)}


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_writable(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="is a file, not a folder"):
            check_writable(out)
        with pytest.raises(UserError, match="can't be written"):
            reserve(out, "alien", "text2img", 1, 1)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match="permission denied"):
        check_writable(tmp_path)
