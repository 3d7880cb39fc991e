"""Ctrl-C."""

from __future__ import annotations

import signal

import pytest

from rlplatform.commands.interrupt import stop_on_interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_interrupts(number: signal.Signals) -> None:
    asked: list[bool] = []
    before = signal.getsignal(number)
    with stop_on_interrupt(lambda: asked.append(True)) as interruption:
        signal.raise_signal(number)
        assert interruption.requested
        with pytest.raises(KeyboardInterrupt, match=r"^$"):
            signal.raise_signal(number)
    assert asked == [True]
    assert signal.getsignal(number) is before


def test_nothing_is_asked_when_nothing_comes() -> None:
    with stop_on_interrupt(lambda: pytest.fail("nobody interrupted")) as interruption:
        pass
    assert not interruption.requested
