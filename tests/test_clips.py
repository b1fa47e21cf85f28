"""What a sample is depends on (seed, epoch, index) alone; what cannot be read is replaced, told and bounded."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import warnings
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
import zoo
from torch.utils.data import TensorDataset

from motionmae import noise
from motionmae.config import Data, Model, Pretrain, Target
from motionmae.data import clips
from motionmae.data.clips import Clips, Draws
from motionmae.data.loading import Order, loader, watched
from motionmae.data.views import Views
from motionmae.errors import MotionMAEError
from motionmae.tasks.pretrain import clips_of
from motionmae.video import reading as video

PLAIN = Data(stride=2, flip=False, scales=(1.0,), workers=0)
OFFSETS = [0, 2, 4, 6]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("films")
    made = [zoo.encode(folder / f"{i}.mp4", "libx264", count=20 + i, options=zoo.H264) for i in range(5)]
    return [*made, zoo.encode(folder / "5.webm", "libvpx-vp9", count=30, times=zoo.jittered, clock=zoo.SLOW_CLOCK)]


def drawn(number: float) -> Draws:
    return Draws(start=number, crop=[number] * 4, mirror=number, parts=[number] * 20)


def shown(clip: torch.Tensor) -> list[int]:
    return [zoo.number_of(frame) for frame in clip.permute(1, 2, 3, 0).numpy()]


def test_half_of_the_clips_are_mirrored_and_none_where_left_and_right_are_labels():
    def mirrored(flip: bool) -> float:
        dataset = Clips([Path("a.mp4")], replace(PLAIN, flip=flip), OFFSETS, 48, seed=0)
        return sum(dataset.place(dataset.draws(noise.key(0, 0, index)))[1] for index in range(2000)) / 2000

    assert mirrored(True) == pytest.approx(0.5, abs=0.04)
    assert mirrored(False) == 0


def test_a_clip_shows_the_frames_that_were_chosen(files: list[Path]):
    dataset = Clips(files, PLAIN, OFFSETS, 48, seed=0)
    for index in range(5):
        (sample,) = dataset[(3, index)]
        assert sample["clip"].shape == (3, 4, 48, 48)
        assert sample["clip"].dtype == torch.uint8
        assert (sample["index"], sample["key"]) == (index, noise.key(0, 3, index, 0))


def test_only_the_frames_of_the_clips_are_decoded_once_for_all_repeats(files: list[Path], monkeypatch):
    asked = []
    every = video.Video.pictures
    monkeypatch.setattr(video.Video, "pictures", lambda self, wish=None: asked.append(wish) or every(self, wish))
    samples = Clips(files, replace(PLAIN, repeats=4), OFFSETS, 48, seed=0)[(0, 1)]
    assert len(samples) == 4
    assert len({sample["key"] for sample in samples}) == 4
    assert len(asked) == 1
    assert len(asked[0]) <= 16


@pytest.mark.parametrize(
    "data",
    [
        PLAIN,
        replace(PLAIN, sampling="uniform"),
        replace(PLAIN, fps=12.5),
        replace(PLAIN, flip=True, scales=(1.0, 0.7)),
        replace(PLAIN, area=(0.2, 0.9)),
    ],
)
def test_videos_in_memory_give_the_same_clips(files: list[Path], data: Data):
    fresh, kept = Clips(files, data, OFFSETS, 32, 1), Clips(files, replace(data, cache=True), OFFSETS, 32, 1)
    for place in itertools.product(range(2), range(6)):
        for one, other in zip(fresh[place], kept[place], strict=True):
            assert torch.equal(one["clip"], other["clip"])
    assert len(kept.kept) == 6


def test_a_rate_takes_frames_by_their_times(files: list[Path], tmp_path: Path):
    fast = zoo.encode(tmp_path / "50.mp4", "libx264", clock=Fraction(1, 50))
    film = zoo.encode(tmp_path / "24.mp4", "libx264", clock=Fraction(1001, 24000))
    dataset = Clips([fast, film, files[5]], replace(PLAIN, fps=10.0, scales=(1.0,)), [0, 1, 2, 3], 48, 0)
    monkeys = [sample["clip"] for index in range(3) for sample in dataset[(0, index)]]
    assert monkeys[0].shape == (3, 4, 48, 48)
    with video.open_video(fast) as opened:
        numbers = dataset.choose(opened, drawn(0.5))
        assert [b - a for a, b in itertools.pairwise(numbers)] == [5, 5, 5]
    with video.open_video(film) as opened:
        assert [b - a for a, b in itertools.pairwise(dataset.choose(opened, drawn(0.0)))] == [2, 2, 3]
    with video.open_video(files[5]) as opened:
        times = [zoo.jittered(number) for number in dataset.choose(opened, drawn(0.0))]
        assert times == [0, 53, 113, 260] or times == [0, 53, 113, 293]


def test_uniform_sampling_covers_the_whole_video(files: list[Path]):
    (sample,) = Clips(files, replace(PLAIN, sampling="uniform"), [0, 2, 4, 6, 8], 48, 0)[(0, 0)]
    with video.open_video(files[0]) as opened:
        numbers = Clips(files, replace(PLAIN, sampling="uniform"), OFFSETS, 48, 0).choose(opened, drawn(0.5))
    assert numbers == [2, 7, 12, 17]
    assert sample["clip"].shape[1] == 5


def batches(files: list[Path], workers: int, rank: int = 0, ranks: int = 1, start: int = 0, count: int = 5):
    data = replace(PLAIN, workers=workers, prefetch=2, flip=True)
    order = Order(len(files), 4, 4 // ranks, 7, rank, ranks, start)
    found = loader(Clips(files, data, OFFSETS, 24, 7, [0, 1, 0, 1, 0, 1]), order, data, pin=False)
    return list(itertools.islice(found, count))


def test_batches_do_not_depend_on_workers_ranks_or_where_a_run_went_on(files: list[Path]):
    alone = batches(files, 0)
    for other in (batches(files, 2), batches(files, 0, start=2, count=3)):
        for one, two in zip(alone[-len(other) :], other, strict=True):
            assert sorted(one) == ["clip", "index", "key", "label"]
            assert all(torch.equal(one[name], two[name]) for name in one)
    halves = [batches(files, 0, rank, 2) for rank in (0, 1)]
    for one, first, second in zip(alone, *halves, strict=True):
        assert all(torch.equal(one[name], torch.cat([first[name], second[name]])) for name in one)
    assert alone[0]["key"].dtype == alone[0]["label"].dtype == torch.int64


@pytest.fixture
def spoilt(files: list[Path], tmp_path: Path) -> list[Path]:
    (tmp_path / "bad.mp4").write_bytes(b"not a video")
    return [*files, tmp_path / "bad.mp4"]


def test_a_bad_file_is_replaced_told_once_and_counted(spoilt: list[Path], capfd: pytest.CaptureFixture[str]):
    dataset = Clips(spoilt, replace(PLAIN, bad_share=1.0), OFFSETS, 24, 0)
    samples = [dataset[(epoch, 6)][0] for epoch in range(9)]
    assert all(sample["index"] < 6 for sample in samples)
    assert len({sample["index"] for sample in samples}) > 1
    assert torch.equal(samples[0]["clip"], Clips(spoilt, PLAIN, OFFSETS, 24, 0)[(0, 6)][0]["clip"])
    assert capfd.readouterr().err == f"motionmae: skipped {spoilt[6]}: not a video\n" * 2
    assert dataset.failures[6] >= 9


def test_too_many_bad_files_stop_the_run_with_one_sentence(spoilt: list[Path]):
    dataset = Clips(spoilt, replace(PLAIN, bad_share=0.1), OFFSETS, 24, 0)
    with pytest.raises(MotionMAEError, match=r"10 of \d+ reads failed, more than --data.bad-share 0.1, the last of"):
        [dataset[place] for place in itertools.product(range(100), range(7))]
    lenient = Clips(spoilt, replace(PLAIN, bad_share=0.4), OFFSETS, 24, 0)
    for epoch, index in itertools.product(range(20), range(7)):
        lenient[(epoch, index)]
    worse = Clips([spoilt[6]] * 3, PLAIN, OFFSETS, 24, 0)
    with pytest.raises(MotionMAEError):
        worse[(0, 0)]


def test_the_share_is_that_of_all_workers_together(spoilt: list[Path]):
    data = replace(PLAIN, workers=2, bad_share=0.2)
    dataset = Clips([*spoilt[:2], spoilt[6]], data, OFFSETS, 24, 0)
    found = loader(dataset, Order(3, 1, 1, 0), data, pin=False)
    with pytest.raises(MotionMAEError, match=r"of \d+ reads failed"):
        list(itertools.islice(found, 60))
    assert (dataset.counts[1:, 1] > 0).all(), "both workers counted"
    reads, failed = dataset.counts.sum(0).tolist()
    assert 10 <= failed < 20
    assert failed < reads < 60


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_workers_are_one_sentence(spoilt: list[Path], workers: int):
    data = replace(PLAIN, workers=workers)
    before = set(multiprocessing.active_children())
    found = loader(Clips([spoilt[6]] * 8, data, OFFSETS, 24, 0), Order(8, 4, 4, 0), data, pin=False)
    with pytest.raises(MotionMAEError) as caught:
        list(itertools.islice(found, 9))
    assert set(multiprocessing.active_children()) <= before, "the workers have ended too"
    assert "\n" not in str(caught.value)
    assert "reads failed" in str(caught.value) or "in a row" in str(caught.value)


def test_a_file_that_always_fails_is_not_opened_for_ever(spoilt: list[Path], monkeypatch):
    opened = []
    open_video = clips.open_video
    monkeypatch.setattr(clips, "open_video", lambda path: opened.append(path) or open_video(path))
    dataset = Clips(spoilt, replace(PLAIN, bad_share=1.0), OFFSETS, 24, 0)
    for epoch in range(40):
        dataset[(epoch, 6)]
    assert opened.count(spoilt[6]) == clips.TRIES


@pytest.mark.parametrize("data", [PLAIN, replace(PLAIN, sampling="uniform"), replace(PLAIN, fps=12.5)])
def test_views_cover_time_and_space_without_chance(files: list[Path], data: Data):
    dataset = Views(files, data, OFFSETS, 48, 3, 2, [5, 6, 7, 8, 9, 10])
    samples = dataset[0]
    assert [sample["view"] for sample in samples] == list(range(6))
    assert {sample["label"] for sample in samples} == {5}
    assert all(torch.equal(one["clip"], two["clip"]) for one, two in zip(samples, dataset[0], strict=True))
    cut = files[0].parent / "cut.mp4"
    cut.write_bytes(files[0].read_bytes()[:500])
    with pytest.raises(MotionMAEError, match=r"cut\.mp4"):
        Views([cut], data, OFFSETS, 48)[0]


def test_a_clip_that_starts_again_tells_its_frames_numbers(files: list[Path]):
    offsets = [8 * step for step in range(4)]
    (sample,) = Clips(files, replace(PLAIN, short="loop"), offsets, 48, 0)[(0, 0)]
    assert sample["numbers"].tolist() == [0, 8, 16, 4]
    dataset = Clips(files, PLAIN, offsets, 48, 0)
    assert "numbers" not in dataset[(0, 0)][0]
    with video.open_video(files[0]) as opened:
        assert dataset.choose(opened, drawn(0.5)) == [0, 8, 16, 19]


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("gap", [1, 2, 5])
def test_neighbours_in_the_source_are_the_gap_apart_in_spread_clips_too(files: list[Path], stride: int, gap: int):
    config = Pretrain(
        model=Model(4, 48, (2, 8, 8), 24, 1, 3),
        target=Target(adjacent="video", gap=gap),
        data=replace(PLAIN, sampling="uniform", stride=stride),
    )
    dataset = clips_of(config, files)
    with video.open_video(files[4]) as opened:
        numbers = dataset.choose(opened, dataset.draws(noise.key(0, 1)))
    assert [min(number + gap, 23) for number in numbers[:4]] == numbers[4:]
    assert all(6 * part <= number < 6 * part + 6 for part, number in enumerate(numbers[:4]))


def test_more_workers_than_processors_are_worth_no_word(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(watched(TensorDataset(torch.zeros(4, 1)), 2, 1, 1, "--workers"))) == 4
