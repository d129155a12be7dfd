"""The modes of each backend, and what the suite's options are; `--backend` is of `multidrop.testing.plugin`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from modes import MODES, Mode, modes_of

import multidrop as md
from multidrop.section.data import fashion_mnist
from multidrop.testing import plugin
from multidrop.testing.plugin import chosen, loaded

# The first example may wait for Numba to compile.
settings.register_profile("multidrop", deadline=None)
settings.load_profile("multidrop")


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    if not pluginmanager.has_plugin("multidrop"):  # a checkout that is not installed has no entry point
        pluginmanager.register(plugin, "multidrop")
        plugin.offer_short_option(parser)
    parser.addoption("--rounds", type=int, default=300, help="how many rounds of odd and bad arguments there are")
    parser.addoption("--damages", type=int, default=8, help="how many damaged object files a process starts with")
    parser.addoption("--interruptions", type=int, default=20, help="how many large calls a signal handler ends")
    parser.addoption("--edits", type=int, default=500, help="how many times a checkpoint is damaged")
    parser.addoption("--kills", type=int, default=20, help="how many times a process is ended while it saves")
    parser.addoption("--device", choices=["cpu", "cuda"], help="where the kernels for GPUs run; required")
    parser.addoption("--full-data", action="store_true", help="require the full Fashion-MNIST in Debian's folder")


def pytest_configure(config: pytest.Config) -> None:
    if device := config.getoption("--device"):
        os.environ["MULTIDROP_DEVICE"] = device  # which `test_device` reads, also where this file is missing


def parameters(config: pytest.Config, modes: dict[str, tuple[str, ...]]) -> list[Any]:
    """(backend, mode) for each mode of the backends that this run is about."""
    return [pytest.param((name, mode), id=mode) for name in modes if name in chosen(config) for mode in modes[name]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "mode" in metafunc.fixturenames:
        metafunc.parametrize("mode", parameters(metafunc.config, MODES), indirect=True)


@pytest.fixture
def mode(request: pytest.FixtureRequest) -> Mode:
    """Each way of computing in turn: see `modes`."""
    backend, name = request.param
    loaded(request.config, backend)
    return next(mode for mode in modes_of(backend) if mode.name == name)


@pytest.fixture
def need(request: pytest.FixtureRequest) -> Any:
    """`need("torch")`: that backend, for a test that is about it alone."""
    return lambda name: loaded(request.config, name)


@pytest.fixture(scope="session")
def torchvision(request: pytest.FixtureRequest) -> Iterator[Any]:
    """torchvision beside a CPU build of torch, for which its compiled operators are not made. Its import fails where an
    operator that it gives a shape function does not exist, and so does that of what imports it, timm and parts of
    transformers."""
    loaded(request.config, "torch")
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):  # it exists
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

    yield torchvision
    del library


@pytest.fixture(scope="session")
def full_data(pytestconfig: pytest.Config) -> None:
    """For tests of the real set."""
    if not fashion_mnist.DEBIAN_FOLDER.is_dir():
        if pytestconfig.getoption("--full-data"):
            pytest.fail(f"--full-data was given, and {fashion_mnist.DEBIAN_FOLDER} is not there")
        pytest.skip(f"the full set is not in {fashion_mnist.DEBIAN_FOLDER}, and --full-data was not given")


@pytest.fixture(autouse=True)
def unseeded() -> Iterator[None]:
    """Each test begins and ends without `manual_seed` in force, and with NumPy's generator at a fixed place."""
    md.manual_seed(None)
    np.random.seed(0)
    yield
    md.manual_seed(None)


@pytest.fixture(autouse=True)
def no_members_added() -> Iterator[None]:
    """A member that a test defines, as the examples of the pages do, is not listed after it."""
    before = dict(md.family.MEMBERS)
    yield
    md.family.MEMBERS.clear()
    md.family.MEMBERS.update(before)
