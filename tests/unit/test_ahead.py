"""Items made ahead are the same items, whatever ends them, and no thread is left."""

from __future__ import annotations

import threading
import time

import pytest

from nlp_mtl.ahead import Ahead


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "nlp_mtl-batches"]


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    assert not threads()
    yield
    assert not threads()


@pytest.mark.parametrize("most", [1, 2, 5])
def test_the_items_in_their_order_and_then_the_end(most):
    ahead = Ahead(iter(range(50)), most=most)
    assert list(ahead) == list(range(50))
    with pytest.raises(StopIteration):
        next(ahead)


def test_no_more_than_so_many_are_made_before_they_are_asked_for():
    made = []
    ahead = Ahead((made.append(n) or n for n in range(100)), most=2)
    time.sleep(0.1)
    assert made == [0, 1]
    assert next(ahead) == 0
    deadline = time.monotonic() + 5
    while len(made) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert made == [0, 1, 2]
    ahead.close()
    assert made == [0, 1, 2], "nothing is made after the end"


def test_an_error_comes_where_its_item_is_asked_for():
    def items():
        yield "first"
        raise OSError("the row can't be read")

    ahead = Ahead(items())
    assert next(ahead) == "first"
    with pytest.raises(OSError, match="the row can't be read") as caught:
        next(ahead)
    assert any(entry.name == "items" for entry in caught.traceback), "it says where"
    with pytest.raises(StopIteration):
        next(ahead)


def test_it_can_be_closed_at_any_time_and_twice():
    ahead = Ahead(iter(range(100)))
    next(ahead)
    ahead.close()
    ahead.close()
    with pytest.raises(StopIteration):
        next(ahead)


def test_an_item_being_made_is_waited_for():
    begun, go = threading.Event(), threading.Event()

    def items():
        begun.set()
        go.wait(5)
        yield 1

    ahead = Ahead(items())
    begun.wait(5)
    threading.Timer(0.1, go.set).start()
    ahead.close()
    assert go.is_set(), "closing came after the item was made"
