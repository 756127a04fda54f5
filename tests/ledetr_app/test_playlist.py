import pytest

from ledetr_app.playlist import LONGEST, Playlist


def test_neighbours_end_at_the_ends():
    three = Playlist.of(["a", "b", "c"])
    assert [three.playing(at).neighbour(1) for at in (None, 0, 1, 2)] == [0, 1, 2, None]
    assert [three.playing(at).neighbour(-1) for at in (None, 0, 1, 2)] == [None, None, 0, 1]
    assert Playlist().neighbour(1) is None
    assert (three.current, three.playing(1).current) == (None, "b")


@pytest.mark.parametrize(
    ("at", "row", "left"),
    [
        (1, 0, Playlist(("b", "c"), 0)),
        (1, 1, Playlist(("a", "c"), None)),
        (1, 2, Playlist(("a", "b"), 1)),
        (None, 0, Playlist(("b", "c"), None)),
    ],
)
def test_one_less(at, row, left):
    assert Playlist(("a", "b", "c"), at).without(row) == left


def test_it_is_bounded():
    assert len(Playlist.of([str(i) for i in range(LONGEST + 5)]).paths) == LONGEST
