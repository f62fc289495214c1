"""What may import what: the entrances stay light, and imports point down only."""

import ast
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.process import ROOT, run_python

HEAVY = ("numpy", "PIL", "torch", "diffusers", "transformers", "openvino", "ray", "tokenizers", "huggingface_hub")
LIGHT = ("recipe", "errors", "catalog", "plan", "cli", "checkpoint", "names", "engines", "optimized")
LAYERS = (  # each may import those before it
    {"errors", "distances", "steadiness"},
    {"recipe", "tensors", "ldm_keys", "catalog", "sampling"},
    {"sizes", "kinds", "ldm_configs", "ldm_tensors", "schedules", "noise", "mapped", "reading", "names",
     "clip_fields", "motion", "moving", "tiles", "wording"},
    {"hub", "checkpoint", "masks", "metadata", "text", "lora", "clips", "codecs", "optimized", "clip_plan"},
    {"pixels", "record", "families", "windows", "blending", "seams", "stamps", "adapters", "checks"},
    {"engines", "modes", "plan", "inputs", "clip_record", "upscaling", "journal", "image_prompt",
     "thesaurus", "origins"},
    {"finish"},
    {"generate", "output", "preview"},
    {"whole_clips"},
    {"video"},
    {"verify"},
    {"judge", "optimize", "speed"},
    {"cli", "train", "bench"},
    {"__main__"},
)  # fmt: skip


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_import_nothing_heavy(module: str) -> None:
    run_python(f"import sys, noisette.{module}; found = set({HEAVY}) & set(sys.modules); assert not found, found")


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from noisette.cli import run\ntry: run('image', ['--help'])\nexcept SystemExit: pass\n"
    run_python(code + f"found = set({HEAVY}) & set(sys.modules); assert not found, found")


def test_a_picture_on_the_light_engine_imports_no_torch(tmp_path: Path) -> None:
    heavy = ("torch", "diffusers", "transformers")
    arguments = ["--prompt", "alien", "--steps", "1", "--engine", "openvino", "--out", str(tmp_path)]
    run_python(
        f"import sys; from noisette.cli import run; assert run('image', {arguments}) == 0;"
        f"found = set({heavy}) & set(sys.modules); assert not found, found"
    )


def top(name: str) -> str:
    """noisette.engines.torch_engine -> engines."""
    return name.split(".")[1] if "." in name else ""


def imports_of(path: Path) -> set[str]:
    """The modules of this project that a file imports when it is imported (not those inside functions)."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("noisette"):
            names = [f"noisette.{alias.name}" for alias in node.names] if node.module == "noisette" else [node.module]
            found |= {top(name) for name in names if name and top(name) not in ("", "__version__")}
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "noisette").rglob("*.py")), ids=lambda path: path.stem)
def test_imports_point_down(path: Path) -> None:
    own = path.relative_to(ROOT / "noisette").parts[0].removesuffix(".py")
    if own == "__init__":
        return
    layer = next(i for i, names in enumerate(LAYERS) if own in names)
    allowed = set().union(*LAYERS[:layer]) | {own}
    assert imports_of(path) <= allowed | LAYERS[layer]


SCRIPTS = [
    *sorted((ROOT / "benchmarks").glob("*.py")),
    ROOT / "docs" / "studies" / "run.py",
    ROOT / "scripts" / "draw_clips",
]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_import_what_is_there(path: Path) -> None:
    """Also inside functions, which only a run of minutes would meet."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("noisette", "benchmarks"):
            module = import_module(node.module or "")
            for alias in node.names:
                assert hasattr(module, alias.name) or find_spec(f"{node.module}.{alias.name}"), alias.name
