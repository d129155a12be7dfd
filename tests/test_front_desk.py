"""What the command line does for its user: keeps results, says where they are, and prints texts as they are."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import multidrop as md
from multidrop import dispatch
from multidrop.section import cli, commands, figure
from multidrop.section.experiments import commands as experiments
from multidrop.section.history import Epoch, History
from multidrop.section.results import DEFAULT, Results
from multidrop.section.training import Diverged, Interrupted
from multidrop.spec.masks import keep_mask

ODD = ["[bold]x", "[/]", ":smile:", "[red]y[/red]"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder, and the backend of a process that set none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")  # `main` would set it for good
    with md.use_backend("numpy"):
        yield tmp_path


@pytest.fixture
def run(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command line in this process, and returns its status, output and errors."""

    def call(*arguments: str) -> tuple[int, str, str]:
        output = io.StringIO()
        monkeypatch.setattr(sys, "argv", ["multidrop", *arguments])
        monkeypatch.setattr(commands.console, "file", output)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed, errors = capsys.readouterr()
        return int(ended.value.code or 0), output.getvalue() + printed, errors

    return call


def history(epochs: int, seconds: float = 0.5) -> History:
    done = [Epoch(number, 1.0, 0.5, 0.5, seconds + number, 100.0, 1.0) for number in range(1, epochs + 1)]
    return History({"backend": "numpy"}, done)


TRAIN = ("train", "--data", "mini", "--epochs", "1", "--hidden", "4", "4")


def test_version(run: Any) -> None:
    assert run("--version") == (0, f"multidrop {md.__version__}\n", "")


@pytest.mark.parametrize("command", ["", "train", "demo", "backends"])
def test_help_gives_flags_no_type(run: Any, command: str) -> None:
    status, shown, _ = run(*command.split(), "--help")
    assert status == 0
    assert "--help" in shown
    assert "bool" not in shown
    assert "--no-" not in shown


def test_a_run_keeps_the_results_of_the_last(run: Any, here: Path) -> None:
    """The same command works again and again; each run has a folder of its own, and says which."""
    for folder in ("multidrop-out", "multidrop-out-2", "multidrop-out-3"):
        status, shown, errors = run(*TRAIN)
        assert (status, errors) == (0, "")
        assert shown.endswith(f" after 1 epoch; results in {folder}\n")
        assert (here / folder / "history.json").exists()


@pytest.mark.parametrize("held", ["history.json", "history.csv", "comparison.csv", "curves.png", "torch/history.json"])
def test_a_folder_of_another_run_is_refused(run: Any, here: Path, held: str) -> None:
    file = here / "mine" / held
    file.parent.mkdir(parents=True)
    file.write_text("")
    status, shown, errors = run(*TRAIN, "--out", "mine")
    assert (status, shown) == (2, "")
    assert "out: expected a folder without results of another run; got mine" in errors
    assert "--overwrite" in errors
    assert file.read_text() == ""
    assert run(*TRAIN, "--out", "mine", "--overwrite")[0] == 0


def test_a_folder_that_cannot_be_made(run: Any, here: Path) -> None:
    (here / "file").write_text("")
    assert run(*TRAIN, "--out", "file/folder") == (1, "", "multidrop: file/folder: Not a directory\n")


def test_without_matplotlib(run: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said in a line, and before the training."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = 'multidrop: a plot needs matplotlib, which is not installed: pip install "multidrop[section]"\n'
    assert run(*TRAIN) == (1, "", said)


def test_a_figure_is_no_result(run: Any, here: Path) -> None:
    DEFAULT.mkdir()
    (DEFAULT / "dropout.png").write_text("")
    assert run(*TRAIN)[1].endswith("results in multidrop-out\n")


def test_a_resumed_run_goes_on_in_its_folder(here: Path) -> None:
    """Also if the folder holds fewer epochs than the checkpoint, but not if it holds another run's."""
    Results(None, False, ["numpy"], {}).add(history(2))
    for earlier, folder in ((history(2), DEFAULT), (history(3), DEFAULT), (history(3, 0.25), Path("multidrop-out-2"))):
        assert Results(None, False, ["numpy"], {"numpy": earlier}).folder == folder
    assert Results(DEFAULT, False, ["numpy"], {"numpy": history(3)}).folder == DEFAULT
    with pytest.raises(ValueError, match=r"^out: expected"):
        Results(DEFAULT, False, ["numpy"], {"numpy": history(3, 0.25)})


def test_two_runs_at_a_time_take_two_folders(here: Path) -> None:
    first, second = (Results(None, False, ["numpy"], {}) for _ in range(2))
    assert (first.add(history(1)), second.add(history(1))) == (DEFAULT, Path("multidrop-out-2"))


def test_a_checkpointed_run_twice(run: Any, here: Path) -> None:
    options = ("--checkpoint", "run.safetensors", "--resume")
    for epochs in ("1", "2"):
        assert run(*TRAIN, "--epochs", epochs, *options)[0] == 0
    assert len(History.from_json(DEFAULT / "history.json").epochs) == 2
    assert not (here / "multidrop-out-2").exists()


@pytest.mark.parametrize("name", ODD)
def test_texts_are_printed_as_they_are(run: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "declared_backends", lambda: ("numpy",))  # the others take long to import
    folder = name.replace("/", "⁄")  # a sign that a folder's name may have
    assert run(*TRAIN, "--out", folder)[1].endswith(f"results in {folder}\n")
    assert f"before and after dropout: {folder}/dropout.png" in run("demo", "--out", folder)[1]
    assert f"there is no folder no{name}" in run(*TRAIN, "--data", f"no{name}")[2]


@pytest.mark.parametrize("name", ODD)
def test_hints_and_reasons_are_printed_as_they_are(run: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Markup would swallow `[torch]`. `backends`, `demo` and `train --backend all` name what cannot be used."""
    broken = commands.BackendError(f"backend 'torch': fails: {name}")
    monkeypatch.setattr(commands, "available_backends", lambda: ("numpy", "torch"))
    load = dispatch.load

    def loaded(backend: str) -> Any:
        if backend == "torch":
            raise broken
        return load(backend)

    monkeypatch.setattr(commands, "load", loaded)
    status, shown, _ = run("backends")
    assert status == 0
    assert re.search(r'^mxnet +– +not installed: pip install "multidrop\[mxnet\]"$', shown, re.MULTILINE)
    assert f"broken: {broken}" in shown
    for command in (("demo",), (*TRAIN, "--backend", "all")):
        status, shown, errors = run(*command)
        assert (status, errors) == (0, "")
        assert 'left out: tensorflow: not installed: pip install "multidrop[tensorflow]"\n' in shown
        assert f"left out: torch: broken: {broken}\n" in shown
        assert "left out: numpy" not in shown


@pytest.mark.parametrize(
    ("error", "options", "status", "said"),
    [
        (Interrupted("", history(2)), (), 130, "interrupted after 2 of 5 epochs; results in multidrop-out; a run with"),
        (Interrupted("", history(1)), ("--checkpoint", "c"), 130, "; to go on, run the command again with --resume"),
        (Interrupted("", history(0)), (), 130, "interrupted after 0 of 5 epochs; a run with --checkpoint FILE"),
        (KeyboardInterrupt(), (), 130, "interrupted after 0 of 5 epochs; a run"),
        (Diverged("diverged in epoch 3: its loss is nan", history(2)), (), 1, "is nan; results in multidrop-out"),
        (Diverged("diverged in epoch 1: its loss is nan", history(0)), (), 1, "diverged in epoch 1: its loss is nan"),
    ],
)
def test_a_run_that_ends_early(
    run: Any, monkeypatch: pytest.MonkeyPatch, error: Any, options: tuple[str, ...], status: int, said: str
) -> None:
    def train(*args: object, **kwargs: object) -> History:
        raise error

    monkeypatch.setattr(md, "train", train)
    ended, _, errors = run(*TRAIN, "--epochs", "5", *options)
    assert ended == status
    (line,) = errors.splitlines()
    assert line.startswith("multidrop: ")
    assert said in line
    done = getattr(error, "history", history(0)).epochs
    assert (DEFAULT / "history.json").exists() == bool(done)
    if done:
        assert History.from_json(DEFAULT / "history.json").epochs == done


@pytest.mark.parametrize(
    ("module", "function", "command"),
    [
        (commands, "demo", ["demo"]),
        (commands, "backends", ["backends"]),
        (experiments, "run", ["experiment", "bishop"]),
        (experiments, "show", ["experiment", "list"]),
    ],
)
@pytest.mark.parametrize(
    ("error", "said"), [(KeyboardInterrupt("so far"), "so far"), (KeyboardInterrupt(), "interrupted")]
)
def test_any_command_that_is_interrupted(
    run: Any, monkeypatch: pytest.MonkeyPatch, module: Any, function: str, command: list[str], error: Any, said: str
) -> None:
    def interrupted(*args: object) -> None:
        raise error

    monkeypatch.setattr(module, function, interrupted)
    assert run(*command) == (130, "", f"multidrop: {said}\n")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows sends Ctrl-C to a console, not to a process")
def test_an_interrupted_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "multidrop", *TRAIN, "--epochs", "1000000"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        while not process.stdout.readline().startswith("    1 "):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.fullmatch(r"multidrop: interrupted after [\d,]+ of 1,000,000 epochs; results in .*\n", errors)
    assert len(History.from_json(tmp_path / DEFAULT / "history.json").epochs) >= 1


def test_the_figure_drops_the_units_of_the_section() -> None:
    """And no smaller seed does."""
    wanted = [True, False, True, True, False]
    found = [seed for seed in range(figure.SEED + 1) if keep_mask(figure.HIDDEN, 0.5, md.Key(seed)).tolist() == wanted]
    assert found == [figure.SEED]


def test_the_figure_with_another_probability(run: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(commands, "declared_backends", lambda: ("numpy",))  # the others take long to import
    monkeypatch.setattr(figure, "_draw_net", lambda panel, keep: drawn.append(list(keep)))
    assert run("demo", "--p", "0.25", "--seed", "7")[0] == 0
    assert drawn[1] == keep_mask(figure.HIDDEN, 0.25, md.Key(7)).tolist()
    assert run("demo", "--p", "1.5")[::2] == (
        2,
        "multidrop: p: expected a probability, a number in [0, 1]; got 1.5 (float)\n",
    )


def test_a_framework_without_a_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint offers no command that cannot work: what the extra `all` leaves out here has no release."""

    def hint(marker: str) -> str:
        requires = [
            'torch>=2; extra == "torch"',
            'mxnet==1; extra == "mxnet"',
            f'mxnet==1; {marker} and extra == "all"',
        ]
        distribution = SimpleNamespace(name="multidrop", requires=requires, metadata=Message())
        entry = SimpleNamespace(dist=distribution)
        monkeypatch.setattr(dispatch, "_declared", lambda: {"mxnet": entry})
        return dispatch.install_hint("mxnet")

    assert hint("python_version >= '3'") == 'pip install "multidrop[mxnet]"'
    assert re.fullmatch(r"mxnet has no release for Python 3\.\d+ on .+", hint("python_version < '3'"))


def test_overwriting_leaves_nothing_of_the_earlier_run(here: Path) -> None:
    """A comparison, or another backend's results, would look like this run's."""
    both = Results(DEFAULT, False, ["numpy", "torch"], {})
    runs = [History({"backend": name}, history(1).epochs) for name in ("numpy", "torch")]
    for each in runs:
        both.add(each)
    both.compare(runs)
    mine = [DEFAULT / "notes.txt", DEFAULT / "others" / "history.csv"]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    Results(DEFAULT, True, ["numpy"], {}).add(history(2))
    left = {str(path.relative_to(DEFAULT)) for path in DEFAULT.rglob("*") if path.is_file()}
    assert left == {"history.json", "history.csv", "curves.png", "notes.txt", "others/history.csv"}
    again = Results(DEFAULT, True, ["numpy", "torch"], {})
    again.add(runs[0])
    assert not (DEFAULT / "history.json").exists()
    again.add(runs[1])
    assert (DEFAULT / "numpy" / "history.json").exists()


def test_a_folder_that_holds_folders_of_results_is_free(here: Path) -> None:
    Results(None, False, ["numpy"], {}).add(history(1))
    assert Results(Path(), False, ["numpy"], {}).folder == Path()


def test_a_narrow_terminal_cuts_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    monkeypatch.setattr(commands.console, "file", output)
    monkeypatch.setattr(commands.console, "width", 40)
    backends = ("numpy", "torch", "tensorflow", "mxnet")
    commands._compare([History({"backend": name}, history(1).epochs) for name in backends])
    lines = [line.replace("│", " ").split() for line in output.getvalue().splitlines()]
    assert ["1", *["1.000000"] * 4, "0"] in lines
    assert ["1", *["0.5000"] * 4, "0"] in lines


def test_a_checkpoint_without_a_name(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "declared_backends", lambda: ("numpy", "torch"))
    monkeypatch.setattr(commands, "_left_out", lambda name: False)
    monkeypatch.setattr(commands, "load", lambda name: dispatch.load("numpy"))
    for backend in ("numpy", "all"):
        status, _, errors = run(*TRAIN, "--backend", backend, "--checkpoint", "/")
        assert (status, errors[:54]) == (2, "multidrop: checkpoint: expected the path of a file, a ")
