"""A virtual environment with the peers, created once outside the clone."""

import argparse
import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DEFAULT_VENV = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "polylance" / "venv-torch"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--venv", type=Path, default=DEFAULT_VENV, help="the peers' virtual environment, made if absent")


def enter(folder: Path, requirements: str = "requirements.txt") -> None:
    """Continue this script with the environment's Python, after installing what is missing there."""
    # Weights are exported, never downloaded; transformers' warnings about the unused pooler are noise here.
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}
    folder = folder.resolve()
    python = folder / "bin" / "python"
    if Path(sys.prefix).resolve() == folder:
        return
    if not python.exists():
        print(f"making {folder} for {requirements}", file=sys.stderr)
        venv.create(folder, with_pip=True)
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", HERE / requirements],
        check=True,
    )
    os.execv(python, [str(python), *sys.argv])
