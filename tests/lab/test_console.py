"""A bar for what takes long: nothing is lost by it, and only a terminal of the first process sees it."""

import io
import sys

import pytest

from delta_vae_lab.console import bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_everything_comes_and_a_pipe_sees_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(bar(range(3), "counting")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("rank", "shown"), [("0", True), ("1", False)])
def test_a_terminal_of_the_first_process_sees_it(rank: str, shown: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert bar(range(3), "counting").disable is not shown
