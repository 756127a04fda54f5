import itertools

import pytest

from ledetr.chain.states import TRANSITIONS, Signal, State, next_state

# The design in words, apart from the table: per state, where each signal leads; "." stays.
DESIGN = """
                            IDLE     OPENING  RUNNING       PAUSED        RECONNECTING  STOPPING  FAILED
OPEN                        OPENING  .        .             .             .             OPENING   OPENING
PLAY                        .        .        .             RUNNING       .             .         .
PAUSE                       .        .        PAUSED        .             .             .         .
STOP                        .        STOPPING STOPPING      STOPPING      STOPPING      .         STOPPING
CLOSED                      .        .        .             .             .             IDLE      .
OPENED_PLAYING              .        RUNNING  .             .             .             .         .
OPENED_PAUSED               .        PAUSED   .             .             .             .         .
ENDED                       .        .        PAUSED        .             .             .         .
LOST                        .        .        RECONNECTING  RECONNECTING  .             .         .
RESTORED_PLAYING            .        .        .             .             RUNNING       .         .
RESTORED_PAUSED             .        .        .             .             PAUSED        .         .
FAIL                        .        FAILED   FAILED        FAILED        FAILED        .         .
"""


def design() -> dict[tuple[State, Signal], State]:
    head, *rows = (line.split() for line in DESIGN.strip().splitlines())
    wanted = {}
    for signal, *cells in rows:
        for state, cell in zip(head, cells, strict=True):
            wanted[State[state], Signal[signal]] = State[state if cell == "." else cell]
    return wanted


@pytest.mark.parametrize(("state", "signal"), list(itertools.product(State, Signal)))
def test_every_pair(state: State, signal: Signal) -> None:
    assert next_state(state, signal) is design()[state, signal]


def test_the_table_holds_moves_only() -> None:
    assert all(state is not after for (state, _), after in TRANSITIONS.items())


def test_idle_is_reached_from_everywhere() -> None:
    for state in State:
        assert next_state(next_state(state, Signal.STOP), Signal.CLOSED) is State.IDLE
