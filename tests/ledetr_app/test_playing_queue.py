"""A queue in a session without a window: videos play on at their end, pictures after a while."""

import cv2
import numpy as np
import pytest

from ledetr_app import playing_queue


@pytest.fixture
def pictures(tmp_path):
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    for grey, path in enumerate(paths):
        cv2.imwrite(str(path), np.full((48, 64, 3), 50 * grey, np.uint8))
    return [str(path) for path in paths]


def test_pictures_are_looked_at_for_a_while_each(session, pictures, wait_for, monkeypatch):
    monkeypatch.setattr(playing_queue, "STILL_S", 0.05)
    seen = []
    session.on_change = lambda: seen.append(session.state.queue.at)
    session.open_files(pictures)
    wait_for(lambda: session.state.queue.at == 2 and session.state.ended and session.state.source is not None)
    assert [at for at in dict.fromkeys(seen) if at is not None] == [0, 1, 2]
    assert session.state.problem is None


def test_a_picture_that_is_held_stays(session, pictures, wait_for, monkeypatch):
    monkeypatch.setattr(playing_queue, "STILL_S", 0.3)
    session.open_files(pictures)
    wait_for(lambda: session.state.ended)
    session.pause()
    timer = session.queue._later
    wait_for(lambda: not timer.is_alive())
    assert session.state.queue.at == 0


def test_the_next_one_by_hand_begins_its_own_while(session, pictures, wait_for, monkeypatch):
    monkeypatch.setattr(playing_queue, "STILL_S", 60.0)
    session.open_files(pictures)
    wait_for(lambda: session.state.ended and session.queue._later is not None)
    first = session.queue._later
    session.play_neighbour(1)
    wait_for(lambda: session.state.queue.at == 1 and session.queue._later is not first)
    assert not first.is_alive() or first.finished.is_set()
    assert session.close() == []  # and no thread waits for the minute to be over


def test_a_picture_alone_begins_no_clock(session, pictures, wait_for):
    session.open_source(pictures[0])
    wait_for(lambda: session.state.ended)
    assert session.queue._later is None
