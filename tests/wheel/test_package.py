"""The package as it is installed: the command, the types, its weight."""

import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

import polylance

USE = """
    import polylance
    from typing_extensions import assert_type

    table = polylance.embed("docs.parquet", text="body", table="docs.lance", keep=["year"])
    assert_type(table, polylance.Table)
    assert_type(table.search("heat pumps", k=5, where="year >= 2020"), polylance.Rows)
    assert_type(polylance.run("docs.toml"), polylance.Report)
    polylance.embed("docs.parquet", table="docs.lance", progress=lambda step: print(step.done / step.total))
    table.search("x", mode="words")
"""


def test_the_package_comes_from_the_wheel():
    assert "site-packages" in polylance.__file__
    assert (pathlib.Path(polylance.__file__).parent / "py.typed").exists()


def test_the_command_is_installed(command):
    shown = command("--version")
    assert shown.stdout.split() == ["polylance", polylance.__version__]
    module = subprocess.run([sys.executable, "-m", "polylance", "--version"], capture_output=True, text=True)
    assert module.stdout == shown.stdout
    wrong = command("embed")
    assert wrong.returncode == 2 and "--source" in wrong.stderr


def test_importing_it_imports_no_other_library_but_numpy():
    others = "pandas polars pyarrow torch tqdm lancedb langchain_core bertopic mteb duckdb datasets"
    code = f"import polylance, sys; print([name for name in '{others}'.split() if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_a_missing_library_is_named(monkeypatch, documents, address):
    rows = polylance.embed(documents, text="body", table=address).sql("SELECT 1 AS one")
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(ModuleNotFoundError, match="pip install polars"):
        rows.to_polars()


def test_every_public_name_is_documented():
    for name in polylance.__all__:
        public = getattr(polylance, name)
        assert public.__doc__, name
        if isinstance(public, type):
            members = [member for member in vars(public) if not member.startswith("_")]
            functions = [member for member in members if callable(getattr(public, member))]
            assert all(getattr(public, member).__doc__ for member in functions), name


def test_callers_are_checked_by_type_checkers(tmp_path):
    file = tmp_path / "use.py"
    file.write_text(textwrap.dedent(USE), encoding="utf-8")
    mypy = [sys.executable, "-m", "mypy", "--strict", file]
    checked = subprocess.run(mypy, capture_output=True, text=True, cwd=tmp_path)
    errors = [line for line in checked.stdout.splitlines() if ": error:" in line]
    assert len(errors) == 1 and '"mode"' in errors[0] and "words" in errors[0], checked.stdout


def test_the_stub_describes_the_native_module(tmp_path):
    stubtest = [sys.executable, "-m", "mypy.stubtest", "--ignore-disjoint-bases", "polylance._polylance"]
    checked = subprocess.run(stubtest, capture_output=True, text=True, cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout


def test_the_built_in_model_may_be_in_a_package_of_its_own(tmp_path):
    def encode() -> subprocess.CompletedProcess[str]:
        code = "import polylance; print(polylance.Encoder().encode('x').shape)"
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)

    package = tmp_path / "polylance_e5_small"
    package.mkdir()
    (package / "__init__.py").touch()
    name = "multilingual-e5-small-q4_0.gguf"
    without = encode()
    assert "UsageError" in without.stderr and str(package / name) in without.stderr
    assets = pathlib.Path(__file__).parents[2] / "crates/builtin/assets"
    (package / name).symlink_to(assets / name)
    assert encode().stdout.strip() == "(384,)"
