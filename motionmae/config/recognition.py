"""Action recognition: fine-tune, probe, evaluate, predict."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from tyro.conf import Positional, Suppress, arg

from motionmae.config.bounds import COUNT, FRAMES, HEADS, PIXELS, RATE, SEED, SHARE, SOME, Bounds
from motionmae.config.data import Augment, Data, Sampling, Short
from motionmae.config.model import Model
from motionmae.config.run import Compute, Optim, Run

ProbeKind = Literal["knn", "logistic", "linear", "linear-bn", "attentive"]
Pool = Literal["mean", "time", "grid", "change"]


@dataclass(frozen=True)
class Labelled(Data):
    """From videos of known classes to clips."""

    test: str = ""
    """Videos to test on: what `path` may be, with the same classes. By default the part of the list of `path` whose
    column "split" says test; without one a fifth of each class, or whole groups of its column "group", drawn by the
    seed."""
    test_split: str = ""
    """Part of a list to test on, as `split` is that to train on; of the list of `path` where `test` is not given."""
    leave_out: str = ""
    """Instead of a test: a value of the column "group" of the list of `path` (a person, a camera), whose videos are
    tested on and not learnt from; `each` leaves out one after another, in runs of their own, and makes one table."""
    fraction: Annotated[float, SHARE] = 1.0
    """Share of the training videos of each class that is used, at least one; drawn by the seed."""
    frames: Annotated[int | None, FRAMES] = None
    """Frames of a clip; by default as many as the model was made for."""
    size: Annotated[int | None, PIXELS] = None
    """Height and width of a clip in pixels; by default those that the model was made for."""


@dataclass(frozen=True)
class TestData:
    """Labelled videos to test on."""

    path: str = ""
    """A folder of class folders, a manifest, a list with classes, or annotations, as --data.path of finetune."""
    root: str = ""
    """Folder that the paths in a list start from; by default the list's own."""
    split: str = ""
    """Part of a list with a column "split", or of HMDB51's: train1, test1 … test3."""


@dataclass(frozen=True)
class ProbeData(TestData):
    """Labelled videos to fit the probes on, and others to test them on."""

    test: str = ""
    """Videos to test on: what `path` may be, with the same classes. By default the part of the list of `path` whose
    column "split" says test; without one a fifth of each class, or whole groups of its column "group", drawn by the
    seed."""
    test_split: str = ""
    """Part of a list to test on; of the list of `path` where `test` is not given."""
    val_split: str = ""
    """Part of the list of `path` by which the settings are chosen; by default a fifth of the training videos, drawn by
    the seed."""
    leave: str = ""
    """Instead of a test: column of the list of `path`, of whose values (people, places) each is tested in turn by
    probes fitted on all others."""
    fraction: Annotated[float, SHARE] = 1.0
    """Share of the training videos of each class that is used, at least one; drawn by the seed."""


@dataclass(frozen=True)
class Mix:
    """How labelled clips are mixed."""

    mixup: Annotated[float, Bounds(0, 1000)] = 0.8
    """Alpha of the Beta distribution of how two clips are blended; 0 is never."""
    cutmix: Annotated[float, Bounds(0, 1000)] = 1.0
    """Alpha of the Beta distribution of how large a box comes from another clip; 0 is never."""
    smoothing: Annotated[float, Bounds(0, 1)] = 0.1
    """Share of a target that is spread over all classes."""


@dataclass(frozen=True)
class Viewing:
    """What a model sees of a video in a test: clips x crops, whose class probabilities are averaged. What is not given
    is as in the run that made the model."""

    clips: Annotated[int | None, Bounds(1, 10_000)] = None
    """Clips along the video."""
    crops: Annotated[int | None, Bounds(1, 1000)] = None
    """Square crops along the frame's long side: 1 is the middle, 3 the ends too."""
    sampling: Sampling | None = None
    """Frames at a stride, or one from each of equal parts of the video."""
    stride: Annotated[int | None, Bounds(1, 10_000)] = None
    """Frames from one frame of a clip to the next, for dense sampling."""
    fps: Annotated[float | None, RATE] = None
    """Take videos as if they had so many frames per second, for dense sampling."""
    short: Short | None = None
    """What to do with videos shorter than a clip: start again, or repeat the last frame."""
    frames: Annotated[int | None, FRAMES] = None
    """Frames of a clip."""
    size: Annotated[int | None, PIXELS] = None
    """Height and width of a crop in pixels."""


@dataclass(frozen=True)
class Finetune:
    """Learn to tell classes of labelled videos, from a pretrained encoder or from scratch."""

    init: str = ""
    """A run folder or checkpoint whose encoder to start from, or `none` for a new one."""
    model: Model = field(default_factory=Model)
    """The model, where --init is none; otherwise the checkpoint's is used."""
    heads: Annotated[int | None, HEADS] = None
    """Attention heads of the encoder, where a foreign --init does not say."""
    drop_path: Annotated[float, Bounds(0, 0.99)] = 0.1
    """Chance that the last block leaves out a branch, for a clip; it rises from 0 at the first block."""
    dropout: Annotated[float, Bounds(0, 0.99)] = 0.0
    """Chance that the head's linear layer does not see a number."""
    layer_decay: Annotated[float, Bounds(0.01, 1)] = 0.75
    """Each block learns at this multiple of the rate of the one after it."""
    mix: Mix = field(default_factory=Mix)
    augment: Augment = field(default_factory=Augment)
    data: Labelled = field(default_factory=Labelled)
    views: Viewing = field(default_factory=Viewing)
    optim: Optim = field(default_factory=Optim)
    run: Run = field(default_factory=Run)
    classes: tuple[str, ...] = ()
    """Names of the classes, in the order of the scores; by default those found under --data.path, sorted."""
    seed: Annotated[int, SEED] = 0
    """Seed of a new model's weights, the order of the videos, the crops, the mixing and the fraction."""
    open: Annotated[tuple[str, ...], Suppress] = ()
    """Options that suit themselves to the videos and the machine; one that is typed is none of them."""


@dataclass(frozen=True)
class Probe:
    """Measure a frozen encoder: what k-NN and small classifiers make of its features."""

    model: Positional[str] = ""
    """A run folder or checkpoint with an encoder, ours or another project's; or what was not learnt, as a comparison:
    `pixels`, the frames themselves, or `energy`, the absolute differences of adjacent ones."""
    kinds: tuple[ProbeKind, ...] = ("knn", "logistic", "linear", "linear-bn", "attentive")
    """k-NN by cosine; logistic regression to its optimum; linear by SGD, without and with batch norm; one
    cross-attention query over all tokens."""
    pool: tuple[Pool, ...] = ("mean",)
    """What all but attentive see of a video, one or several: the mean token; the mean token of each time slot, one
    after another; those of each slot's four quarters; or, place by place, how much the tokens change over time (their
    standard deviation)."""
    untrained: bool = False
    """Forget the weights: the same encoder at its start, for comparison."""
    neighbours: Annotated[tuple[int, ...], Bounds(1, 1_000_000_000, least=1)] = (1, 5, 10, 20, 50)
    """Numbers of neighbours that k-NN tries."""
    temperature: Annotated[float, Bounds(0, 1000, above=True)] = 0.07
    """Of k-NN's votes, exp(cosine / temperature)."""
    penalties: Annotated[tuple[float, ...], Bounds(0, 1e9, least=1)] = (1e-4, 1e-3, 1e-2, 1e-1)
    """Times the sum of the squared weights, that logistic regression tries."""
    rates: Annotated[tuple[float, ...], Bounds(0, 1e6, above=True, least=1)] = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    """Learning rates that the linear probes try; the attentive one tries a hundredth of the lowest five."""
    epochs: Annotated[int, COUNT] = 100
    """Passes of the linear probes over the features; the attentive one makes a fifth of them."""
    data: ProbeData = field(default_factory=ProbeData)
    views: Viewing = field(default_factory=lambda: Viewing(clips=1, crops=1))
    compute: Annotated[Compute, arg(name="")] = field(default_factory=Compute)
    heads: Annotated[int | None, HEADS] = None
    """Attention heads of the encoder, where a foreign file does not say."""
    out: str = ""
    """Folder for features and figures; by default `probe` in the run folder, or runs/NAME for a file."""
    seed: Annotated[int, SEED] = 0
    """Seed of the probes, of what is held out to choose by, of the fraction and of an untrained encoder."""


@dataclass(frozen=True)
class Evaluate:
    """Test a fine-tuned model on labelled videos."""

    model: Positional[str] = ""
    """A run folder of finetune, or a checkpoint with a head, ours or another project's."""
    data: TestData = field(default_factory=TestData)
    views: Viewing = field(default_factory=Viewing)
    compute: Annotated[Compute, arg(name="")] = field(default_factory=Compute)
    orders: bool = True
    """Test also on frames backwards, shuffled, and one frame repeated: how far the model uses motion at all."""
    mistakes: Annotated[int, SOME] = 8
    """Mistakes that the report shows: those of which the model was surest."""
    heads: Annotated[int | None, HEADS] = None
    """Attention heads of the encoder, where a foreign file does not say."""
    out: str = ""
    """Folder for the report, the figures and the predictions; by default `evaluation` in the run folder, or runs/NAME
    for a file."""


@dataclass(frozen=True)
class BenchEvaluate(Evaluate):
    """Measure how fast motionmae evaluate is, and the encoder's share of its time; what it writes is thrown away."""


@dataclass(frozen=True)
class Predict:
    """Tell the classes of any videos."""

    model: Positional[str] = ""
    """A run folder of finetune, or a checkpoint with a head, ours or another project's."""
    videos: Positional[tuple[str, ...]] = ()
    """Video files, or folders that are searched through all their levels."""
    every: str = ""
    """Tell the classes along time: seconds from one window's start to the next, such as 1s or 0.5."""
    window: str = ""
    """Seconds that a window lasts; by default as long as --every."""
    top: Annotated[int, COUNT] = 5
    """Classes that are told, the likeliest first."""
    json: str = ""
    """Write JSON to this file, or with - to the screen, instead of a table."""
    render: str = ""
    """Write the video (one alone) with its likeliest classes in the picture, as an .mp4."""
    views: Viewing = field(default_factory=Viewing)
    compute: Annotated[Compute, arg(name="")] = field(default_factory=Compute)
    heads: Annotated[int | None, HEADS] = None
    """Attention heads of the encoder, where a foreign file does not say."""
