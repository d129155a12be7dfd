"""The command line, as a user runs it: in a process of its own."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multidrop as md
from multidrop.dispatch import VARIABLE
from multidrop.section import figure
from multidrop.spec import masks


def multidrop(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name != VARIABLE}
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "multidrop", *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        cwd=cwd,
        env={**clean, "COLUMNS": "160", **environment},
        check=False,
    )


def test_train(backend: Any, tmp_path: Path) -> None:
    done = multidrop("train", "--backend", backend.name, "--data", "mini", "--epochs", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if not line.startswith("The speed of epoch 1")]
    assert [line.split()[0] for line in lines[:3]] == ["epoch", "1", "2"]
    assert "mini Fashion-MNIST, 6,000 training and 1,000 test images" in done.stdout
    history = md.History.from_json(tmp_path / "multidrop-out" / "history.json")
    assert lines[-1] == f"test accuracy {history.epochs[-1].test_accuracy:.4f} after 2 epochs; results in multidrop-out"
    assert done.stderr == ""
    assert history.settings["backend"] == backend.name
    assert history.settings["version"] == backend.version
    assert history.settings["dropout"] == [0.2, 0.5]
    assert len((tmp_path / "multidrop-out" / "history.csv").read_text().splitlines()) == 3
    assert (tmp_path / "multidrop-out" / "curves.png").stat().st_size > 10_000


def test_train_with_every_option(tmp_path: Path) -> None:
    options = "--epochs 1 --lr 0.1 --batch-size 500 --dropout 0 1 --hidden 8 4 --concise --dtype float64 --device cpu"
    done = multidrop(
        "train",
        *options.split(),
        "--seed",
        "7",
        "--data",
        "mini",
        "--weight-decay",
        "0.01",
        "--out",
        "here",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    settings = json.loads((tmp_path / "here" / "history.json").read_text())["settings"]
    expected = {"net": "concise", "hidden": [8, 4], "dropout": [0.0, 1.0], "seed": 7, "batch_size": 500, "lr": 0.1}
    assert expected.items() <= settings.items()
    assert (settings["dtype"], settings["weight_decay"]) == ("float64", 0.01)


def test_a_device_that_is_not_here(tmp_path: Path) -> None:
    """Is named in a line, before anything is loaded or written."""
    done = multidrop("train", "--backend", "numpy", "--device", "cuda", "--data", "nowhere", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "multidrop: device: expected cpu, where numpy can train here; got 'cuda'\n"
    assert list(tmp_path.iterdir()) == []


def test_all_backends_side_by_side(tmp_path: Path, need: Any) -> None:
    for name in ("numpy", "torch", "tensorflow", "mxnet"):
        need(name)
    done = multidrop("train", "--backend", "all", "--data", "mini", "--epochs", "1", "--dtype", "float64", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "largest relative difference" in done.stdout
    assert re.search(r"largest difference between two backends: train loss [\d.e-]+ \(relative\), ", done.stdout)
    assert "test accuracy after 1 epoch: mxnet 0." in done.stdout
    assert done.stderr == ""
    with open(tmp_path / "multidrop-out" / "comparison.csv") as file:
        (row,) = csv.DictReader(file)
    losses = [float(row[f"train loss {name}"]) for name in ("numpy", "torch", "tensorflow", "mxnet")]
    assert max(losses) - min(losses) == pytest.approx(float(row["train loss difference"]) * max(losses))
    assert float(row["train loss difference"]) < 1e-9
    assert float(row["test accuracy difference"]) == 0
    for name in ("numpy", "torch", "tensorflow", "mxnet"):
        assert (tmp_path / "multidrop-out" / name / "history.json").exists()


def test_the_backend_of_the_environment(tmp_path: Path, need: Any) -> None:
    need("torch")
    options = ("--data", "mini", "--epochs", "1")
    assert multidrop("train", *options, cwd=tmp_path, **{VARIABLE: "torch"}).returncode == 0
    assert md.History.from_json(tmp_path / "multidrop-out" / "history.json").settings["backend"] == "torch"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """What `multidrop demo` prints of all backends, which takes a while to import."""
    folder = tmp_path_factory.mktemp("demo")
    done = multidrop("demo", cwd=folder)
    assert (folder / "multidrop-out" / "dropout.png").read_bytes().startswith(b"\x89PNG")
    return done


def test_demo(backend: Any, demo: subprocess.CompletedProcess[str]) -> None:
    """Each backend shows the section's examples, with the same numbers."""
    assert demo.returncode == 0, demo.stderr
    shown = demo.stdout.split(f"{backend.name} {backend.version}\n")[1].split("\n\n")[0]
    printed = re.split(r"dropout_layer\(X, [\d.]+, Key\(3\)\)", shown)[1:]
    X = np.arange(16.0, dtype=np.float32).reshape(2, 8)
    for p, text in zip((0.0, 0.5, 1.0), printed, strict=True):
        numbers = [float(number) for number in re.findall(r"\d+\.", text)]
        assert numbers == masks.dropout(X, p, md.Key(figure.SEED)).ravel().tolist()


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The line that `multidrop backends` has of each, a third party's among them."""
    path = os.pathsep.join([str(Path(__file__).parent / "plugin"), os.environ.get("PYTHONPATH", "")])
    done = multidrop("backends", cwd=tmp_path_factory.mktemp("backends"), PYTHONPATH=path, COLUMNS="40")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return {line.split()[0]: line for line in done.stdout.splitlines()}


def test_backends(backend: Any, backends: dict[str, str]) -> None:
    assert backend.version in backends[backend.name]
    assert ("in force" if backend.name == "numpy" else "ready") in backends[backend.name]


def test_backends_that_cannot_be_used(backends: dict[str, str]) -> None:
    assert "not installed: pip install toyframe-backend" in backends["absentframe"]
    assert "broken: " in backends["brokenframe"]
    assert "AttributeError: module 'numpy' has no attribute 'bool'" in backends["brokenframe"]
    assert "ready" in backends["toyframe"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--epochs 0", "num_epochs: expected an integer above 0; got 0"),
        ("--epochs many", "--epochs"),
        ("--lr -1", "lr: expected a finite number of at least 0; got -1.0"),
        ("--lr nan", "lr: expected a finite number of at least 0; got nan"),
        ("--batch-size 0", "batch_size: expected an integer above 0; got 0"),
        ("--dropout 0.5 1.5", "dropout2: expected a probability, a number in [0, 1]; got 1.5"),
        ("--dropout nan 0.5", "dropout1: expected a probability, a number in [0, 1]; got nan"),
        ("--dropout 0.5", "--dropout"),
        ("--hidden 0 4", "num_hiddens1: expected an integer above 0; got 0"),
        ("--dtype float16", "dtype: expected one of 'float32', 'float64'; got 'float16'"),
        ("--seed -1", "seed: expected an integer in [0, 2^64); got -1"),
        ("--weight-decay inf", "weight_decay: expected a finite number of at least 0; got inf"),
        ("--backend jax", "backend: expected one of 'mxnet', 'numpy', 'tensorflow', 'torch', 'all'; got 'jax'"),
        ("--backend pytorch", ": did you mean 'torch'?"),
        ("--resume", "--resume: expected --checkpoint FILE too"),
        ("--nonsense", "--nonsense"),
        ("extra", "extra"),
    ],
)
def test_bad_options_are_one_line(tmp_path: Path, options: str, message: str) -> None:
    done = multidrop("train", "--data", "mini", *options.split(), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("multidrop: ")
    assert message in line


def test_bad_data_is_one_line(tmp_path: Path) -> None:
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (tmp_path / name).write_bytes(b"no images")
    done = multidrop("train", "--data", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "train-images-idx3-ubyte: truncated or altered" in line


def test_an_output_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = multidrop("train", "--data", "mini", "--out", "file", cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "file" in line


def test_a_result_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "out" / "history.csv").mkdir(parents=True)
    done = multidrop("train", "--data", "mini", "--epochs", "1", "--out", "out", "--overwrite", cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "could not be written (Is a directory)" in line
    assert "Errno" not in line
    assert "history.csv" in line


def test_a_mode_that_shows_help(tmp_path: Path) -> None:
    for arguments in ((), ("--help",), ("train", "--help")):
        done = multidrop(*arguments, cwd=tmp_path)
        assert "Usage" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_an_output_without_all_characters(tmp_path: Path, encoding: str) -> None:
    """As a pipe on Windows is: a sign that it lacks is a question mark, and no error."""
    for arguments in (("train", "--help"), ("backends",), ("experiment", "list")):
        done = multidrop(*arguments, cwd=tmp_path, PYTHONIOENCODING=encoding)
        assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="a name that is not Unicode")
def test_a_folder_whose_name_is_not_unicode(tmp_path: Path) -> None:
    options = ("--data", "mini", "--epochs", "1", "--hidden", "4", "4", "--out", "x\udcff")
    done = multidrop("train", *options, cwd=tmp_path, PYTHONIOENCODING="utf-8")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("results in x?\n")
