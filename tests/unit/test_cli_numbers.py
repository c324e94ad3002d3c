"""Numbers that people type: what is none, or no number that a command can work with, is refused by a sentence."""

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from aks_inference_provider.cli import doctor as declared
from aks_inference_runtime import doctor
from aks_inference_runtime.cli.commands import main
from aks_inference_runtime.cli.numbers import NumberRange
from embedded_engine.cli.app import cli as engine

NUMBERS = (click.types.IntParamType, click.types.FloatParamType)
NONE = ("nan", "-nan", "inf", "-inf", "1e999", "-1", "x", "")


def numbers(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Parameter]]:
    """All parameters of a command and those below it that take numbers."""
    yield from ((words, one) for one in command.params if isinstance(one.type, NUMBERS))
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from numbers(below, (*words, name))


FOUND = [
    pytest.param(one.type, id=" ".join((*words, one.opts[0])))
    for root in (main, engine)
    for words, one in numbers(root)
]


def test_the_commands_that_take_numbers() -> None:
    ids = {str(one.id) for one in FOUND}
    assert {"wait --timeout", "score --timeout", "top --interval", "simulate --service-ms", "up --parallel"} <= ids
    assert len(ids) > 15


@pytest.mark.parametrize("kind", FOUND)
def test_each_has_a_range_of_numbers(kind: click.ParamType) -> None:
    assert isinstance(kind, NumberRange | click.IntRange), "any number is taken"
    for wrong in NONE:
        with pytest.raises(click.BadParameter):
            kind.convert(wrong, None, None)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "0", "-1", "1e999", "1e-999", "x", ""])
def test_the_time_of_doctor(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        declared.run([str(tmp_path / "none.yaml"), f"--timeout={text}"])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert f"argument --timeout: {text!r} is no time: give seconds above 0" in said


def test_the_time_of_doctor_in_a_pod(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["doctor", "--timeout", "nan"])
    with pytest.raises(SystemExit) as caught:
        doctor.main()
    assert caught.value.code == 2
    assert "is no time" in capsys.readouterr().err
    assert doctor.seconds("2.5") == 2.5


@pytest.mark.parametrize(
    "words",
    [
        ("wait", "svc", "--timeout", "nan"),
        ("score", "svc", "--data", "-", "--timeout", "NaN"),
        ("top", "--interval", "nan"),
        ("simulate", "--service-ms", "nan"),
    ],
)
def test_nan_is_wrong_usage(words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(main, words)
    assert (done.exit_code, "is not a number" in done.output) == (2, True), done.output


def test_ranges_hold_as_before() -> None:
    kind = NumberRange(min=0, min_open=True)
    assert kind.convert("0.5", None, None) == 0.5
    for wrong in ("0", *NONE):
        with pytest.raises(click.BadParameter):
            kind.convert(wrong, None, None)
