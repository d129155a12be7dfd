"""One run: what determines it, its digest, and the file that keeps it."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np

from ... import checks, files
from ...dispatch import load, use_backend
from .experiment import Experiment, Measurements, Setting, named
from .lab import Lab
from .words import Text


class RunError(RuntimeError):
    """Raised if a run of an experiment fails. The message names its setting and seed."""


@dataclass(frozen=True)
class Run:
    """All that determines the result of one run. JSON can hold each field.

    Args:
        experiment: the experiment's name.
        version: the experiment's version.
        setting: the setting's name.
        values: the setting's values.
        seed: the seed.
        scale: the sizes of the scale.
        data: what the data loader takes.
        digest_of_data: identifies the contents of the data.
        backend: the backend's name.
        framework: the framework's version.
        dtype: "float32" or "float64".
    """

    experiment: str
    version: int
    setting: str
    values: Mapping[str, Any]
    seed: int
    scale: Mapping[str, Any]
    data: str
    digest_of_data: str
    backend: str
    framework: str
    dtype: str

    @property
    def identity(self) -> dict[str, Any]:
        """What the digest is taken of: all but where the data lies."""
        return {name: value for name, value in asdict(self).items() if name != "data"}

    @property
    def digest(self) -> str:
        """Names the run's file: 32 hexadecimal digits."""
        content = json.dumps(self.identity, sort_keys=True, ensure_ascii=False, allow_nan=False)
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()

    def __str__(self) -> str:
        return f"{self.experiment}, {self.setting}, seed {self.seed}"


def compute(run: Run) -> Measurements:
    """Computes a run in this process.

    Returns:
        The measurements, as JSON gives them back.

    Raises:
        RunError: if it fails, or measures what is not a finite number.
    """
    experiment: Experiment = named(run.experiment)
    lab = Lab(run.seed, run.scale, run.data, run.dtype)
    setting = Setting(run.setting, Text.same(run.setting), run.values)
    try:
        with use_backend(run.backend):
            return _plain("", experiment.run(setting, lab))
    except Exception as error:  # whatever an experiment raises
        raise RunError(f"{run}: {type(error).__name__}: {error}") from error


def compute_alone(run: Run) -> tuple[Run, Measurements]:
    """`compute` for a worker process, which keeps to one thread. The number of threads may change the order of a sum,
    and so its last bits."""
    os.environ.setdefault("MULTIDROP_NUM_THREADS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # hides start-up messages
    backend = load(run.backend)
    if hasattr(backend, "one_thread"):
        backend.one_thread()
    return run, compute(run)


def follow(parent: int) -> None:
    """Has this process, a worker, end when its parent does, however that ends, and only then: without it, the worker
    would wait for the next run until its time is out, and Ctrl-C, which a terminal sends to all processes, would make
    each worker print a traceback. Called where the worker starts, when the parent may be gone already.

    Args:
        parent: the parent's process number.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()


def _plain(name: str, value: Any) -> Any:
    """Converts measurements to what JSON holds."""
    if isinstance(value, Mapping):
        return {str(key): _plain(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(name, item) for item in value]
    number = int(value) if isinstance(value, int | np.integer) else float(value)
    if not math.isfinite(number):
        raise FloatingPointError(f"{name}: expected a finite number; got {number}")
    return number


class Shelf:
    """The finished runs in a folder, each in a file that its digest names.

    Raises:
        OSError: if the folder cannot be created or written: before hours of runs, not after.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = checks.path("out", folder) / "runs"
        self.folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=self.folder):
            pass

    def path(self, run: Run) -> Path:
        return self.folder / f"{run.digest}.json"

    def get(self, run: Run) -> Measurements | None:
        """A finished run's measurements; None if it is not there, or its file was damaged."""
        try:
            content = json.loads(self.path(run).read_bytes())
            return content["measurements"] if content["run"] == _json(run.identity) else None
        except (FileNotFoundError, ValueError, RecursionError, KeyError, TypeError):
            return None

    def put(self, run: Run, measurements: Measurements) -> None:
        """Keeps a run, atomically."""
        content = {"run": run.identity, "measurements": measurements}
        files.write(self.path(run), (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def _json(value: Any) -> Any:
    return json.loads(json.dumps(value))
