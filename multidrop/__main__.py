"""`python -m multidrop`, and the command `multidrop`."""

from __future__ import annotations

import sys

from .section.needs import section_extra


def main() -> None:
    """Runs the command line; without the packages that it needs, says in a line what to install."""
    try:
        with section_extra("the command line"):
            import rich  # noqa: F401  # which the parser imports when there is something to show

            from .section import cli
    except ImportError as error:
        sys.exit(f"multidrop: {error}")
    cli.main()


if __name__ == "__main__":
    main()
