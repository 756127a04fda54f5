from ledetr_app.seeking import Seeks


def test_of_wishes_during_a_seek_only_the_newest_is_carried_out():
    begun = []
    seeks = Seeks(begun.append)
    assert seeks.target_s is None
    seeks.want(1.0, epoch=3)
    seeks.want(2.0, epoch=3)
    seeks.want(3.0, epoch=3)
    assert (begun, seeks.target_s) == ([1.0], 3.0)
    seeks.arrived(3)  # a picture from before the seek
    assert begun == [1.0]
    seeks.arrived(4)
    assert (begun, seeks.target_s) == ([1.0, 3.0], 3.0)
    seeks.arrived(5)
    assert (begun, seeks.target_s) == ([1.0, 3.0], None)
    seeks.want(4.0, epoch=5)
    assert begun == [1.0, 3.0, 4.0]


def test_a_seek_that_brings_no_picture_holds_nothing_up():
    begun = []
    seeks = Seeks(begun.append)
    seeks.want(1.0, epoch=0)
    seeks.want(2.0, epoch=0)
    seeks.over(forget=False)
    assert begun == [1.0, 2.0]


def test_wishes_for_one_source_are_not_carried_out_in_the_next():
    begun = []
    seeks = Seeks(begun.append)
    seeks.want(1.0, epoch=0)
    seeks.want(2.0, epoch=0)
    seeks.over(forget=True)
    assert (begun, seeks.target_s) == ([1.0], None)
    seeks.want(3.0, epoch=0)
    assert begun == [1.0, 3.0]
