"""Video object segmentation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from motionmae.config.bounds import COUNT, HEADS, LAYER, PIXELS, SEED, SOME, Bounds
from motionmae.config.run import Hardware

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

    entry: Entry = "repeat"
    """How a frame fills a cube of two: itself twice, itself after its predecessor, or as the middle of a whole clip."""
    stride: Annotated[int | None, Bounds(1, 512)] = None
    """Pixels from one cell to the next, by default the cube's side; below it, shifted passes are interleaved."""
    layer: Annotated[int | None, LAYER] = None
    """The block whose tokens are used, counted from 1 (0: the embedding, before any); by default the middle one."""
    batch: Annotated[int, COUNT] = 4
    """Frames that pass through the encoder at once."""


@dataclass(frozen=True)
class Propagation:
    """How labels are carried from frame to frame, always in fp32; numbers that are not given are the protocol's."""

    protocol: Protocol = "dino"
    """Published settings: DINO (arXiv 2104.14294), CRW (2006.14613) or SiamMAE (2305.14344)."""
    topk: Annotated[int | None, COUNT] = None
    """Cells that a cell takes its label from."""
    context: Annotated[int | None, SOME] = None
    """Frames before a frame that it takes labels from, beside the first."""
    radius: Annotated[int | None, SOME] = None
    """How far away, in rows and columns of cells, such cells may lie."""
    temperature: Annotated[float | None, Bounds(0, 1000, above=True)] = None
    """Divides the cosines of features before the softmax that weights the cells."""
    short: Annotated[int | None, Bounds(0, 16_384)] = None
    """Short side in pixels to which frames are resized; 0 keeps their size."""
    multiple: Annotated[int | None, Bounds(0, 16_384)] = None
    """The long side is cut down to a multiple of this number of pixels; 0 rounds it to the cube's side."""
    size: Annotated[tuple[int, int] | None, Bounds(0, 16_384)] = None
    """Height and width in pixels (of a landscape frame) to which frames are resized instead; 0 0 for neither."""
    stretch: bool = True
    """Stretch each label's map to [0, 1] before the most likely one is taken, as DINO does."""


@dataclass(frozen=True)
class SegmentDavis:
    """Propagate the first frame's masks through the sequences of a DAVIS folder and score them."""

    model: Positional[str] = ""
    """A run folder or checkpoint, or a trivial baseline: `rgb` (raw patches) or `copy` (the first mask stays)."""
    untrained: bool = False
    """Forget the weights: the same encoder at its start, for comparison."""
    seed: Annotated[int, SEED] = 0
    """Seed of an untrained encoder."""
    heads: Annotated[int | None, HEADS] = None
    """Attention heads of the encoder, where a foreign file does not say."""
    data: Davis = field(default_factory=Davis)
    features: Features = field(default_factory=Features)
    propagation: Annotated[Propagation, arg(name="")] = field(default_factory=Propagation)
    out: str = ""
    """Folder for masks, overlays, scores and the report; by default runs/segment-davis-MODEL."""
    overlays: bool = True
    """Make the overlay videos, which the report shows."""
    compute: Annotated[Hardware, arg(name="")] = field(default_factory=Hardware)


@dataclass(frozen=True)
class SegmentVideo:
    """Follow objects or points through a video of your own."""

    video: Positional[str] = ""
    """A video file, or a folder of images."""
    model: str = "rgb"
    """A run folder or checkpoint; without one, raw patches of pixels, which follow only what hardly changes."""
    heads: Annotated[int | None, HEADS] = None
    """Attention heads of the encoder, where a foreign file does not say."""
    mask: tuple[str, ...] = ()
    """PNGs of object numbers (palette or grey), or black and white, of the video's size: FILE for the frame `--at`,
    FRAME:FILE for others. Each says all that its frame holds."""
    box: tuple[str, ...] = ()
    """Objects as boxes instead: left,top,right,bottom in pixels, each one object."""
    polygon: tuple[str, ...] = ()
    """Objects as polygons instead: x,y,x,y,x,y,… in pixels, each one object."""
    points: tuple[str, ...] = ()
    """Points to follow, beside or instead of objects: x,y in pixels, or FRAME:x,y; one point's places in several frames
    are joined by a slash: FRAME:x,y/FRAME:x,y."""
    names: tuple[str, ...] = ()
    """What the objects 1, 2, … are called in areas.csv and on the page."""
    pick: bool = False
    """Point at objects in a page on this machine instead of typing pixels; it begins with what is given beside it."""
    browser: bool = True
    """With --pick, open the page; without, only its address is printed (for ssh forwarding)."""
    at: Annotated[int, SOME] = 0
    """The frame, counted from 0, that the mask, boxes, polygons or points belong to; followed both ways from there."""
    features: Features = field(default_factory=Features)
    propagation: Annotated[Propagation, arg(name="")] = field(default_factory=Propagation)
    out: str = ""
    """Folder for overlay.mp4, the masks, areas and tracks; by default runs/segment-video-NAME."""
    compute: Annotated[Hardware, arg(name="")] = field(default_factory=Hardware)


@dataclass(frozen=True)
class BenchSegment:
    """Frames a second of features and of label propagation, apart, against a full-affinity reference."""

    model: Literal["tiny", "small", "base", "large", "huge"] = "small"
    """The size of the (untrained) encoder."""
    height: Annotated[int, PIXELS] = 480
    """Rows of the frames, in pixels."""
    width: Annotated[int, PIXELS] = 854
    """Columns of the frames, in pixels."""
    objects: Annotated[int, Bounds(1, 254)] = 5
    """Objects that are carried, beside the background."""
    frames: Annotated[int, COUNT] = 3
    """Frames to time, of ours and the reference in turns."""
    entry: Entry = "repeat"
    """How a frame fills a cube of two."""
    strides: Annotated[tuple[int, ...], Bounds(1, 512)] = ()
    """Pixels from one cell to the next; by default the cube's side and half of it."""
    reference: bool = True
    """Time the full-affinity reference too."""
    propagation: Annotated[Propagation, arg(name="")] = field(default_factory=Propagation)
    compute: Annotated[Hardware, arg(name="")] = field(default_factory=Hardware)


@dataclass(frozen=True)
class SegmentScore:
    """Score a folder of predicted masks as the DAVIS benchmark does."""

    predictions: Positional[str] = ""
    """Folder of predictions: SEQUENCE/FRAME.png, as the annotations are named."""
    data: Davis = field(default_factory=Davis)
    json: str = ""
    """Where to write the scores as JSON; by default they are only printed."""
