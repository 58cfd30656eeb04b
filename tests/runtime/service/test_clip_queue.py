"""The queue in which the clips of several requests meet."""

import threading
from fractions import Fraction

import numpy as np
import pytest
from step_runtime.clips.channel import Stopped
from step_runtime.clips.key_frame import Clip
from step_runtime.service.clip_queue import ClipQueue, RequestClip

CLIP = Clip(np.zeros((1, 1, 1, 3), np.uint8), Fraction(0), Fraction(0), 0, 1, 1, 0.0)


def put(queue, request, count):
    for _ in range(count):
        queue.put(RequestClip(request, CLIP))
    queue.end()


def taken(queue):
    found = []
    while clips := queue.take():
        found.append([item.request for item in clips])
    return found


def test_full_calls_first_and_the_rest_at_the_end():
    queue = ClipQueue(readers=3, at_most=4)
    threads = [threading.Thread(target=put, args=(queue, request, count)) for request, count in enumerate((5, 3, 1))]
    for thread in threads:
        thread.start()
    found = taken(queue)
    for thread in threads:
        thread.join()
    assert [len(call) for call in found] == [4, 4, 1]
    assert sorted(request for call in found for request in call) == [0] * 5 + [1] * 3 + [2]


def test_nothing_comes_of_requests_without_clips():
    queue = ClipQueue(readers=2, at_most=4)
    put(queue, 0, 0)
    put(queue, 1, 0)
    assert taken(queue) == []


def test_a_reader_that_waits_for_room_learns_that_nobody_wants_more():
    queue = ClipQueue(readers=1, at_most=1)
    queue.put(RequestClip(0, CLIP))
    failures = []

    def reader():
        try:
            put(queue, 0, 1)
        except Stopped as error:
            failures.append(error)

    thread = threading.Thread(target=reader)
    thread.start()
    queue.stop()
    thread.join()
    assert len(failures) == 1
    with pytest.raises(Stopped):
        queue.put(RequestClip(0, CLIP))
