"""Declares multidrop's backends where it is not installed and only its sources are on the path.

This module is imported before `multidrop` looks for its backends, which it finds by the metadata of packages.
"""

from __future__ import annotations

import importlib.metadata
import sys
import tempfile
from pathlib import Path

GROUP = "multidrop.backends"


def declare() -> None:
    """Writes such metadata to a folder on the path, if there are none."""
    if importlib.metadata.entry_points(group=GROUP):
        return
    import tomllib

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    folder = tempfile.mkdtemp(prefix="multidrop-metadata-")
    info = Path(folder) / "multidrop-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: multidrop\nVersion: 0\n")
    entries = [f"{name} = {module}" for name, module in project["entry-points"][GROUP].items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *entries, ""]))
    sys.path.append(folder)


declare()
