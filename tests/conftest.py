"""The fixtures and options of this test suite. The plugin `multidrop.testing.plugin` adds the option `--backend`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import uninstalled  # noqa: F401  # before multidrop is asked for its backends

import multidrop as md
from multidrop import host
from multidrop.section.data import fashion_mnist
from multidrop.spec import masks
from multidrop.testing import plugin
from multidrop.testing.plugin import DESTINATION, chosen, loaded

if TYPE_CHECKING:
    from modes import Mode

if find_spec("hypothesis"):  # where it is not, the tests that need it cannot run, and those on a GPU can
    from hypothesis import settings

    # No deadline, because the first example may wait for Numba to compile.
    settings.register_profile("multidrop", deadline=None)
    settings.load_profile("multidrop")


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    if not pluginmanager.has_plugin("multidrop"):  # multidrop is not installed, so it has no entry point
        pluginmanager.register(plugin, "multidrop")
        plugin.offer_short_option(parser)
    parser.addoption("--rounds", type=int, default=300, help="the number of calls with odd and bad arguments")
    parser.addoption("--damages", type=int, default=8, help="the number of damaged object files to start with")
    parser.addoption("--interruptions", type=int, default=20, help="the number of large calls that a signal interrupts")
    parser.addoption("--edits", type=int, default=500, help="how many times to damage a checkpoint")
    parser.addoption("--kills", type=int, default=20, help="how many times to end a process while it saves")
    parser.addoption("--sweep-kills", type=int, default=3, help="how many times to kill a sweep of experiments")
    parser.addoption(
        "--device",
        choices=["cpu", "cuda"],
        help="require the kernels for GPUs to run there; with cuda, run the files that `placed` lists, for torch",
    )
    parser.addoption("--full-data", action="store_true", help="require the full Fashion-MNIST in Debian's folder")


def pytest_configure(config: pytest.Config) -> None:
    if device := config.getoption("--device"):
        os.environ["MULTIDROP_DEVICE"] = device  # read by `placed` and `gpu_ways`, which are imported later
    if device == "cuda" and not config.getoption(DESTINATION):
        setattr(config.option, DESTINATION, ["torch"])


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `--device cuda`, only the files with tests that run on a GPU."""
    from placed import FILES

    name = collection_path.name
    left_out = config.getoption("--device") == "cuda" and name.startswith("test_") and name not in FILES
    return True if left_out else None


def pytest_report_header(config: pytest.Config) -> str | None:
    from placed import FILES

    return f"--device cuda: torch alone, and of {', '.join(FILES)}" if config.getoption("--device") == "cuda" else None


def pytest_unconfigure(config: pytest.Config) -> None:
    """With `--device cuda`, prints a table of the files, last."""
    terminal: Any = config.pluginmanager.get_plugin("terminalreporter")
    if config.getoption("--device") != "cuda" or terminal is None:
        return
    kinds = ("passed", "failed", "error", "skipped")
    files = [(Path(each.nodeid.partition("::")[0]).name, kind) for kind in kinds for each in terminal.getreports(kind)]
    terminal.section("on the GPU")
    terminal.write_line(f"{'':36}" + "".join(f"{kind:>9}" for kind in kinds))
    for name in sorted({name for name, _ in files}):
        terminal.write_line(f"{name:36}" + "".join(f"{files.count((name, kind)):>9}" for kind in kinds))


def parameters(config: pytest.Config, modes: dict[str, tuple[str, ...]]) -> list[Any]:
    """A parameter (backend, mode) for each mode of the chosen backends."""
    return [pytest.param((name, mode), id=mode) for name in modes if name in chosen(config) for mode in modes[name]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "mode" in metafunc.fixturenames:
        from modes import MODES

        metafunc.parametrize("mode", parameters(metafunc.config, MODES), indirect=True)


@pytest.fixture
def mode(request: pytest.FixtureRequest) -> Mode:
    """Each mode in turn: see `modes`."""
    from modes import modes_of

    backend, name = request.param
    loaded(request.config, backend)
    return next(mode for mode in modes_of(backend) if mode.name == name)


@pytest.fixture
def need(request: pytest.FixtureRequest) -> Any:
    """A function that loads a backend for a test of that backend: `need("torch")`. Skips the test if it was not chosen,
    and fails if it is missing."""
    return lambda name: loaded(request.config, name)


@pytest.fixture
def torch_backend(need: Any) -> Iterator[None]:
    """Sets torch as the backend of a test that needs it, and drops what its compiler has cached."""
    need("torch")
    import torch

    torch.compiler.reset()
    with md.use_backend("torch"):
        yield


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of a file to write, in an empty folder."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "file.png"


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
    """Skips tests of the full Fashion-MNIST if it is missing, or fails with `--full-data`."""
    if not fashion_mnist.DEBIAN_FOLDER.is_dir():
        if pytestconfig.getoption("--full-data"):
            pytest.fail(f"--full-data was given, but {fashion_mnist.DEBIAN_FOLDER} does not exist")
        pytest.skip(f"{fashion_mnist.DEBIAN_FOLDER} does not exist, and --full-data was not given")


def by_the_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the specification's plain NumPy draw what the host draws, in each module that holds a function for it."""
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "multidrop"]
    for name in ("keep_mask", "dropout"):
        own = getattr(host, name)
        for module in modules:
            if vars(module).get(name) is own:
                monkeypatch.setattr(module, name, getattr(masks, name))


@pytest.fixture(autouse=True)
def on_the_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """With `--device cuda`, torch makes tensors on the GPU in all tests but those of its kernels, which say where."""
    import placed

    if placed.PLACE == "cpu" or request.path.name.startswith("test_gpu_"):
        yield
        return
    if not find_spec("numba"):  # by which the host draws
        by_the_oracle(monkeypatch)
    placed.begin()
    yield
    placed.end()


@pytest.fixture(autouse=True)
def unseeded() -> Iterator[None]:
    """Starts each test without `manual_seed` in force and with NumPy's generator seeded, and resets `manual_seed`."""
    md.manual_seed(None)
    np.random.seed(0)
    yield
    md.manual_seed(None)


@pytest.fixture(autouse=True)
def no_members_added() -> Iterator[None]:
    """Removes members of the family that a test defines, such as those in the examples of the pages."""
    before = dict(md.family.MEMBERS)
    yield
    md.family.MEMBERS.clear()
    md.family.MEMBERS.update(before)
