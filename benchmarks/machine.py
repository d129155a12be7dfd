"""Describes the machine and the versions of a result."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from .workers import cores

PACKAGES = ("multidrop", "numpy", "numba", "torch", "triton", "tensorflow", "tensorflow-cpu", "keras", "mxnet")


def facts(device: str, commit: str = "") -> dict[str, Any]:
    """Processor, memory, load, system, Python, versions of the installed packages, commit and date. `commit` names the
    commit, where this tree is a copy that cannot tell."""
    return {
        "device": device,
        "processor": _processor(),
        "gpu": _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader") if device == "gpu" else "",
        "cores": cores(),
        "memory": _memory(),
        "load": load(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
        "commit": commit or _commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def _commit() -> str:
    """The commit of this tree, "unknown" in a copy that is no repository, or is within one of something else."""
    root = Path(__file__).resolve().parents[1]
    top = _output("git", "-C", str(root), "rev-parse", "--show-toplevel")
    if not top or Path(top).resolve() != root:
        return "unknown"
    return _output("git", "-C", str(root), "describe", "--always", "--dirty") or "unknown"


def load() -> float:
    """The load average of the last minute, in processes; 0 if the system does not report it."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _memory() -> int:
    """The machine's memory in bytes; 0 if the system does not report it."""
    names = getattr(os, "sysconf_names", {})
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if "SC_PHYS_PAGES" in names else 0


def _output(*command: str) -> str:
    """The output of a command; "" if it fails or does not exist."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
