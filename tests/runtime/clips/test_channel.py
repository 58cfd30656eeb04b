import threading

import pytest
from step_runtime.clips.channel import Channel, Stopped


def _in_thread(work):
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_items_come_in_order_and_end():
    channel: Channel[int] = Channel(capacity=2)

    def produce():
        for item in range(100):
            channel.put(item)
        channel.end()

    thread = _in_thread(produce)
    assert list(channel) == list(range(100))
    thread.join(5)


def test_a_full_channel_makes_the_producer_wait():
    channel: Channel[int] = Channel(capacity=2)
    done: list[int] = []
    is_full = threading.Event()

    def produce():
        for item in range(3):
            if item == 2:
                is_full.set()
            channel.put(item)
            done.append(item)
        channel.end()

    thread = _in_thread(produce)
    assert is_full.wait(5)
    thread.join(0.05)
    assert thread.is_alive()
    assert done == [0, 1]
    assert list(channel) == [0, 1, 2]
    thread.join(5)


def test_a_live_channel_drops_its_oldest():
    channel: Channel[int] = Channel(capacity=2, drop_oldest=True)
    for item in range(10):
        channel.put(item)
    channel.end()
    assert list(channel) == [8, 9]
    assert channel.dropped == 8


def test_a_live_channel_drops_runs():
    """What is dropped is in one piece, and so is what comes through."""
    channel: Channel[int] = Channel(capacity=3, drop_runs=True)
    for item in range(6):
        channel.put(item)
    items = iter(channel)
    assert [next(items), next(items)] == [0, 1]
    channel.put(6)  # there is room, but 3, 4 and 5 are gone and 2 still waits
    assert next(items) == 2
    for item in range(7, 12):
        channel.put(item)
    channel.end()
    assert list(items) == [7, 8, 9]
    assert channel.dropped == 6


def test_a_producer_that_drops_runs_is_stopped():
    channel: Channel[int] = Channel(capacity=1, drop_runs=True)
    channel.put(0)
    channel.stop()
    with pytest.raises(Stopped):
        channel.put(1)


def test_a_failure_arrives_after_the_items():
    channel: Channel[int] = Channel(capacity=5)
    channel.put(1)
    channel.end(KeyError("broken"))
    received = []
    with pytest.raises(KeyError, match="broken"):
        for item in channel:
            received.append(item)
    assert received == [1]


def test_stopping_wakes_a_waiting_producer():
    channel: Channel[int] = Channel(capacity=1)
    raised = []
    is_full = threading.Event()

    def produce():
        try:
            channel.put(0)
            is_full.set()
            channel.put(0)
        except Stopped as error:
            raised.append(error)

    thread = _in_thread(produce)
    assert is_full.wait(5)
    channel.stop()
    thread.join(5)
    assert not thread.is_alive()
    assert raised
