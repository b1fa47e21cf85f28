"""What a run is made of: frozen dataclasses, whose field docstrings are the help texts of the command line. No logic.

A config is never written to after parsing. `None` stands for "decided by the run" and is resolved in one place each.
"""

from __future__ import annotations

from dataclasses import dataclass, field, is_dataclass
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

from tyro.conf import Positional, arg

T = TypeVar("T")

PositionsKind = Literal["sincos3d", "sincos1d", "learned"]
DecoderKind = Literal["shared", "separate"]
MaskKind = Literal["tube", "random", "frame", "motion", "motion-tube"]
Normalise = Literal["cube", "clip", "none"]
Difference = Literal["absolute", "signed"]
Adjacent = Literal["clip", "video"]
Distance = Literal["mse", "l1", "smooth_l1"]
Sampling = Literal["dense", "uniform"]
Short = Literal["loop", "clamp"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Parallel = Literal["ddp", "fsdp"]


@dataclass(frozen=True)
class Decoder:
    """The light transformer that predicts the masked tokens; thrown away after pretraining."""

    kind: DecoderKind = "shared"
    """One decoder with two prediction layers, or two whole decoders, one a target (better by a little, slower)."""
    width: int = 384
    """Width of a decoder token."""
    depth: int = 4
    """Number of decoder blocks."""
    heads: int = 6
    """Attention heads of a decoder block; must divide the width."""


@dataclass(frozen=True)
class Model:
    """The encoder, a plain video vision transformer, and the decoder it is pretrained with."""

    frames: int = 16
    """Frames that the encoder sees in pretraining."""
    size: int = 224
    """Height and width of those frames in pixels; 0 where a foreign checkpoint does not say."""
    cube: tuple[int, int, int] = (2, 16, 16)
    """Frames, rows and columns of pixels that make one token."""
    width: int = 768
    """Width of an encoder token."""
    depth: int = 12
    """Number of encoder blocks."""
    heads: int = 12
    """Attention heads of an encoder block; must divide the width."""
    mlp_ratio: float = 4.0
    """Hidden width of a block's perceptron over the token width, in the encoder and the decoder."""
    positions: PositionsKind = "sincos3d"
    """How positions enter: sines separable in time, row and column; VideoMAE's sines over the flattened index;
    or learned."""
    norm: bool = True
    """LayerNorm at the end of the encoder (VideoMAE's fine-tuned models pool first and normalise in the head)."""
    decoder: Decoder = field(default_factory=Decoder)


@dataclass(frozen=True)
class Mask:
    """Which tokens are hidden."""

    kind: MaskKind = "tube"
    """Tubes hide a place in all time slots, random hides single tokens, frame whole slots; motion and motion-
    tube sample tokens or tubes by how much they move."""
    ratio: float = 0.9
    """Share of the tokens that is hidden."""
    decode_ratio: float = 1.0
    """Share of the hidden tokens that the decoder predicts, drawn at random; 1.0 is the paper."""
    motion_weight: float = 1.0
    """For the motion kinds: above 0 hides moving places more often, below 0 keeps them visible more often."""


@dataclass(frozen=True)
class Target:
    """What the two heads predict."""

    appearance: Normalise = "cube"
    """Pixels normalised per channel over each cube (VideoMAE), over each clip, or as they are."""
    appearance_floor: float = 0.0
    """Added in quadrature to a cube's standard deviation of pixels in [0, 1]; 0 is VideoMAE. Keeps flat cubes
    from becoming amplified noise."""
    motion: Difference = "absolute"
    """The difference of adjacent frames, with or without its sign."""
    motion_normalise: Normalise = "cube"
    """Differences normalised per channel over each cube, or divided by their root mean square over each clip, or as
    they are."""
    motion_floor: float = 0.05
    """The same for differences of pixels in [0, 1]."""
    adjacent: Adjacent = "clip"
    """Adjacent in the (strided) clip, or in the source video; the loader then reads each frame's neighbour too."""
    gap: int = 1
    """Frames between the two that are subtracted."""


@dataclass(frozen=True)
class Loss:
    """How the predictions are compared with the targets, over masked tokens only."""

    kind: Distance = "mse"
    """Mean square, mean absolute, or smooth absolute difference."""
    appearance: float = 1.0
    """Weight of the space head; 0 leaves it out."""
    motion: float = 1.0
    """Weight of the time head; 0 leaves it out (VideoMAE's objective)."""


@dataclass(frozen=True)
class Data:
    """From files to clips."""

    path: str = ""
    """A folder of videos, searched through all its levels (folders in it are classes); a manifest of motionmae scan;
    a CSV or TSV with a column "path" and perhaps "label"; a list of lines "path class"; or the annotations of Kinetics,
    Something-Something, UCF101 or HMDB51."""
    root: str = ""
    """Folder that the paths in a list start from; by default the list's own. Names are found anywhere below it."""
    split: str = ""
    """Part of a list with a column "split", or of HMDB51's: train1, test1 … test3."""
    sampling: Sampling = "dense"
    """Frames at a stride from a random start, or one from each of equal parts of the video."""
    stride: int = 4
    """Frames from one frame of a clip to the next, for dense sampling."""
    fps: float | None = None
    """Take videos as if they had so many frames per second, whatever their own rate, constant or not."""
    short: Short = "loop"
    """What to do with videos shorter than a clip: start again, or repeat the last frame."""
    repeats: int = 1
    """Clips taken from a video each time it is opened."""
    scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    """Crop sides, as shares of the frame's short side, of which each clip draws one for its height and one for
    its width."""
    area: tuple[float, float] | None = None
    """Instead of `scales`: a random resized crop, whose share of the frame's area is drawn from this range."""
    aspect: tuple[float, float] = (0.75, 4 / 3)
    """Range of that crop's width over its height."""
    flip: bool = True
    """Mirror half of the clips. Off where left and right are labels."""
    cache: bool = False
    """Keep decoded videos in memory: for small data sets and few processors."""
    workers: int = 4
    """Processes that decode, for each rank; 0 decodes in the training process."""
    prefetch: int = 4
    """Batches that each worker prepares ahead."""
    bad_share: float = 0.05
    """Stop when more than this share of the reads fails."""


@dataclass(frozen=True)
class Augment:
    """What is changed in a clip on the device, in all its frames alike. Nothing by default."""

    layers: int = 0
    """RandAugment's operations on each clip; 0 leaves it out, fine-tuning of VideoMAE has 4."""
    magnitude: float = 7.0
    """How strong they are, from 0 to 10."""
    spread: float = 0.5
    """Standard deviation of the magnitude from clip to clip."""
    chance: float = 0.5
    """How often an operation that was drawn is carried out."""
    brightness: float = 0.0
    """Colour jitter: the brightness is multiplied by 1 - this to 1 + this."""
    contrast: float = 0.0
    """The same for the contrast."""
    saturation: float = 0.0
    """The same for the saturation."""
    hue: float = 0.0
    """The hue turns by up to this share of the circle either way; at most 0.5."""
    erase: float = 0.0
    """How often a box is replaced by noise, the same in all frames; fine-tuning of VideoMAE has 0.25."""
    erase_area: tuple[float, float] = (0.02, 1 / 3)
    """Range of that box's share of the frame's area."""


@dataclass(frozen=True)
class Optim:
    """AdamW with linear warm-up and cosine decay, stepped by step."""

    batch: int = 1024
    """Clips in one optimiser step, over all ranks and accumulated micro-batches."""
    epochs: float = 800.0
    """Passes over the videos."""
    steps: int | None = None
    """Optimiser steps, instead of epochs; the warm-up keeps its share."""
    lr: float = 1.5e-4
    """Peak learning rate for 256 clips; the run's peak is this times batch / 256."""
    lr_start: float = 1e-6
    """Learning rate at the first step, not scaled by the batch."""
    lr_end: float = 1e-5
    """Learning rate at the last step, not scaled by the batch."""
    warmup_epochs: float = 40.0
    """Epochs in which the rate rises."""
    weight_decay: float = 0.05
    """Decoupled weight decay of matrices; biases, norms, positions and mask tokens have none."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's two averages."""
    clip: float | None = None
    """Largest norm of the gradient; none by default."""
    ema: float | None = None
    """Decay a step of the weights' running mean, for instance 0.9999; it is kept beside the weights and is what
    motionmae.load takes. None by default."""


@dataclass(frozen=True)
class Run:
    """Where, on what and how often."""

    out: str = ""
    """Run folder; by default runs/COMMAND-PRESET."""
    device: Device = "auto"
    """CUDA, then Apple's GPU, then the CPU, unless named."""
    precision: Precision = "auto"
    """bf16 on a GPU that has it, else fp16 with loss scaling; fp32 on the CPU."""
    compile: bool = False
    """Compile the objective with torch.compile; where that fails the run says why and goes on without."""
    deterministic: bool = False
    """Equal numbers each time on a GPU too, slower; the CPU's are equal in any case."""
    parallel: Parallel = "ddp"
    """Under torchrun: ddp keeps all weights on every rank, fsdp a part on each, with checkpoints in parts too."""
    micro_batch: int | Literal["auto"] | None = None
    """Clips that pass through the model at once, for each rank; the rest of the batch is accumulated. auto tries
    what fits; none: the rank's whole batch."""
    checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    log_every: int = 10
    """Steps between two lines of the log."""
    save_every: int = 500
    """Steps between two checkpoints."""
    inspect_every: int = 1000
    """Steps between two inspections: reconstruction pictures and measures of the representation."""
    keep: int = 2
    """Checkpoints that stay in the run folder; 0 keeps all."""
    bad_steps: int = 20
    """Steps out of the last 100 that may be skipped for a loss or gradient that is not finite; one more ends the
    run with a dump of them."""
    replay: str = ""
    """A dump of bad steps: run them again, say where the numbers stop being finite, and change nothing."""
    plateau_steps: int = 1000
    """Steps after which a part of the loss that is no better than a trivial prediction is named in the log."""
    wandb: str = ""
    """Weights & Biases project that gets the curves too (needs the wandb package)."""
    threads: int | None = None
    """Threads of the CPU's own mathematics; PyTorch's choice by default."""


@dataclass(frozen=True)
class Pretrain:
    """Learn an encoder from unlabelled videos by reconstructing masked appearance and motion."""

    model: Model = field(default_factory=Model)
    mask: Mask = field(default_factory=Mask)
    target: Target = field(default_factory=Target)
    loss: Loss = field(default_factory=Loss)
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    run: Run = field(default_factory=Run)
    seed: int = 0
    """Seed of the weights, the order of the videos, the crops and the masks."""


@dataclass(frozen=True)
class Scan:
    """Examine a folder of videos and write down what is there and what can be used."""

    folder: Positional[str] = ""
    """A folder, searched through all its levels, links followed."""
    out: str = "manifest.csv"
    """The manifest to write: .csv, or .parquet where pyarrow is installed. Where it exists, only new and changed files
    are examined."""
    full: bool = False
    """Decode every frame, instead of the first one of each video."""
    labels: str = ""
    """A list of videos with their classes, which goes before the names of folders."""
    workers: int | None = None
    """Processes; as many as there are processors by default."""
    limit: float = 60.0
    """Seconds that a file may take; with --full one more for each MB. After that it is quarantined."""


@dataclass(frozen=True)
class Demo:
    """From nothing to a motion-aware encoder, its measurements and a report."""

    out: str = "runs/demo"
    """Folder for the videos, the run and report.html."""
    videos: int = 80
    """Videos of each motion to learn from."""
    tests: int = 40
    """Videos of each motion to test on, of other shapes and textures."""
    sequences: int = 8
    """Sequences with masks to propagate through."""
    steps: int = 1800
    """Optimiser steps of pretraining."""
    seed: int = 0
    """Seed of the weights, the order, the crops and the masks; the videos are always the same."""


@dataclass(frozen=True)
class Prepare:
    """Re-encode videos for fast training. The originals are only read."""

    source: Positional[str] = ""
    """A manifest of motionmae scan, of which the usable videos are taken, a folder, or a list: as --data.path."""
    out: str = "prepared"
    """Folder of the results: an mp4 for each video, and manifest.csv. What is there already is not made again."""
    root: str = ""
    """Folder that the paths in a list start from; by default the list's own."""
    split: str = ""
    """Part of a list with a column "split", or of HMDB51's."""
    short: int = 256
    """Rows or columns of the short side; smaller videos keep their size."""
    spacing: int = 12
    """Frames from one key frame to the next."""
    fps: float | None = None
    """Frames per second at most; by default each video's own average. The rate becomes constant."""
    quality: int = 20
    """x264's constant rate factor: 18 looks as the original, 23 is x264's own choice, 51 the worst."""
    shard: int = 0
    """Pack so many videos into each tar shard, in OUT/shards, instead of leaving single files."""
    workers: int | None = None
    """Processes; as many as there are processors by default."""


@dataclass(frozen=True)
class BenchData:
    """Measure how fast clips come, and what holds them up."""

    data: Data = field(default_factory=Data)
    frames: int = 16
    """Frames of a clip."""
    size: int = 224
    """Height and width of a clip in pixels."""
    clips: int = 200
    """Clips to read for each of the speeds."""
    reads: int = 2000
    """Clips to read for the memory."""


@dataclass(frozen=True)
class BenchPretrain:
    """Measure a pretraining step by its stages, beside transformers' VideoMAEForPreTraining where that is installed."""

    preset: Positional[str] = "tiny"
    """A preset of motionmae pretrain."""
    batch: int = 8
    """Clips in a step."""
    steps: int = 5
    """Steps that are timed, after one that is not; the medians are shown."""
    decode_ratio: float | None = None
    """Share of the hidden tokens that is predicted; the preset's by default."""
    motion: float | None = None
    """Weight of the time head; 0 is appearance alone, which is what the reference does."""
    reference: bool = True
    """Time the reference too."""
    data: Data = field(default_factory=lambda: Data(workers=1))
    run: Run = field(default_factory=Run)


@dataclass(frozen=True)
class BenchLoop:
    """Measure what the training loop costs over the same step written by hand."""

    preset: Positional[str] = "tiny"
    """A preset of motionmae pretrain."""
    batch: int = 8
    """Clips in a step."""
    steps: int = 40
    """Steps of each turn; the first three are not timed."""
    turns: int = 5
    """Turns of the loop and of the hand-written step, one after the other; the medians are shown."""
    run: Run = field(default_factory=Run)


@dataclass(frozen=True)
class Report:
    """Make one HTML page of one or several run folders, side by side."""

    runs: Positional[tuple[str, ...]] = ()
    """Run folders, from motionmae pretrain and the other commands that train."""
    out: str = "report.html"
    """The page; nothing in it is fetched from anywhere."""


def from_dict(kind: type[T], values: dict[str, Any]) -> T:
    """The dataclass `kind` from the nested dict that `dataclasses.asdict` and JSON make of it; missing fields default.

    Raises KeyError for a field that the class does not have.
    """
    hints = get_type_hints(kind)
    found: dict[str, Any] = {}
    for name, value in values.items():
        hint = hints[name]
        if is_dataclass(hint) and isinstance(hint, type):
            value = from_dict(hint, value)
        found[name] = tuple(value) if isinstance(value, list) else value
    return kind(**found)


# Video object segmentation

Entry = Literal["repeat", "pair", "window"]
Protocol = Literal["dino", "crw", "siammae"]


@dataclass(frozen=True)
class Davis:
    """A folder in the DAVIS layout."""

    path: str = ""
    """The folder that holds JPEGImages, Annotations and ImageSets."""
    split: str = "val"
    """The list of sequences: ImageSets/2017/SPLIT.txt."""
    sequences: tuple[str, ...] = ()
    """Sequences to use instead of the list's."""


@dataclass(frozen=True)
class Features:
    """How one frame becomes a grid of features."""

    entry: Entry = "pair"
    """How a frame fills a cube of two: itself twice, itself after its predecessor, or as the middle of a whole clip."""
    stride: int | None = None
    """Pixels from one cell to the next, by default the cube's side; below it, shifted passes are interleaved."""
    layer: int | None = None
    """The block whose tokens are used, counted from 1; by default the last."""
    batch: int = 4
    """Frames that pass through the encoder at once."""


@dataclass(frozen=True)
class Propagation:
    """How labels are carried from frame to frame; numbers that are not given are the protocol's."""

    protocol: Protocol = "dino"
    """Published settings: DINO (arXiv 2104.14294), CRW (2006.14613) or SiamMAE (2305.14344)."""
    topk: int | None = None
    """Cells that a cell takes its label from."""
    context: int | None = None
    """Frames before a frame that it takes labels from, beside the first."""
    radius: int | None = None
    """How far away, in rows and columns of cells, such cells may lie."""
    temperature: float | None = None
    """Divides the cosines of features before the softmax that weights the cells."""
    short: int | None = None
    """Short side in pixels to which frames are resized; 0 keeps their size."""
    multiple: int | None = None
    """The long side is cut down to a multiple of this number of pixels; 0 rounds it to the cube's side."""
    size: tuple[int, int] | None = None
    """Height and width in pixels (of a landscape frame) to which frames are resized instead; 0 0 for neither."""
    stretch: bool = True
    """Stretch each label's map to [0, 1] before the most likely one is taken, as DINO does."""


@dataclass(frozen=True)
class SegmentDavis:
    """Propagate the first frame's masks through the sequences of a DAVIS folder and score them."""

    model: Positional[str] = ""
    """A run folder or checkpoint, or a trivial baseline: `rgb` (raw patches) or `copy` (the first mask stays)."""
    data: Davis = field(default_factory=Davis)
    features: Features = field(default_factory=Features)
    propagation: Annotated[Propagation, arg(name="")] = field(default_factory=Propagation)
    out: str = ""
    """Folder for masks, overlays, scores and the report; by default runs/segment-davis-MODEL."""
    overlays: bool = True
    """Make the overlay videos and the report."""
    device: Device = "auto"
    """CUDA, then Apple's GPU, then the CPU, unless named."""
    precision: Precision = "auto"
    """Of the encoder: bf16 on a GPU that has it, else fp16; fp32 on the CPU. Propagation is always fp32."""


@dataclass(frozen=True)
class SegmentVideo:
    """Follow objects or points through a video of your own."""

    video: Positional[str] = ""
    """A video file, or a folder of images."""
    model: str = "rgb"
    """A run folder or checkpoint; without one, raw patches of pixels, which follow only what hardly changes."""
    mask: str = ""
    """A PNG of object numbers (palette or grey), or black and white, of the video's size."""
    box: tuple[str, ...] = ()
    """Objects as boxes instead: left,top,right,bottom in pixels, each one object."""
    polygon: tuple[str, ...] = ()
    """Objects as polygons instead: x,y,x,y,x,y,… in pixels, each one object."""
    points: tuple[str, ...] = ()
    """Points to follow, beside or instead of objects: x,y in pixels."""
    at: int = 0
    """The frame, counted from 0, that the mask, boxes, polygons or points belong to; followed both ways from there."""
    features: Features = field(default_factory=Features)
    propagation: Annotated[Propagation, arg(name="")] = field(default_factory=Propagation)
    out: str = ""
    """Folder for overlay.mp4, the masks, areas and tracks; by default runs/segment-video-NAME."""
    device: Device = "auto"
    """CUDA, then Apple's GPU, then the CPU, unless named."""
    precision: Precision = "auto"
    """Of the encoder: bf16 on a GPU that has it, else fp16; fp32 on the CPU. Propagation is always fp32."""


@dataclass(frozen=True)
class BenchSegment:
    """Frames a second of features and of label propagation, apart, against a full-affinity reference."""

    model: Literal["tiny", "small", "base", "large", "huge"] = "small"
    """The size of the (untrained) encoder."""
    height: int = 480
    """Rows of the frames, in pixels."""
    width: int = 854
    """Columns of the frames, in pixels."""
    objects: int = 5
    """Objects that are carried, beside the background."""
    frames: int = 3
    """Frames to time."""
    entry: Entry = "pair"
    """How a frame fills a cube of two."""
    strides: tuple[int, ...] = ()
    """Pixels from one cell to the next; by default the cube's side and half of it."""
    reference: bool = True
    """Time the full-affinity reference too."""
    repeats: int = 1
    """Times that the reference is run."""
    propagation: Annotated[Propagation, arg(name="")] = field(default_factory=Propagation)
    device: Device = "auto"
    """CUDA, then Apple's GPU, then the CPU, unless named."""
    precision: Precision = "auto"
    """Of the encoder: bf16 on a GPU that has it, else fp16; fp32 on the CPU. Propagation is always fp32."""


@dataclass(frozen=True)
class SegmentScore:
    """Score a folder of predicted masks as the DAVIS benchmark does."""

    predictions: Positional[str] = ""
    """Folder of predictions: SEQUENCE/FRAME.png, as the annotations are named."""
    data: Davis = field(default_factory=Davis)
    json: str = ""
    """Where to write the scores as JSON; by default they are only printed."""


# Action recognition

ProbeKind = Literal["knn", "logistic", "linear", "linear-bn", "attentive"]
Pool = Literal["mean", "time"]


@dataclass(frozen=True)
class Labelled(Data):
    """From videos of known classes to clips."""

    test: str = ""
    """Videos to test on: what `path` may be, with the same classes."""
    test_split: str = ""
    """Part of a list to test on, as `split` is that to train on; of the list of `path` where `test` is not given."""
    fraction: float = 1.0
    """Share of the training videos of each class that is used, at least one; drawn by the seed."""
    frames: int | None = None
    """Frames of a clip; by default as many as the model was made for."""
    size: int | None = None
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
class Mix:
    """How labelled clips are mixed."""

    mixup: float = 0.8
    """Alpha of the Beta distribution of how two clips are blended; 0 is never."""
    cutmix: float = 1.0
    """Alpha of the Beta distribution of how large a box comes from another clip; 0 is never."""
    smoothing: float = 0.1
    """Share of a target that is spread over all classes."""


@dataclass(frozen=True)
class Viewing:
    """What a model sees of a video in a test: clips x crops, whose class probabilities are averaged. What is not given
    is as in the run that made the model."""

    clips: int | None = None
    """Clips along the video."""
    crops: int | None = None
    """Square crops along the frame's long side: 1 is the middle, 3 the ends too."""
    sampling: Sampling | None = None
    """Frames at a stride, or one from each of equal parts of the video."""
    stride: int | None = None
    """Frames from one frame of a clip to the next, for dense sampling."""
    fps: float | None = None
    """Take videos as if they had so many frames per second, for dense sampling."""
    short: Short | None = None
    """What to do with videos shorter than a clip: start again, or repeat the last frame."""
    frames: int | None = None
    """Frames of a clip."""
    size: int | None = None
    """Height and width of a crop in pixels."""


@dataclass(frozen=True)
class Compute:
    """What a trained model runs on."""

    device: Device = "auto"
    """CUDA, then Apple's GPU, then the CPU, unless named."""
    precision: Precision = "auto"
    """bf16 on a GPU that has it, else fp16; fp32 on the CPU."""
    batch: int = 32
    """Clips that pass through the model at once, for each rank."""
    workers: int = 4
    """Processes that decode, for each rank; 0 decodes in the process of the model."""
    threads: int | None = None
    """Threads of the CPU's own mathematics; PyTorch's choice by default."""


@dataclass(frozen=True)
class Finetune:
    """Learn to tell classes of labelled videos, from a pretrained encoder or from scratch."""

    init: str = ""
    """A run folder or checkpoint whose encoder to start from, or `none` for a new one."""
    model: Model = field(default_factory=Model)
    """The model, where --init is none; otherwise the checkpoint's is used."""
    heads: int | None = None
    """Attention heads of the encoder, where a foreign --init does not say."""
    drop_path: float = 0.1
    """Chance that the last block leaves out a branch, for a clip; it rises from 0 at the first block."""
    dropout: float = 0.0
    """Chance that the head's linear layer does not see a number."""
    layer_decay: float = 0.75
    """Each block learns at this multiple of the rate of the one after it."""
    mix: Mix = field(default_factory=Mix)
    augment: Augment = field(default_factory=Augment)
    data: Labelled = field(default_factory=Labelled)
    views: Viewing = field(default_factory=Viewing)
    optim: Optim = field(default_factory=Optim)
    run: Run = field(default_factory=Run)
    classes: tuple[str, ...] = ()
    """Names of the classes, in the order of the scores; by default those found under --data.path, sorted."""
    seed: int = 0
    """Seed of a new model's weights, the order of the videos, the crops, the mixing and the fraction."""


@dataclass(frozen=True)
class ProbeData(TestData):
    """Labelled videos to fit the probes on, and others to test them on."""

    test: str = ""
    """Videos to test on: what `path` may be, with the same classes."""
    test_split: str = ""
    """Part of a list to test on; of the list of `path` where `test` is not given."""
    fraction: float = 1.0
    """Share of the training videos of each class that is used, at least one; drawn by the seed."""


@dataclass(frozen=True)
class Probe:
    """Measure a frozen encoder: what k-NN and small classifiers make of its features."""

    model: Positional[str] = ""
    """A run folder or checkpoint with an encoder, ours or another project's."""
    kinds: tuple[ProbeKind, ...] = ("knn", "logistic", "linear", "linear-bn", "attentive")
    """k-NN by cosine; logistic regression to its optimum; linear by SGD, without and with batch norm; one
    cross-attention query over all tokens."""
    pool: Pool = "mean"
    """What all but attentive see of a video: the mean token, or the mean token of each time slot, one after another."""
    untrained: bool = False
    """Forget the weights: the same encoder at its start, for comparison."""
    neighbours: tuple[int, ...] = (1, 5, 10, 20, 50)
    """Numbers of neighbours that k-NN tries."""
    temperature: float = 0.07
    """Of k-NN's votes, exp(cosine / temperature)."""
    penalty: float = 1e-2
    """Of logistic regression, times the sum of the squared weights."""
    rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    """Learning rates that the linear probes try; the attentive one tries a hundredth of the lowest five."""
    epochs: int = 100
    """Passes of the linear probes over the features; the attentive one makes a fifth of them."""
    data: ProbeData = field(default_factory=ProbeData)
    views: Viewing = field(default_factory=lambda: Viewing(clips=1, crops=1))
    compute: Annotated[Compute, arg(name="")] = field(default_factory=Compute)
    heads: int | None = None
    """Attention heads of the encoder, where a foreign file does not say."""
    out: str = ""
    """Folder for features and figures; by default `probe` in the run folder, or runs/NAME for a file."""
    seed: int = 0
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
    mistakes: int = 8
    """Mistakes that the report shows: those of which the model was surest."""
    heads: int | None = None
    """Attention heads of the encoder, where a foreign file does not say."""
    out: str = ""
    """Folder for the report, the figures and the predictions; by default `evaluation` in the run folder, or runs/NAME
    for a file."""


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
    top: int = 5
    """Classes that are told, the likeliest first."""
    json: str = ""
    """Write JSON to this file, or with - to the screen, instead of a table."""
    render: str = ""
    """Write the video (one alone) with its likeliest classes in the picture, as an .mp4."""
    views: Viewing = field(default_factory=Viewing)
    compute: Annotated[Compute, arg(name="")] = field(default_factory=Compute)
    heads: int | None = None
    """Attention heads of the encoder, where a foreign file does not say."""


@dataclass(frozen=True)
class Motions:
    """Cut a set of real clips labelled by motion alone: pans, zooms, forward, backward and fast."""

    sources: Positional[tuple[str, ...]] = ()
    """Videos or folders of frames to cut from; every third is for the test videos."""
    out: str = "motions"
    """Folder to write train/MOTION/… and test/MOTION/… into."""
    count: int = 8
    """Clips of each motion from each source."""
    frames: int = 16
    """Frames of a clip."""
    size: int = 64
    """Height and width of a clip in pixels."""
    seed: int = 0
    """Seed of the places and the moments."""
