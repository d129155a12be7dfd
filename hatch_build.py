"""Compiles the kernel when the package is built, so that no user has to wait for it.

If compiling fails, for example because Numba does not support the system, the package is built without machine code and
compiles its loops at the first call.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from sysconfig import get_platform
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# The folders whose `entries.py` is compiled, with the name of that module in the installed package.
FOLDERS = {
    "multidrop/host/compiled": "multidrop.host.compiled.entries",
    "backends/multidrop_tensorflow/compiled": "multidrop_tensorflow.compiled.entries",
}


class CustomBuildHook(BuildHookInterface):
    """Puts an object file for each level of the processor architecture into the wheel; for an editable install, into
    the source tree."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        editable = version == "editable"
        self._built = tempfile.TemporaryDirectory()
        jobs = []
        try:
            sys.path[:0] = [str(root), str(root / "backends")]
            from multidrop.host import objects

            for folder, module in FOLDERS.items():
                target = root / folder / objects.FOLDER if editable else Path(self._built.name) / folder
                target.mkdir(parents=True, exist_ok=True)
                jobs += [(module, level, target / objects.file_name(level)) for level in objects.levels_to_build()]
            with ThreadPoolExecutor(os.cpu_count()) as threads:
                list(threads.map(lambda job: _compile(*job), jobs))
        except (ImportError, subprocess.CalledProcessError) as error:
            self.app.display_warning(
                f"multidrop: built without machine code; it will be compiled at the first call: {error}"
            )
            return
        if jobs and not editable:
            for folder in FOLDERS:
                installed = folder.removeprefix("backends/")
                build_data["force_include"][str(Path(self._built.name) / folder)] = f"{installed}/{objects.FOLDER}"
            # Machine code depends on the system and the processor, not on the version of Python.
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{get_platform().replace('-', '_').replace('.', '_')}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        self._built.cleanup()


def _compile(module: str, level: str, path: Path) -> None:
    """Compiles in a new process, because Numba compiles for one kind of processor per process."""
    # With this process's `sys.path`: an isolated build changes it in ways that PYTHONPATH cannot express.
    program = (
        f"import sys; sys.path[:] = {sys.path}; from multidrop.host.compiled import build; build.main(sys.argv[1:])"
    )
    subprocess.run([sys.executable, "-c", program, module, level, str(path)], check=True)
