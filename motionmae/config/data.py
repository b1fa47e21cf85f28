"""From files to clips, and what is changed in clips."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from motionmae.config.bounds import COUNT, FRAMES, PIXELS, PROCESSES, RATE, SEED, SOME, WORKERS, Bounds
from motionmae.config.run import Spread

Sampling = Literal["dense", "uniform"]
Short = Literal["loop", "clamp"]


@dataclass(frozen=True)
class Data:
    """From files to clips."""

    path: str = ""
    """A folder of videos, searched through all its levels (folders in it are classes); a manifest of motionmae scan;
    a CSV or TSV with a column "path" and perhaps "label"; a list of lines "path class"; the annotations of Kinetics,
    Something-Something, UCF101 or HMDB51; the address of such a folder or list, or of a video (s3://…, gs://…, hf://…,
    https://…), read by ranges; or tar shards: a file, a folder, or addresses with braces as the webdataset library
    opens them (http://…/{000000..000099}.tar, gs://…, "pipe:aws s3 cp s3://…/{000000..000099}.tar -")."""
    root: str = ""
    """Folder, or address of one, that the paths in a list start from; by default the list's own. Names are found
    anywhere below it."""
    split: str = ""
    """Part of a list with a column "split" (several: train+val), or of HMDB51's: train1, test1 … test3."""
    sampling: Sampling = "dense"
    """Frames at a stride from a random start, or one from each of equal parts of the video."""
    stride: Annotated[int, Bounds(1, 10_000)] = 4
    """Frames from one frame of a clip to the next, for dense sampling."""
    fps: Annotated[float | None, RATE] = None
    """Take videos as if they had so many frames per second, whatever their own rate, constant or not."""
    short: Short = "clamp"
    """What to do with videos shorter than a clip: repeat the last frame (VideoMAE's), or start again; no motion is
    learnt where one starts again."""
    repeats: Annotated[int, Bounds(1, 1024)] = 1
    """Clips taken from a video each time it is opened."""
    scales: Annotated[tuple[float, ...], Bounds(0, 1, above=True, least=1)] = (1.0, 0.875, 0.75, 0.66)
    """Crop sides, as shares of the frame's short side, of which each clip draws one for its height and one for
    its width."""
    area: Annotated[tuple[float, float] | None, Bounds(0, 1, above=True, rising=True)] = None
    """Instead of `scales`: a random resized crop, whose share of the frame's area is drawn from this range."""
    aspect: Annotated[tuple[float, float], Bounds(0.01, 100, rising=True)] = (0.75, 4 / 3)
    """Range of that crop's width over its height."""
    flip: bool = True
    """Mirror half of the clips. Off where left and right are labels."""
    cache: bool = False
    """Keep decoded videos in memory: for small data sets and few processors."""
    workers: Annotated[int, WORKERS] = 4
    """Processes that decode, for each rank; 0 decodes in the training process."""
    prefetch: Annotated[int, Bounds(1, 1024)] = 4
    """Batches that each worker prepares ahead."""
    fetched: str = "~/.cache/motionmae/shards"
    """Folder on this machine for shards that come from addresses; all processes and runs may share it."""
    fetched_gb: Annotated[float, Bounds(0, 1e9, above=True)] = 100.0
    """Gigabytes of shards kept there; those used longest ago go first."""
    patience: Annotated[float, Bounds(0, 1e6)] = 60.0
    """Seconds for which reading is tried again, at growing intervals, where all videos are out of reach: a share that
    has gone. After them the run is saved and ends."""
    bad_share: Annotated[float, Bounds(0, 1)] = 0.05
    """Stop when more than this share of the reads fails."""


@dataclass(frozen=True)
class Augment:
    """What is changed in a clip on the device, in all its frames alike. Nothing by default."""

    layers: Annotated[int, Bounds(0, 100)] = 0
    """RandAugment's operations on each clip; 0 leaves it out, fine-tuning of VideoMAE has 4."""
    magnitude: Annotated[float, Bounds(0, 10)] = 7.0
    """How strong they are, from 0 to 10."""
    spread: Annotated[float, Bounds(0, 10)] = 0.5
    """Standard deviation of the magnitude from clip to clip."""
    chance: Annotated[float, Bounds(0, 1)] = 0.5
    """How often an operation that was drawn is carried out."""
    brightness: Annotated[float, Bounds(0, 1)] = 0.0
    """Colour jitter: the brightness is multiplied by 1 - this to 1 + this."""
    contrast: Annotated[float, Bounds(0, 1)] = 0.0
    """The same for the contrast."""
    saturation: Annotated[float, Bounds(0, 1)] = 0.0
    """The same for the saturation."""
    hue: Annotated[float, Bounds(0, 0.5)] = 0.0
    """The hue turns by up to this share of the circle either way; at most 0.5."""
    erase: Annotated[float, Bounds(0, 1)] = 0.0
    """How often a box is replaced by noise, the same in all frames; fine-tuning of VideoMAE has 0.25."""
    erase_area: Annotated[tuple[float, float], Bounds(0, 1, above=True, rising=True)] = (0.02, 1 / 3)
    """Range of that box's share of the frame's area."""


@dataclass(frozen=True)
class Scan:
    """Examine a folder of videos and write down what is there and what can be used."""

    folder: Positional[str] = ""
    """A folder, searched through all its levels, links followed; or its address, such as s3://…"""
    out: str = "manifest.csv"
    """The manifest to write: .csv, or .parquet where pyarrow is installed. Where it exists, only new and changed files
    are examined."""
    full: bool = False
    """Decode every frame, instead of the first one of each video."""
    labels: str = ""
    """A list of videos with their classes, which goes before the names of folders."""
    workers: Annotated[int | None, PROCESSES] = None
    """Processes; as many as there are processors by default."""
    limit: Annotated[float, Bounds(0, 1e6, above=True)] = 60.0
    """Seconds that a file may take; with --full one more for each MB. After that it is quarantined."""
    spread: Annotated[Spread, arg(name="")] = field(default_factory=Spread)


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
    short: Annotated[int, Bounds(16, 16_384)] = 256
    """Rows or columns of the short side; smaller videos keep their size."""
    spacing: Annotated[int, Bounds(1, 10_000)] = 12
    """Frames from one key frame to the next."""
    fps: Annotated[float | None, RATE] = None
    """Frames per second at most; by default each video's own average. The rate becomes constant."""
    quality: Annotated[int, Bounds(0, 51)] = 20
    """x264's constant rate factor: 18 looks as the original, 23 is x264's own choice, 51 the worst."""
    shard: Annotated[int, SOME] = 0
    """Pack so many videos into each tar shard, in OUT/shards, instead of leaving single files."""
    workers: Annotated[int | None, PROCESSES] = None
    """Processes; as many as there are processors by default."""
    spread: Annotated[Spread, arg(name="")] = field(default_factory=Spread)


@dataclass(frozen=True)
class Motions:
    """Cut a set of real clips labelled by motion alone: pans, zooms, forward, backward and fast."""

    sources: Positional[tuple[str, ...]] = ()
    """Videos or folders of frames to cut from; every third is for the test videos, unless --test names others."""
    test: tuple[str, ...] = ()
    """Videos or folders of frames to cut the test videos from; all the sources are then for training."""
    out: str = "motions"
    """Folder to write train/MOTION/… and test/MOTION/… into."""
    count: Annotated[int, COUNT] = 8
    """Clips of each motion from each source."""
    frames: Annotated[int, FRAMES] = 16
    """Frames of a clip."""
    size: Annotated[int, PIXELS] = 64
    """Height and width of a clip in pixels."""
    seed: Annotated[int, SEED] = 0
    """Seed of the places and the moments."""


@dataclass(frozen=True)
class BenchData:
    """Measure how fast clips come, and what holds them up."""

    data: Data = field(default_factory=Data)
    frames: Annotated[int, FRAMES] = 16
    """Frames of a clip."""
    size: Annotated[int, PIXELS] = 224
    """Height and width of a clip in pixels."""
    clips: Annotated[int, COUNT] = 200
    """Clips to read for each of the speeds."""
    reads: Annotated[int, COUNT] = 2000
    """Clips to read for the memory: what a process holds after a tenth of them, a quarter, a half and all."""
