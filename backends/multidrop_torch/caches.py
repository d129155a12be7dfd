"""Keeps `torch.compile` from loading programs that another version of multidrop compiled.

torch finds a compiled program on disk by the operators that a model calls, and not by what these were compiled to: a
program with a fault would outlive the version that mended it.
"""

from __future__ import annotations

import zlib
from functools import cache
from pathlib import Path
from typing import Any

import torch

from multidrop import __version__ as version

# What a compiled program is made of.
SOURCES = "programs.py", "gpu/assembly.py", "gpu/pointwise.py", "internals/compiler.py"


def mark() -> None:
    """Adds this version to the tag by which torch finds programs on disk, `torch.compiler.config.cache_key_tag`. Does
    nothing in versions of torch without it. To be called while a program is traced, before torch looks for it."""
    config: Any = getattr(torch.compiler, "config", None)
    before = getattr(config, "cache_key_tag", None)
    if before is not None and _tag() not in before:
        config.cache_key_tag = f"{before} {_tag()}".lstrip()


@cache
def _tag() -> str:
    folder, digest = Path(__file__).parent, 0
    for name in SOURCES:
        digest = zlib.crc32((folder / name).read_bytes(), digest)
    return f"multidrop-{version}-{digest:08x}"
