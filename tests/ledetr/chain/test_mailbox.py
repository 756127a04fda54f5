import threading
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledetr.chain.mailbox import ByteQueue, Mailbox

moves = st.lists(st.one_of(st.integers(0, 9), st.sampled_from(["take", "clear", "peek"])), max_size=60)


@given(moves)
def test_mailbox_keeps_the_newest_and_its_counts_add_up(steps: list) -> None:
    box: Mailbox[int] = Mailbox()
    slot: list[int] = []
    put = taken = dropped = discarded = 0
    for step in steps:
        if step == "take":
            taken += len(slot)
            assert box.take(timeout_s=0) == (slot.pop() if slot else None)
        elif step == "clear":
            assert box.clear() == len(slot)
            discarded += len(slot)
            slot = []
        elif step == "peek":
            assert box.peek() == (slot[0] if slot else None)
        else:
            assert box.put(step)
            dropped += len(slot)
            slot = [step]
            put += 1
        assert (len(box), box.dropped, box.discarded) == (len(slot), dropped, discarded)
        assert put == taken + dropped + discarded + len(slot)


@given(st.lists(st.one_of(st.integers(0, 40), st.sampled_from(["take", "clear"])), max_size=60), st.integers(1, 60))
def test_queue_keeps_order_and_its_byte_bound(steps: list, bound: int) -> None:
    queue: ByteQueue[int] = ByteQueue(bound)
    model: deque[tuple[int, int]] = deque()
    for serial, step in enumerate(steps):
        waiting = sum(nbytes for _, nbytes in model)
        if step == "take":
            assert queue.take(timeout_s=0) == (model.popleft()[0] if model else None)
        elif step == "clear":
            assert queue.clear() == len(model)
            model.clear()
        elif queue.put(serial, step, timeout_s=0):
            assert not model or waiting + step <= bound
            model.append((serial, step))
        else:
            assert model and waiting + step > bound
        assert queue.nbytes == sum(nbytes for _, nbytes in model)
        assert queue.nbytes <= bound or len(queue) == 1
        assert queue.peek() == (model[0][0] if model else None)
    assert queue.dropped == 0


def test_queue_lets_a_huge_item_pass_when_empty() -> None:
    queue: ByteQueue[str] = ByteQueue(10)
    assert queue.put("huge", 1000)
    assert not queue.put("next", 1, timeout_s=0)
    assert queue.take() == "huge"


@pytest.mark.parametrize("drain", [False, True])
def test_close_wakes_a_taker(drain: bool) -> None:
    for ends in (Mailbox(), ByteQueue()):
        got: list[object] = ["nothing"]
        taker = threading.Thread(target=lambda ends=ends, got=got: got.append(ends.take()))
        taker.start()
        ends.close(drain)
        taker.join(5)
        assert got == ["nothing", None] and not taker.is_alive()


def test_close_wakes_a_producer_that_waits_for_room() -> None:
    queue: ByteQueue[int] = ByteQueue(1)
    queue.put(1, 1)
    accepted: list[bool] = []
    producer = threading.Thread(target=lambda: accepted.append(queue.put(2, 1)))
    producer.start()
    queue.close(drain=True)
    producer.join(5)
    assert accepted == [False]
    assert [queue.take(), queue.take()] == [1, None]


def test_close_discards_or_drains() -> None:
    for ends in (Mailbox(), ByteQueue()):
        ends.put("a", 1) if isinstance(ends, ByteQueue) else ends.put("a")
        assert ends.close(drain=True) == 0
        assert ends.take() == "a"
    for ends in (Mailbox(), ByteQueue()):
        ends.put("a", 1) if isinstance(ends, ByteQueue) else ends.put("a")
        assert ends.close() == 1
        assert ends.take() is None and ends.discarded == 1
        refused = ends.put("b", 1) if isinstance(ends, ByteQueue) else ends.put("b")
        assert refused is False and ends.closed


def test_nudge_wakes_a_taker_once() -> None:
    for ends in (Mailbox(), ByteQueue()):
        ends.nudge()
        assert ends.take() is None
        assert ends.take(timeout_s=0) is None
        ends.nudge()
        ends.put("a", 1) if isinstance(ends, ByteQueue) else ends.put("a")
        assert ends.take() == "a"


def test_wait_empty_sees_the_taker_and_the_close(wait_until) -> None:
    box: Mailbox[int] = Mailbox()
    box.put(1)
    assert not box.wait_empty(0)
    emptied = threading.Thread(target=box.wait_empty)
    emptied.start()
    assert box.take() == 1
    emptied.join(5)
    assert not emptied.is_alive()
    box.put(2)
    closed = threading.Thread(target=box.wait_empty)
    closed.start()
    box.close(drain=True)
    closed.join(5)
    assert not closed.is_alive()


def test_many_producers_and_takers_lose_nothing_in_a_queue() -> None:
    queue: ByteQueue[int] = ByteQueue(64)
    got: list[int] = []
    lock = threading.Lock()

    def take_all() -> None:
        while (item := queue.take()) is not None:
            with lock:
                got.append(item)

    def put_all(start: int) -> None:
        for item in range(start, start + 500):
            assert queue.put(item, 8)

    takers = [threading.Thread(target=take_all) for _ in range(2)]
    producers = [threading.Thread(target=put_all, args=(start,)) for start in (0, 1000)]
    for thread in takers + producers:
        thread.start()
    for thread in producers:
        thread.join(20)
    queue.close(drain=True)
    for thread in takers:
        thread.join(20)
    assert sorted(got) == [*range(500), *range(1000, 1500)]


def test_a_queue_needs_room() -> None:
    with pytest.raises(ValueError, match="positive"):
        ByteQueue(0)
    with pytest.raises(ValueError, match="negative"):
        ByteQueue(1).put(1, -1)
