from people_twice import Count
from runtime_helpers import key_frame


def test_pairs_before_and_after():
    """Two boxes of one person that overlap by 0.78, and somebody else."""
    rows = [(12, 0.9, 0.1, 0.1, 0.5, 0.9), (79, 0.8, 0.15, 0.1, 0.55, 0.9), (14, 0.7, 0.6, 0.1, 0.9, 0.9)]
    count = Count()
    for _ in range(2):
        count.add(key_frame(rows), 0.4)
    assert count.line("clip").split() == ["clip", "2", "6", "2", "4", "0"]
