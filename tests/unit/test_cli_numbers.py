"""Numbers that people type."""

import click
import pytest
from click.testing import CliRunner

from aks_inference_runtime.cli.commands import main
from aks_inference_runtime.cli.numbers import NumberRange


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
    assert kind.convert("inf", None, None) == float("inf")
    for wrong in ("0", "-1", "x", "nan", "-nan"):
        with pytest.raises(click.BadParameter):
            kind.convert(wrong, None, None)
