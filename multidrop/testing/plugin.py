"""A plugin of pytest, which every test run finds where multidrop is installed: a test that takes the argument `backend`
runs once for each backend.

    pytest --backend torch --backend mxnet      # these, which must be there
    pytest --backend all                        # all that are declared, which must be there
    pytest                                      # those that are installed

`--multidrop-backend` is another name of the option, for a project that has a `--backend` of its own: that one is then
the project's. Likewise a fixture `backend` of the project takes the place of this one, and so does a `backend` that it
parametrizes. `pytest -p no:multidrop` goes without the plugin.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pytest

# Every run of pytest loads this module, and few use it: what needs NumPy is imported by the functions that use it.

OPTION, SHORT = "--multidrop-backend", "--backend"
DESTINATION = "multidrop_backend"
HELP = "a backend that multidrop's `backend` fixture is for, or all; it must be installed; repeatable"
FIXTURE = "multidrop_backend"


def pytest_addoption(parser: pytest.Parser) -> None:
    _offer(parser, OPTION)


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(parser: pytest.Parser) -> Generator[None, Any, Any]:
    """Offers `--backend` last, when the plugins and conftest files that may want the name have had it."""
    result = yield
    offer_short_option(parser)
    return result


def offer_short_option(parser: pytest.Parser) -> None:
    """Adds `--backend`, unless another has that name."""
    given = f"{SHORT}=numpy"
    try:
        _, unknown = parser.parse_known_and_unknown_args([given])
    except pytest.UsageError:  # of an option that takes no value, or not this one
        return
    if given in unknown:
        _offer(parser, SHORT)


def _offer(parser: pytest.Parser, option: str) -> None:
    parser.getgroup("multidrop").addoption(
        option, action="append", default=[], dest=DESTINATION, metavar="NAME|all", help=HELP
    )


def pytest_configure(config: pytest.Config) -> None:
    """Ends the run where a backend that was asked for is not there."""
    if not config.getoption(DESTINATION):
        return
    from .. import dispatch

    for name in requested(config):
        if name not in dispatch.available_backends():
            hint = dispatch.install_hint(name)
            raise pytest.UsageError(f"{OPTION} {name}: expected a framework that is installed; got none: {hint}")


def requested(config: pytest.Config) -> tuple[str, ...]:
    """The backends that must be there; none where the option was not given.

    Raises:
        pytest.UsageError: where no backend has a name that was given.
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
    """The backends that this run is about: those that were asked for, else those that are installed."""
    from .. import dispatch

    return requested(config) or dispatch.available_backends()


def loaded(config: pytest.Config, name: str) -> Any:
    """A backend, for a test about it alone; skips where the run is not about it."""
    from .. import dispatch

    if name not in chosen(config):
        why = f"{OPTION} was given without it" if requested(config) else "it is not installed, and was not asked for"
        pytest.skip(f"about {name}: {why}")
    return dispatch.load(name)


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # A test whose `backend` is another's does not come to the fixture below, but where a hook of that project has
    # parametrized it directly: pytest drops the fixture only after this hook, and tells of it nowhere else.
    direct = any("backend" in call.params for call in getattr(metafunc, "_calls", ()))
    if FIXTURE in metafunc.fixturenames and not direct:
        metafunc.parametrize(FIXTURE, chosen(metafunc.config), indirect=True)


@pytest.fixture
def multidrop_backend(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Each backend in turn, set for the test."""
    from .. import dispatch

    backend = loaded(request.config, request.param)
    with dispatch.use_backend(backend.name):
        yield backend


@pytest.fixture
def backend(multidrop_backend: Any) -> Any:
    """Each backend that this run is about, in turn: what `multidrop.protocol.Backend` says, and set for the test, as by
    `multidrop.use_backend`."""
    return multidrop_backend
