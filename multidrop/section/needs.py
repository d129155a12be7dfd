"""Imports of optional packages, which the dropout functions and layers do not need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def section_extra(what: str, extra: str = "section") -> Iterator[None]:
    """Turns a failed import of one of these packages into an error that says what to install.

    Args:
        what: the feature that needs the package, for the message.
        extra: the extra of multidrop that installs the package.

    Raises:
        ImportError: if the package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(
            f'{what} needs {error.name}, which is not installed: pip install "multidrop[{extra}]"', name=error.name
        ) from error
