"""The packages of the extra `section`, which a program that only drops tensors does without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def section_extra(what: str) -> Iterator[None]:
    """Around imports of these packages.

    Args:
        what: what needs them, in words.

    Raises:
        ImportError: where one is not installed; it says what to install.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(
            f'{what} needs {error.name}, which is not installed: pip install "multidrop[section]"', name=error.name
        ) from error
