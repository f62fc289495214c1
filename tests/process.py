"""Python in a process of its own, from the repository's root."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run_python(code: str) -> str:
    """Runs `code`; a non-zero exit fails the test with what it wrote to stderr."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_image(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`python3 image.py …` in the folder `cwd`."""
    command = [sys.executable, str(ROOT / "image.py"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, encoding="utf-8")
