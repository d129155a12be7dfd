"""A pytest plugin, active wherever multidrop is installed: runs a test that takes the argument `backend` once for each
backend.

    pytest --backend torch --backend mxnet      # these, which must be installed
    pytest --backend all                        # all declared backends, which must be installed
    pytest                                      # the installed ones

If the project has its own option `--backend`, use `--multidrop-backend`. If the project has its own fixture `backend`,
or parametrizes tests by `backend`, that one is used. `pytest -p no:multidrop` switches the plugin off.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pytest

# Every run of pytest loads this module and few use it, so functions import what needs NumPy themselves.

OPTION, SHORT = "--multidrop-backend", "--backend"
DESTINATION = "multidrop_backend"
HELP = "a backend that multidrop's `backend` fixture is for, or all; it must be installed; repeatable"
FIXTURE = "multidrop_backend"


def pytest_addoption(parser: pytest.Parser) -> None:
    _offer(parser, OPTION)


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(parser: pytest.Parser) -> Generator[None, Any, Any]:
    """Adds `--backend` last, so that other plugins and conftest files can take the name."""
    result = yield
    offer_short_option(parser)
    return result


def offer_short_option(parser: pytest.Parser) -> None:
    """Adds `--backend`, unless another option has that name."""
    given = f"{SHORT}=numpy"
    try:
        _, unknown = parser.parse_known_and_unknown_args([given])
    except pytest.UsageError:  # an option `--backend` exists and does not accept this value
        return
    if given in unknown:
        _offer(parser, SHORT)


def _offer(parser: pytest.Parser, option: str) -> None:
    parser.getgroup("multidrop").addoption(
        option, action="append", default=[], dest=DESTINATION, metavar="NAME|all", help=HELP
    )


def pytest_configure(config: pytest.Config) -> None:
    """Ends the run if a requested backend is not installed."""
    if not config.getoption(DESTINATION):
        return
    from .. import dispatch

    for name in requested(config):
        if name not in dispatch.available_backends():
            hint = dispatch.install_hint(name)
            raise pytest.UsageError(f"{OPTION} {name}: expected a framework that is installed; got none: {hint}")


def requested(config: pytest.Config) -> tuple[str, ...]:
    """The backends that must be installed; none if the option was not given.

    Raises:
        pytest.UsageError: if a given name is not that of a backend.
    """
    asked = config.getoption(DESTINATION)
    if not asked:
        return ()
    from .. import dispatch

    declared = dispatch.declared_backends()
    unknown = sorted(set(asked) - {*declared, "all"})
    if unknown:
        raise pytest.UsageError(f"{OPTION}: expected one of {', '.join(declared)} or all; got {', '.join(unknown)}")
    return tuple(name for name in declared if name in asked or "all" in asked)


def chosen(config: pytest.Config) -> tuple[str, ...]:
    """The backends that this run tests: the requested ones, else the installed ones."""
    from .. import dispatch

    return requested(config) or dispatch.available_backends()


def loaded(config: pytest.Config, name: str) -> Any:
    """Loads a backend for a test of it alone; skips the test if this run does not test that backend."""
    from .. import dispatch

    if name not in chosen(config):
        why = f"{OPTION} was given without it" if requested(config) else "it is not installed, and was not asked for"
        pytest.skip(f"about {name}: {why}")
    return dispatch.load(name)


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # A project's hook may have parametrized `backend` itself. pytest drops the fixture below only after this hook, and
    # until then only the private `_calls` shows it.
    direct = any("backend" in call.params for call in getattr(metafunc, "_calls", ()))
    if FIXTURE in metafunc.fixturenames and not direct:
        metafunc.parametrize(FIXTURE, chosen(metafunc.config), indirect=True)


@pytest.fixture
def multidrop_backend(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Sets each backend in turn for the test."""
    from .. import dispatch

    backend = loaded(request.config, request.param)
    with dispatch.use_backend(backend.name):
        yield backend


@pytest.fixture
def backend(multidrop_backend: Any) -> Any:
    """Each backend that this run tests, in turn: a `multidrop.protocol.Backend`, set for the test as by
    `multidrop.use_backend`."""
    return multidrop_backend
