"""Says that an exported program holds operators of this library."""

from __future__ import annotations


def tell(operator: str, package: str) -> None:
    """Logs that whoever loads an exported program needs a backend, and how to export one without it. Without a logging
    configuration, Python prints it to standard error.

    Args:
        operator: the operator's name in the program.
        package: the package of the backend, whose import registers the operator.
    """
    import logging

    logging.getLogger("multidrop").warning(
        f"{package}: the exported program holds the operator {operator}, so it needs `import {package}` before it is "
        "loaded; for a program without it, export the model in evaluation mode, or after multidrop.restore(model)"
    )
