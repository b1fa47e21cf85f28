"""How fast features and propagation are and what memory they take, beside a full-affinity reference in the same run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from motionmae import runtime
from motionmae.config import BenchSegment, Features, check
from motionmae.inference.propagation import carry, match
from motionmae.inference.sequence import ImageSequence, Settings, Source, features_of, input_size, resolve
from motionmae.models.encoder import VideoEncoder
from motionmae.presets import SIZES
from motionmae.progress import Progress
from motionmae.training.machine import now, peak
from motionmae.words import many


@torch.inference_mode()
def run(config: BenchSegment) -> None:
    """Print frames a second of features and of propagation with a full context, apart, and of the reference."""
    check(config)
    here = runtime.single(config.compute)
    device = here.device
    torch.manual_seed(0)
    source = Source(config.model, VideoEncoder(SIZES[config.model]).eval().to(device), here)
    settings = resolve(config.propagation)
    height, width = config.height, config.width
    pixels = torch.randint(0, 256, (config.frames, height, width, 3), dtype=torch.uint8)
    frames = ImageSequence(lambda times: pixels[list(times)], config.frames, height, width)
    size = input_size(height, width, settings, source.cube[1])
    print(
        f"{config.model}, untrained, on {device}; {many(torch.get_num_threads(), 'thread')}; medians of "
        f"{many(config.frames, 'frame')}"
    )
    strides = config.strides or (source.cube[1], source.cube[1] // 2)
    with Progress("strides", len(strides), alike=False) as progress:
        for done, stride in enumerate(strides):
            progress.show(done, f"cells of {stride}")
            features = Features(config.entry, stride, batch=1)
            stream = iter(features_of(frames, range(config.frames), size, source, features))
            seconds, grids = zip(*(_timed(lambda stream=stream: next(stream), device) for _ in pixels), strict=True)
            rows, columns = grids[0].shape[:2]
            print(f"\n{size[0]}x{size[1]} pixels, cells of {stride}: grid {rows}x{columns}, {grids[0].shape[-1]} wide")
            print(f"  features      {1 / _median(seconds):8.2f} frames/s")
            step = _bench_propagation((rows, columns, grids[0].shape[-1]), config, settings, device)
            print(
                f"  the encoder   {_median(seconds) / (_median(seconds) + step):8.0%} of a frame, propagation the rest"
            )


def _bench_propagation(
    grid: tuple[int, int, int], config: BenchSegment, settings: Settings, device: torch.device
) -> float:
    """Seconds that ours takes for a frame with a full context, printed beside the reference; all values are random."""
    count = settings.context + 1
    keys = torch.randn(count, *grid, device=device)
    query = torch.randn(*grid, device=device)
    labels = torch.rand(count, *grid[:2], config.objects + 1, device=device).softmax(-1)

    def ours() -> Tensor:
        found = match(F.normalize(query, dim=-1), unit, settings.radius, settings.topk)
        return carry(labels, *found, settings.temperature)

    def reference() -> Tensor:
        return full_step(query, list(keys), list(labels), settings.radius, settings.topk, settings.temperature)

    unit = F.normalize(keys, dim=-1)
    mine, memory = ours(), peak(device) / 1e9  # also warms up
    turns = [
        (_timed(ours, device), _timed(reference, device) if config.reference else None) for _ in range(config.frames)
    ]
    fast = _median([left[0] for left, _ in turns])
    print(
        f"  propagation   {1 / fast:8.2f} frames/s   {many(config.objects, 'object')}, {many(count, 'context frame')}, "
        f"radius {settings.radius}, top {settings.topk}; peak memory so far {memory:.2f} GB"
    )
    slow = [right for _, right in turns if right is not None]
    if slow:
        rate = _median([seconds for seconds, _ in slow])
        off = (slow[0][1] - mine).abs().max().item()
        print(
            f"  full affinity {1 / rate:8.2f} frames/s   peak memory {peak(device) / 1e9:.2f} GB; "
            f"ours is {rate / fast:.1f} times as fast, the largest difference {off:.1e}"
        )
    return fast


def _timed(work: Callable[[], Tensor], device: torch.device) -> tuple[float, Tensor]:
    begun = now(device)
    result = work()
    return now(device) - begun, result


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def full_step(
    query: Float[Tensor, "h w d"],
    keys: Sequence[Float[Tensor, "h w d"]],
    labels: Sequence[Float[Tensor, "h w c"]],
    radius: int,
    topk: int,
    temperature: float,
) -> Float[Tensor, "h w c"]:
    """A frame's labels the slow way of the usual scripts, over every cell of every context frame.

    The exponential affinity, a mask of the neighbourhood over it, all but the largest values set to 0, and a sum.
    """
    height, width, _ = query.shape
    rows, columns = torch.arange(height, device=query.device), torch.arange(width, device=query.device)
    near_rows = (rows[:, None] - rows).abs() <= radius
    near_columns = (columns[:, None] - columns).abs() <= radius
    mask = (near_rows[:, None, :, None] & near_columns[None, :, None, :]).flatten(2).flatten(0, 1).to(query)
    flat = F.normalize(torch.stack(list(keys)), dim=-1).flatten(1, 2)
    cells = F.normalize(query, dim=-1).flatten(0, 1).expand(len(flat), -1, -1)
    affinity = torch.exp(torch.bmm(cells, flat.transpose(1, 2)) / temperature) * mask
    affinity = affinity.transpose(1, 2).flatten(0, 1)
    least = affinity.topk(min(topk, len(affinity)), dim=0).values[-1]
    affinity[affinity < least] = 0
    affinity /= affinity.sum(0)
    values = torch.stack(list(labels)).flatten(0, 2)
    return (values.T @ affinity).T.unflatten(0, (height, width))
