"""Axes: what is written is what is crossed, and every mistake is one line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisette.bench.axes import cells, from_csv, from_toml, parse_axis, read_sweep
from noisette.bench.conditions import parse_condition
from noisette.errors import UserError
from noisette.recipe import Recipe

AXES = {
    "steps=5..50:5": (("num_inference_steps",), tuple((n,) for n in range(5, 51, 5))),
    "num-inference-steps=0..5": None,  # 0 steps are out of range
    "seed=0..5": (("seed",), tuple((str(n),) for n in range(6))),
    "seed=7,1-3": (("seed",), (("7",), ("1",), ("2",), ("3",))),
    "steps=5..12:5": (("num_inference_steps",), ((5,), (10,))),
    "steps=1,4..6": (("num_inference_steps",), ((1,), (4,), (5,), (6,))),
    "guidance_scale=0..1:0.1": (("guidance_scale",), tuple((n / 10,) for n in range(11))),
    "sampler=euler,heun": (("sampler",), (("euler",), ("heun",))),
    'prompt="a cat, red",a dog..': (("prompt",), (("a cat, red",), ("a dog..",))),
    "W+H=128+64,64+128": (("img_w", "img_h"), ((128, 64), (64, 128))),
    "strict_mask=yes,False": (("strict_mask",), ((True,), (False,))),
}


@pytest.mark.parametrize("text", [text for text, wanted in AXES.items() if wanted])
def test_axes(text: str) -> None:
    axis = parse_axis(text)
    assert (axis.names, axis.values) == AXES[text]


MISTAKES = {
    "smapler=euler": "--sweep names an unknown field 'smapler'; did you mean 'sampler'?",
    "step=1,2": "did you mean 'steps'?",
    "sampler=eulr": "did you mean 'euler'?",
    "steps=50..5": "empty",
    "steps=5..50:0": "empty",
    "steps=5..50:-5": "empty",
    "steps=1..9:0.5": "whole numbers",
    "steps=1..": "no range",
    "steps=0..5": "out of range: 1 to 1000",
    "steps=": "no values",
    "steps=,": "not a whole number",
    "steps=5,5": "5 twice",
    "steps=1..1000000000": "at most 100,000",
    "batch_size=1,2": "changes nothing",
    "count=1,2": "changes nothing",
    "seed=a": "not a seed",
    "seed=": "no values",
    "W+H=64+64,128": "1 values for 2 fields",
    "W=60": "56 and 64",
    "alien": "neither name=values nor",
    "nowhere.toml": "is not there",
}


@pytest.mark.parametrize("text", list(MISTAKES))
def test_mistakes(text: str) -> None:
    with pytest.raises(UserError) as error:
        read_sweep([text], [], {})
    assert MISTAKES[text] in str(error.value)


@given(st.integers(1, 300), st.integers(0, 60), st.integers(1, 9))
def test_ranges_are_inclusive(first: int, width: int, step: int) -> None:
    values = [row[0] for row in parse_axis(f"steps={first}..{first + width}:{step}").values]
    assert values == list(range(first, first + width + 1, step))


def test_cells_cross_in_order_the_last_axis_fastest() -> None:
    sweep = read_sweep(["sampler=euler,heun", "steps=5,10"], [], {"prompt": "alien", "seed": "3,8"})
    found = [(r.sampler, r.num_inference_steps, r.seed, r.prompt) for _, r in cells(sweep)]
    assert found == [(s, n, seed, "alien") for s in ("euler", "heun") for n in (5, 10) for seed in ("3", "8")]


def test_without_a_seed_it_is_0_and_count_gives_seeds() -> None:
    assert [r.seed for _, r in cells(read_sweep(["steps=5"], [], {}))] == ["0"]
    found = [(r.seed, r.count) for _, r in cells(read_sweep(["steps=5"], [], {"seed": "4", "count": 3}))]
    assert found == [("4", 1), ("5", 1), ("6", 1)]


def test_seeds_stand_once() -> None:
    with pytest.raises(UserError, match="--count 3 can't stand beside --sweep seed"):
        list(cells(read_sweep(["seed=0..2", "steps=2"], [], {"count": 3})))


def test_the_command_line_goes_over_a_file(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text('where = "steps < 9"\n[recipe]\nprompt = "cat"\nsteps = 4\n[axes]\nsampler = ["euler"]\n')
    sweep = read_sweep([str(file), "sampler=heun,lcm", "steps=8..10"], [], {"prompt": "dog"})
    assert [(r.sampler, r.num_inference_steps, r.prompt) for _, r in cells(sweep)] == [
        ("heun", 8, "dog"),
        ("lcm", 8, "dog"),
    ]
    with pytest.raises(UserError, match="axis twice"):
        read_sweep(["steps=1", "steps=2"], [], {})
    with pytest.raises(UserError, match="give one of both"):
        read_sweep(["steps=1,2"], [], {"num_inference_steps": 4})


def test_toml() -> None:
    text = """
        where = ["sampler != heun or steps <= 10"]
        [recipe]
        negative-prompt = "red"
        seed = 7
        guidance_scale = 3
        [axes]
        sampler = ["euler", "heun"]
        steps = "10..20:10"
        "W+H" = [[64, 128], [128, 64]]
    """
    sweep = from_toml(text)
    found = [r for _, r in cells(sweep)]
    assert len(found) == 6
    assert {(r.negative_prompts, r.seed, r.guidance_scale) for r in found} == {("red", "7", 3.0)}
    assert [(r.sampler, r.num_inference_steps) for r in found][::2] == [("euler", 10), ("euler", 20), ("heun", 10)]


TOML_MISTAKES = {
    "[axis]\nsteps = [1]": "unknown key 'axis'; did you mean 'axes'?",
    "[axes]\nstesp = [1]": "did you mean 'steps'?",
    "[axes]\nsteps = [1.5]": "not of type int",
    "[axes]\nsteps = []": "no values",
    "[axes]\nsteps = 5": "neither a list nor a text",
    "[recipe]\nsampler = 'hen'": "'hen' is unknown",
    "[recipe]\nstesp = 5": "[recipe] names an unknown field 'stesp'; did you mean 'steps'?",
    "where = 'steps <'": "no condition",
    "[axes": "not TOML",
}


@pytest.mark.parametrize("text", list(TOML_MISTAKES))
def test_toml_mistakes(text: str) -> None:
    with pytest.raises(UserError) as error:
        from_toml(text)
    assert TOML_MISTAKES[text] in str(error.value)


def test_csv_is_a_cell_a_row() -> None:
    sweep = from_csv('prompt,steps,seed\n"a cat, red",5,1\n\na dog,,2\n')
    assert [(r.prompt, r.num_inference_steps, r.seed) for _, r in cells(sweep)] == [
        ("a cat, red", 5, "1"),
        ("a dog", None, "2"),
    ]
    with pytest.raises(UserError, match="row 3 has 1 columns, the header 2"):
        from_csv("steps,seed\n5,1\n5\n")
    with pytest.raises(UserError, match="no rows"):
        from_csv("steps\n")


CONDITIONS = {
    "steps <= 5": True,
    "steps > 5": False,
    "5 <= num_inference_steps < 6": True,
    "sampler == heun": True,
    "sampler in (euler, 'heun')": True,
    "not (sampler == heun and steps == 5)": False,
    "seed == 3": True,
    "seed in (1, 2)": False,
    "guidance_scale > 1": False,  # left open
    "steps != guidance_scale": True,
}


@pytest.mark.parametrize("text", list(CONDITIONS))
def test_conditions(text: str) -> None:
    recipe = Recipe(num_inference_steps=5, sampler="heun", seed="3")
    assert parse_condition(text).holds(recipe) is CONDITIONS[text]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("stepz <= 5", "no field; did you mean 'steps'?"),
        ("sampler == huen", "did you mean 'heun'?"),
        ("steps == five", "'five' is no value of num_inference_steps"),
        ("__import__('os').system('true')", "no condition"),
        ("steps == __import__('os')", "no condition"),
        ("steps", "no condition"),
        ("1 < 2", "names no field"),
        ("", "no condition"),
    ],
)
def test_condition_mistakes(text: str, wanted: str) -> None:
    with pytest.raises(UserError) as error:
        parse_condition(text)
    assert wanted in str(error.value)


def test_nothing_left_and_too_many_are_said() -> None:
    with pytest.raises(UserError, match="leaves none of 2 cells"):
        list(cells(read_sweep(["steps=5,6"], ["steps > 9"], {})))
    with pytest.raises(UserError, match="crosses to 1,000,000 cells"):
        list(cells(read_sweep(["steps=1..1000", "seed=0..999"], [], {})))


def test_an_empty_text_in_a_file_is_the_default() -> None:
    (axis,) = from_toml('[axes]\n"strict_mask+feather+blend" = [[false, "", ""], [true, 0, "poisson"]]').axes
    assert axis.values == ((False, None, "alpha"), (True, 0, "poisson"))
