"""Selection of training tubes against a slow transcription of SPEC.md's rules."""

import time

import numpy as np
import pytest
import torch

from step.training.objectives.detection import Candidates, SelectionOptions, step_targets
from step.training.objectives.selection import NOBODY, box_iou, rank_candidates, select_tubes
from step.training.samples.batch import People


def _boxes(state, count, size=100):
    low = state.rand(count, 2) * size * 0.7
    return torch.from_numpy(np.concatenate((low, low + 1 + state.rand(count, 2) * size * 0.5), 1)).float()


def _slow_iou(one, other):
    width = max(min(one[2], other[2]) - max(one[0], other[0]), 0)
    height = max(min(one[3], other[3]) - max(one[1], other[1]), 0)
    areas = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1])
    return width * height / (areas - width * height)


def test_iou_pair_by_pair():
    state = np.random.RandomState(0)
    first, second = _boxes(state, 30), _boxes(state, 20)
    expected = [[_slow_iou(one, other) for other in second.tolist()] for one in first.tolist()]
    np.testing.assert_allclose(box_iou(first, second), expected, atol=1e-6)
    assert box_iou(first, second[:0]).shape == (30, 0)


def _forced(iou):
    """Who takes what: each person in turn the free tube that overlaps them most."""
    taken = {}
    for person in range(iou.shape[1]):
        free = [tube for tube in range(len(iou)) if tube not in taken]
        if free:
            taken[max(free, key=lambda tube: iou[tube, person])] = person
    return taken


@pytest.mark.parametrize("seed", range(60))
def test_the_rules(seed):
    """Few and many people, more people than tubes, nobody near, thresholds of all steps."""
    state = np.random.RandomState(seed)
    people, tubes = state.randint(1, 9), state.choice([3, 34, 60])
    iou = box_iou(_boxes(state, tubes), _boxes(state, people))
    threshold = float(state.choice([0.2, 0.35, 0.5]))
    scores = torch.from_numpy(state.rand(tubes)).float() if seed % 2 else None
    generator = torch.Generator().manual_seed(seed)
    chosen = select_tubes(iou, scores, positive_iou=threshold, regression_iou=threshold, generator=generator)
    tube, person = chosen.tube.tolist(), chosen.person.tolist()
    assert len(set(tube)) == len(tube)
    positives = {t: p for t, p, c in zip(tube, person, chosen.classify.tolist(), strict=True) if c}
    negatives = [t for t, c in zip(tube, chosen.classify.tolist(), strict=True) if not c]
    forced = _forced(iou.numpy())
    assert {t: positives[t] for t in forced} == forced
    above = [t for t in range(tubes) if iou[t].max() > threshold and t not in forced]
    assert len(positives) == len(forced) + min(max(5 - len(forced), 0), len(above))
    for t in set(positives) - set(forced):
        assert t in above
        assert positives[t] == int(iou[t].argmax())
    rest = [t for t in range(tubes) if iou[t].max() <= threshold and t not in forced]
    assert set(negatives) <= set(rest)
    assert len(negatives) == min(2 * len(positives), len(rest))
    regress = dict(zip(tube, chosen.regress.tolist(), strict=True))
    assert all(regress[t] for t in positives)
    assert all(regress[t] == bool(iou[t].max() >= threshold) for t in negatives)


def test_a_negative_may_train_the_box_alone():
    iou = torch.tensor([[0.9], [0.3], [0.1]])
    chosen = select_tubes(iou, None, positive_iou=0.5, regression_iou=0.25)
    by_tube = dict(
        zip(chosen.tube.tolist(), zip(chosen.classify.tolist(), chosen.regress.tolist(), strict=True), strict=True)
    )
    assert by_tube == {0: (True, True), 1: (False, True), 2: (False, False)}


def test_negatives_follow_the_scores():
    """Drawn with probability softmax(score): the odds of 2 to 0 are e^2."""
    iou, scores = torch.zeros(3, 1), torch.tensor([9.0, 2.0, 0.0])
    count = [0, 0, 0]
    generator = torch.Generator().manual_seed(0)
    for _ in range(4000):
        chosen = select_tubes(
            iou, scores, positive_iou=0.5, regression_iou=0.5, negatives_per_positive=1, generator=generator
        )
        assert chosen.tube[0] == 0  # the person's, though it does not overlap them
        count[int(chosen.tube[1])] += 1
    share = float(torch.tensor(2.0).exp() / (1 + torch.tensor(2.0).exp()))
    assert count[1] / 4000 == pytest.approx(share, abs=4 * (share * (1 - share) / 4000) ** 0.5)


def test_nobody():
    chosen = select_tubes(torch.zeros(5, 0), None, positive_iou=0.5, regression_iou=0.5)
    assert len(chosen.tube) == 2
    assert chosen.person.tolist() == [NOBODY, NOBODY]
    assert not chosen.classify.any()
    assert not chosen.regress.any()


def test_ranking_takes_the_best_of_every_class():
    """With 40 tubes, 60 classes and room for 10, each class gives one tube, each tube once, and the ten best stay."""
    scores = torch.from_numpy(np.random.RandomState(3).rand(40, 60)).float()
    expected = sorted({int(column.argmax()) for column in scores.T}, key=lambda tube: -float(scores[tube].max()))
    assert rank_candidates(scores, max_candidates=10).tolist() == expected[:10]
    assert sorted(rank_candidates(scores).tolist()) == sorted(
        {int(tube) for column in scores.T for tube in column.topk(10).indices}
    )


def _people(state, count, classes=60):
    return People(
        boxes_px=_boxes(state, count),
        labels=torch.from_numpy((state.rand(count, classes) < 0.1).astype(np.float32)),
        neighbour_px=_boxes(state, 2 * count).reshape(count, 2, 4),
        neighbour_known=torch.from_numpy(state.rand(count, 2) < 0.5),
    )


def _targets(candidates, people, *, has_neighbours=False):
    generators = [torch.Generator().manual_seed(i) for i in range(len(people))]
    return step_targets(
        candidates, people, SelectionOptions(), step=1, has_neighbours=has_neighbours, generators=generators
    )


def test_targets_of_clips_with_different_numbers_of_tubes():
    """Short clips are filled up with rows that count nowhere."""
    state = np.random.RandomState(0)
    people = [_people(state, 2), _people(state, 0), _people(state, 7)]
    candidates = [
        Candidates(_boxes(state, count)[:, None].repeat(1, 3, 1), torch.rand(count)) for count in (34, 34, 12)
    ]
    targets = _targets(candidates, people, has_neighbours=True)
    assert targets.tubes_px.shape[:2] == targets.valid.shape
    for clip, there in enumerate(people):
        valid = targets.valid[clip]
        assert valid.sum() >= 2
        assert not targets.regress[clip][~valid].any()
        assert not targets.neighbour[clip][~valid].any()
        assert not targets.labels[clip][~valid].any()
        positive = targets.labels[clip].any(1)
        if not len(there.boxes_px):
            assert not targets.regress[clip].any()
            assert not positive.any()
        for row in torch.nonzero(targets.neighbour[clip]).tolist():
            person = (there.boxes_px == targets.boxes_px[clip, row[0]]).all(1).nonzero()[0, 0]
            assert there.neighbour_known[person, row[1]]
            assert torch.equal(targets.neighbour_px[clip, row[0]], there.neighbour_px[person])
    assert targets.neighbour.any()
    assert not _targets(candidates, people).neighbour.any()


def test_selection_and_targets_of_a_batch_take_little():
    """8 clips of 109 candidates and 5 people, after ranking: under 20 ms."""
    state = np.random.RandomState(0)
    people = [_people(state, 5) for _ in range(8)]
    scores = torch.rand(8, 109, 60)
    tubes = [_boxes(state, 109)[:, None].repeat(1, 3, 1) for _ in range(8)]

    def run():
        ranks = [rank_candidates(each) for each in scores]
        candidates = [Candidates(t[r], s.amax(1)[r]) for t, r, s in zip(tubes, ranks, scores, strict=True)]
        return _targets(candidates, people, has_neighbours=True)

    run()
    times_s = []
    for _ in range(10):
        start_s = time.perf_counter()
        run()
        times_s.append(time.perf_counter() - start_s)
    assert min(times_s) < 0.020
