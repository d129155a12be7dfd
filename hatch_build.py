"""Compiles the kernel when the package is built, so that no user waits for it.

Where that cannot be done (Numba does not exist for the system, say), the package is built without machine code, and
compiles its loops when they are first called.
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

# The folders whose `entries` are compiled, and the modules that these are when the package is installed.
FOLDERS = {
    "multidrop/host/compiled": "multidrop.host.compiled.entries",
    "backends/multidrop_tensorflow/compiled": "multidrop_tensorflow.compiled.entries",
}


class CustomBuildHook(BuildHookInterface):
    """Puts an object file for each level of the processor into the wheel; of an editable one, into the source tree."""

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
                f"multidrop: built without machine code, which is compiled at the first call: {error}"
            )
            return
        if jobs and not editable:
            for folder in FOLDERS:
                installed = folder.removeprefix("backends/")
                build_data["force_include"][str(Path(self._built.name) / folder)] = f"{installed}/{objects.FOLDER}"
            # Machine code is the system's and the processor's, whatever the version of Python.
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{get_platform().replace('-', '_').replace('.', '_')}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        self._built.cleanup()


def _compile(module: str, level: str, path: Path) -> None:
    """In a process of its own, since Numba compiles for one kind of processor only."""
    # Searched as here, which no environment variable can say where the package is built in an environment of its own.
    program = (
        f"import sys; sys.path[:] = {sys.path}; from multidrop.host.compiled import build; build.main(sys.argv[1:])"
    )
    subprocess.run([sys.executable, "-c", program, module, level, str(path)], check=True)
