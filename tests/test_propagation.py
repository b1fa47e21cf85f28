from __future__ import annotations

import pytest
import torch

from motionmae.errors import MotionMAEError
from motionmae.inference.propagation import carry, harden, heat, match, peaks, propagate, soften
from motionmae.tasks.segment.bench import full_step


def sequence(frames: int, height: int, width: int, classes: int = 3, seed: int = 0, dtype=torch.float64):
    random = torch.Generator().manual_seed(seed)
    features = [torch.randn(height, width, 5, generator=random, dtype=dtype) for _ in range(frames)]
    return features, torch.rand(height, width, classes, generator=random, dtype=dtype).softmax(-1)


def full_affinity(features, labels, context: int, radius: int, topk: int, temperature: float):
    """What `propagate` gives, by `full_step`."""
    known = [labels]
    for index in range(1, len(features)):
        sources = (0, *range(max(1, index - context), index))
        keys, values = [features[each] for each in sources], [known[each] for each in sources]
        known.append(full_step(features[index], keys, values, radius, topk, temperature))
    return known[1:]


@pytest.mark.parametrize(
    ("height", "width", "context", "radius", "topk", "temperature"),
    [
        (5, 7, 2, 1, 3, 0.1),
        (19, 30, 3, 4, 5, 0.05),
        (9, 26, 0, 12, 7, 0.7),
        (3, 3, 5, 20, 10, 0.1),
        (4, 4, 2, 0, 5, 1.0),
    ],
)
def test_blocks_equal_the_full_affinity(height, width, context, radius, topk, temperature):
    features, labels = sequence(7, height, width)
    numbers = {"context": context, "radius": radius, "topk": topk, "temperature": temperature}
    ours, slow = list(propagate(features, labels[None], **numbers)), full_affinity(features, labels, **numbers)
    assert len(ours) == len(slow) == 6
    for mine, theirs in zip(ours, slow, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_several_given_frames_all_stay_in_context():
    features, _ = sequence(8, 7, 9)
    labels = torch.rand(3, 7, 9, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64).softmax(-1)
    numbers = {"radius": 3, "topk": 4, "temperature": 0.2}
    ours, known = list(propagate(features, labels, context=2, **numbers)), list(labels)
    for index in range(3, 8):
        sources = (0, 1, 2, *range(max(3, index - 2), index))
        keys, values = [features[each] for each in sources], [known[each] for each in sources]
        known.append(full_step(features[index], keys, values, *numbers.values()))
    assert len(ours) == 5
    for mine, theirs in zip(ours, known[3:], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_the_matches_are_the_very_ones_of_a_search_over_all_cells():
    (query, *keys), _ = sequence(4, 11, 29)
    scores, places = match(query, torch.stack(keys), radius=3, topk=4)
    for row in range(11):
        for column in range(29):
            products = torch.stack(keys) @ query[row, column]
            products[:, [y for y in range(11) if abs(y - row) > 3]] = -torch.inf
            products[:, :, [x for x in range(29) if abs(x - column) > 3]] = -torch.inf
            best = products.flatten().topk(4)
            assert places[row, column].tolist() == best.indices.tolist()
            torch.testing.assert_close(scores[row, column], best.values)


def test_every_number_of_the_protocol_changes_the_result():
    features, labels = sequence(6, 9, 9)
    numbers = {"context": 2, "radius": 2, "topk": 3, "temperature": 0.1}
    before = list(propagate(features, labels[None], **numbers))[-1]
    for name, other in (("context", 3), ("radius", 3), ("topk", 4), ("temperature", 0.2)):
        after = list(propagate(features, labels[None], **numbers | {name: other}))[-1]
        assert not torch.allclose(before, after), name


def test_the_first_frame_stays_in_context_and_older_ones_leave_it():
    features, labels = sequence(5, 4, 4)
    changed = [
        *features[:1],
        features[1] + 1,
        *features[2:],
    ]  # frame 1 is in no later frame's context of 1 but frame 2's
    numbers = {"context": 1, "radius": 4, "topk": 1, "temperature": 0.1}
    keys = torch.nn.functional.normalize(torch.stack([features[0], features[3]]), dim=-1)
    scores, places = match(torch.nn.functional.normalize(features[4], dim=-1), keys, 4, 1)
    known = list(propagate(features, labels[None], **numbers))
    torch.testing.assert_close(known[3], carry(torch.stack([labels, known[2]]), scores, places, 0.1))
    assert not torch.equal(next(iter(propagate(changed, labels[None], **numbers))), known[0])


def test_a_shifted_scene_carries_its_labels_along():
    random = torch.Generator().manual_seed(0)
    world = torch.randn(20, 40, 16, generator=random)
    features = [world[:, shift : shift + 20] for shift in range(0, 12, 2)]
    truth = torch.zeros(20, 40, 2)
    truth[..., 0], truth[5:12, 15:20] = 1, torch.tensor([0.0, 1.0])
    found = list(propagate(features, truth[None, :, :20], context=7, radius=3, topk=1, temperature=0.1))
    for index, labels in enumerate(found, start=1):
        assert torch.equal(labels[:, : 20 - 2 * index], truth[:, 2 * index : 20])


def test_an_object_that_is_hidden_for_some_frames_returns_from_the_first_one():
    random = torch.Generator().manual_seed(0)
    back, thing = torch.randn(8, 8, 16, generator=random), torch.randn(2, 2, 16, generator=random)
    shown = back.clone()
    shown[3:5, 3:5] = thing
    labels = torch.zeros(8, 8, 2)
    labels[..., 0], labels[3:5, 3:5] = 1, torch.tensor([0.0, 1.0])
    features = [shown, back, back, back, shown]
    maps = list(propagate(features, labels[None], context=1, radius=8, topk=1, temperature=0.1))
    masks = [harden(each, (8, 8), stretch=False) for each in maps]
    assert [int(mask.sum()) for mask in masks[:3]] != [4, 4, 4]
    assert torch.equal(masks[3].bool(), labels[..., 1].bool())


def test_a_sequence_of_one_frame_has_nothing_to_propagate():
    features, labels = sequence(1, 3, 3)
    assert list(propagate(features, labels[None], context=1, radius=1, topk=1, temperature=0.1)) == []


def test_labels_on_another_grid_are_refused():
    features, labels = sequence(2, 3, 3)
    with pytest.raises(MotionMAEError, match=r"grid is \(3, 3\), the labels' \(2, 3\)"):
        list(propagate(iter(features), labels[None, :2], context=1, radius=1, topk=1, temperature=0.1))


def test_soft_labels_are_shares_and_return_as_the_mask():
    mask = torch.zeros(32, 48, dtype=torch.int64)
    mask[8:24, 16:40] = 2
    labels = soften(mask, 2, (4, 6))
    torch.testing.assert_close(labels.sum(-1), torch.ones(4, 6))
    assert labels[..., 2].sum() == 16 * 24 / 64
    inside = harden(labels, (32, 48), stretch=False)
    assert (inside[10:22, 18:38] == 2).all()
    assert (inside[mask == 0] == 0).all()


def test_stretching_brings_a_faint_object_back():
    labels = torch.zeros(8, 8, 2)
    labels[..., 0], labels[2:5, 2:5] = 1, torch.tensor([0.8, 0.2])
    assert harden(labels, (8, 8), stretch=False).sum() == 0
    assert harden(labels, (8, 8), stretch=True)[3, 3] == 1


def test_points_return_from_their_heat():
    points = torch.tensor([[2.25, 3.5], [0.0, 9.0], [6.0, 0.75]])
    found, heights = peaks(heat(points, (7, 10)))
    torch.testing.assert_close(found, points)
    assert heights.tolist() == pytest.approx([0.375, 1.0, 0.75])
    lost, height = peaks(torch.zeros(4, 4, 1))
    assert lost.isnan().all()
    assert height.item() == 0


def test_a_point_is_the_mean_place_of_what_lies_within_reach():
    labels = torch.zeros(9, 9, 1)
    labels[4, 4], labels[4, 6], labels[4, 7], labels[6, 4] = 1.0, 0.5, 0.9, 0.5  # two cells away counts, three does not
    places, heights = peaks(labels)
    assert places.tolist() == [[4.5, 4.5]]
    assert heights.tolist() == [1.0]


def test_points_follow_a_shifted_scene():
    random = torch.Generator().manual_seed(0)
    world = torch.randn(20, 40, 16, generator=random)
    features = [world[:, shift : shift + 20] for shift in range(0, 8, 2)]
    start = torch.tensor([[6.0, 15.0], [11.5, 12.25]])
    maps = list(propagate(features, heat(start, (20, 20))[None], context=7, radius=4, topk=1, temperature=0.1))
    for index, labels in enumerate(maps, start=1):
        torch.testing.assert_close(peaks(labels)[0], start - torch.tensor([0.0, 2.0 * index]))
