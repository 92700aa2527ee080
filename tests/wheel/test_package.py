"""The package as it is installed: the command, the types, where it comes from."""

import pathlib
import subprocess
import sys

import polylance


def test_the_package_comes_from_the_wheel():
    assert "site-packages" in polylance.__file__
    assert (pathlib.Path(polylance.__file__).parent / "py.typed").exists()


def test_the_command_is_installed():
    command = pathlib.Path(sys.executable).parent / "polylance"
    shown = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("polylance ")
    wrong = subprocess.run([command, "embed"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "--source" in wrong.stderr
