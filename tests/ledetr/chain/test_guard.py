import threading
import time

import pytest

from ledetr.chain.guard import Cancelled, GuardedSource, Overdue, join_all
from ledetr.errors import SourceError


def opened(source) -> GuardedSource:
    guard = GuardedSource(lambda: source, "scripted")
    assert guard.open(5) is source.info
    return guard


def test_reads_seeks_and_closes(scripted_source) -> None:
    source = scripted_source(count=2)
    guard = opened(source)
    assert [guard.read(5).meta.pts, guard.read(5).meta.pts, guard.read(5)] == [0, 1, None]
    guard.seek(0.04, 5)
    assert guard.read(5).meta.pts == 1
    guard.close()
    assert guard.join(5) and source.closed.is_set()


def test_an_error_of_the_source_reaches_the_caller(scripted_source) -> None:
    def broken(_: int) -> None:
        raise SourceError("broken")

    guard = opened(scripted_source(before_read=broken))
    with pytest.raises(SourceError, match="broken"):
        guard.read(5)
    guard.close()
    assert guard.join(5)


def test_an_open_that_hangs_is_overdue_and_closed_when_it_comes_back(scripted_source) -> None:
    let_go, source = threading.Event(), scripted_source()

    def hang():
        let_go.wait(30)
        return source

    guard = GuardedSource(hang, "camera 0")
    with pytest.raises(Overdue, match=r"'camera 0' did not answer within 0\.05 s"):
        guard.open(0.05)
    guard.close()
    assert not guard.join(0.01)
    let_go.set()
    assert guard.join(5) and source.closed.is_set()


def test_a_read_that_hangs_is_overdue_and_refuses_more(scripted_source) -> None:
    let_go = threading.Event()
    guard = opened(scripted_source(before_read=lambda _: let_go.wait(30)))
    with pytest.raises(Overdue, match="sent no picture for"):
        guard.read(0.05)
    with pytest.raises(Overdue):
        guard.read(0.05)
    guard.close()
    let_go.set()
    assert guard.join(5)


def test_cancel_ends_a_wait_at_once(scripted_source, wait_until) -> None:
    let_go, reading = threading.Event(), threading.Event()

    def hang(_: int) -> None:
        reading.set()
        let_go.wait(30)

    source = scripted_source(before_read=hang)
    guard = opened(source)
    outcome: list[BaseException] = []

    def read() -> None:
        try:
            guard.read(30)
        except Cancelled as error:
            outcome.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    assert reading.wait(5)
    guard.cancel()
    reader.join(5)
    assert len(outcome) == 1 and source.interrupted.is_set()
    guard.close()
    let_go.set()
    assert guard.join(5) and source.closed.is_set()


def test_join_all_names_those_that_hang() -> None:
    let_go = threading.Event()
    stuck = threading.Thread(target=let_go.wait, name="stuck")
    stuck.start()
    done = threading.Thread(target=lambda: None)
    done.start()
    never_started = threading.Thread(target=lambda: None)
    began = time.monotonic()
    assert join_all([done, stuck, never_started, threading.current_thread()], 0.05) == [stuck]
    assert time.monotonic() - began < 5
    let_go.set()
    stuck.join(5)
