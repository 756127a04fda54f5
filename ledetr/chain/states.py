"""The states of a pipeline and the one table that says how it moves between them."""

import enum


class State(enum.Enum):
    """What a pipeline is doing."""

    IDLE = "idle"
    OPENING = "opening"
    RUNNING = "running"
    PAUSED = "paused"
    RECONNECTING = "reconnecting"
    STOPPING = "stopping"
    FAILED = "failed"


class Signal(enum.Enum):
    """What can happen to it: the first five are asked for by the user, the others come from its threads."""

    OPEN = "open"
    PLAY = "play"
    PAUSE = "pause"
    STOP = "stop"
    CLOSED = "closed"  # all threads have ended or were orphaned
    OPENED_PLAYING = "opened, to be played"
    OPENED_PAUSED = "opened, to be paused"
    ENDED = "ended"
    LOST = "lost"
    RESTORED_PLAYING = "restored, to be played"
    RESTORED_PAUSED = "restored, to be paused"
    FAIL = "fail"


# A pair that is not here changes nothing: every signal is legal in every state.
TRANSITIONS: dict[tuple[State, Signal], State] = {
    (State.IDLE, Signal.OPEN): State.OPENING,
    (State.FAILED, Signal.OPEN): State.OPENING,
    (State.STOPPING, Signal.OPEN): State.OPENING,
    (State.OPENING, Signal.OPENED_PLAYING): State.RUNNING,
    (State.OPENING, Signal.OPENED_PAUSED): State.PAUSED,
    (State.PAUSED, Signal.PLAY): State.RUNNING,
    (State.RUNNING, Signal.PAUSE): State.PAUSED,
    (State.RUNNING, Signal.ENDED): State.PAUSED,
    (State.RUNNING, Signal.LOST): State.RECONNECTING,
    (State.PAUSED, Signal.LOST): State.RECONNECTING,
    (State.RECONNECTING, Signal.RESTORED_PLAYING): State.RUNNING,
    (State.RECONNECTING, Signal.RESTORED_PAUSED): State.PAUSED,
    (State.OPENING, Signal.FAIL): State.FAILED,
    (State.RUNNING, Signal.FAIL): State.FAILED,
    (State.PAUSED, Signal.FAIL): State.FAILED,
    (State.RECONNECTING, Signal.FAIL): State.FAILED,
    (State.OPENING, Signal.STOP): State.STOPPING,
    (State.RUNNING, Signal.STOP): State.STOPPING,
    (State.PAUSED, Signal.STOP): State.STOPPING,
    (State.RECONNECTING, Signal.STOP): State.STOPPING,
    (State.FAILED, Signal.STOP): State.STOPPING,
    (State.STOPPING, Signal.CLOSED): State.IDLE,
}


def next_state(state: State, signal: Signal) -> State:
    """Where the signal leads; the same state where it means nothing there."""
    return TRANSITIONS.get((state, signal), state)
