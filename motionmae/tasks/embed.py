"""`motionmae embed`: vectors of any videos, as a table."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, replace
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

import torch

from motionmae import runtime
from motionmae.config import Compute, Embed, check
from motionmae.errors import MotionMAEError
from motionmae.inference.embedding import Embedding, Layout, Row, embed_all, fingerprint, layout_of, stream
from motionmae.inference.features import check_name, join_table, open_parts, part_of, write_part
from motionmae.library import cluster
from motionmae.library.parts import parse_share
from motionmae.library.processes import Failure
from motionmae.library.sources import Videos, collect
from motionmae.models import hub
from motionmae.models.encoder import VideoEncoder
from motionmae.progress import Progress, then
from motionmae.runtime import Runtime
from motionmae.video import remote
from motionmae.words import many

PART = 32
"""Videos in a part: what a stop loses at most, for each rank."""


def run(config: Embed) -> None:
    """Embed the videos part by part, go on where an earlier call was stopped, and join the parts."""
    check(config)
    far = config.spread.engine == "ray"
    here = runtime.start_for(replace(config.compute, device="cpu") if far else config.compute)
    with runtime.leaving(here):
        if not config.model:
            raise MotionMAEError("say which model: a run folder, or a checkpoint with an encoder")
        out, (job, jobs) = check_name(config.out), parse_share(config.spread.part)
        encoder, layout = layout_of(
            config.model, config.heads, config.every, config.window, config.pool, config.layers, config.views
        )
        if out.suffix == ".npy" and len(layout.layers) > 1:
            raise MotionMAEError(f"--out {out}: a .npy file holds one layer, {len(layout.layers)} were asked for")
        videos = collect(config.videos)
        about = {
            "model": fingerprint(encoder),
            "path": hub.named(config.model),
            "heads": config.heads,
            **asdict(layout),
            "layers": list(layout.layers),
            "stored": config.stored,
            "width": encoder.config.width,
            "videos": [remote.shown(path) for path in videos.paths],
        }
        count = -(-len(videos.paths) // PART)
        mine = range(count)[job * here.ranks + here.rank :: jobs * here.ranks]
        here.say(f"{videos.told()}; {told(layout, encoder)}")
        # Nothing is written before the cluster is there.
        with cluster.joined(config.spread.ray_address) if far else contextlib.nullcontext() as ray:
            folder = open_parts(out, about)
            todo = [number for number in mine if not part_of(folder, number).exists()]
            given = encoder.to(here.device), videos, layout, config, here, folder, todo
            embed_far(ray, *given) if far else embed_parts(*given)
        here.gather(True)  # all ranks' parts are there
        if here.main:
            missing = [at for at in range(count) if not part_of(folder, at).exists()]
            if missing:
                here.say(f"there: {count - len(missing)} of {many(count, 'part')}; whichever job ends last joins them")
                return
            rows = join_table(folder, count, out, {name: value for name, value in about.items() if name != "videos"})
            here.say(f"{many(rows, 'row')}: {out}")
            then(f"motionmae search {quote(str(out))} QUERY.mp4, or motionmae map {quote(str(out))}")


def told(layout: Layout, encoder: VideoEncoder) -> str:
    """What a row and its vector are, in a line."""
    views, layers = layout.views, ", ".join(map(str, layout.layers))
    rows = {"clip": "a row a clip, clips end to end", "video": "a row a video, the mean of its clips"}
    pool = {
        "mean": "the mean token",
        "time": "each time slot's mean token",
        "none": "all tokens",
        "attentive": "what the attentive probe looks at",
    }[layout.pool]
    row = rows.get(layout.every, f"a row every {layout.every.removesuffix('s')} s")
    clip = f"{many(views.frames, 'frame')} of {views.size} x {views.size}"
    return f"{row}; {clip}; {pool} of layer {layers} of {encoder.config.depth}"


def places_of(part: int, videos: Videos) -> range:
    """The places of a part's videos among all."""
    return range(part * PART, min((part + 1) * PART, len(videos.paths)))


def embed_parts(
    encoder: VideoEncoder, videos: Videos, layout: Layout, config: Embed, here: Runtime, folder: Path, todo: list[int]
) -> None:
    """Write these parts: videos run on from part to part, so that nothing waits. Takes the parts out of the list."""
    places = [at for number in todo for at in places_of(number, videos)]
    stored = torch.float16 if config.stored == "fp16" else torch.float32
    waiting: dict[int, Embedding] = {}
    files = [videos.paths[at] for at in places]
    with Progress("videos", len(places), speak=here.main) as progress:
        for index, found in stream(encoder, files, layout, config.compute, here):
            waiting[places[index]] = labelled_rows(found, videos, places[index])
            progress.step()
            while todo:
                wanted = places_of(todo[0], videos)
                if not all(at in waiting for at in wanted):
                    break
                write_part(part_of(folder, todo.pop(0)), [waiting.pop(at) for at in wanted], stored)


def embed_far(
    ray: Any,
    encoder: VideoEncoder,
    videos: Videos,
    layout: Layout,
    config: Embed,
    here: Runtime,
    folder: Path,
    todo: list[int],
) -> None:
    """As `embed_parts`, each part a task on a Ray cluster, which gets the encoder with it. Raises MotionMAEError where
    tasks were lost for good; the parts that were made stay."""
    stored = torch.float16 if config.stored == "fp16" else torch.float32
    compute, lost = config.compute, list[str]()
    gpus = int(compute.device == "cuda" or (compute.device == "auto" and ray.cluster_resources().get("GPU", 0) > 0))
    cpus = 1 + compute.workers if gpus else compute.threads or 1
    compute = compute if gpus else replace(compute, workers=0)  # many tasks beside each other are as good
    chunks = [_Part(number, [videos.paths[at] for at in places_of(number, videos)]) for number in todo]
    done = cluster.spread(ray, _embed_part, chunks, encoder, layout, compute, cpus=cpus, gpus=gpus)
    with Progress("parts", len(todo), speak=here.main) as progress:
        for part, found in done:
            if isinstance(found, Failure):
                lost.append(f"part {part.number} {found.reason}")
                continue
            rows = [
                labelled_rows(one, videos, at) for one, at in zip(found, places_of(part.number, videos), strict=True)
            ]
            write_part(part_of(folder, part.number), rows, stored)
            progress.step()
    if lost:
        raise MotionMAEError(
            f"lacking: {len(lost)} of {many(len(todo), 'part')}, first {lost[0]}; the same command makes them"
        )


class _Part(NamedTuple):
    number: int
    files: list[Path]


def _embed_part(part: _Part, encoder: VideoEncoder, layout: Layout, compute: Compute) -> list[Embedding]:
    return embed_all(part.files, encoder, layout, compute)


def labelled_rows(found: Embedding, videos: Videos, at: int) -> Embedding:
    """The rows with the video's class; where it could not be read to its end, a last row that says why."""
    label = videos.labels[at] if videos.labels else ""
    group = videos.groups[at] if videos.groups else ""
    rows = [replace(row, label=label, group=group) for row in found.rows]
    if found.reason or not rows:
        end = rows[-1].end if rows else 0.0
        rows.append(Row(remote.shown(videos.paths[at]), end, end, [], label, group, reason=found.reason or "no frames"))
    return Embedding(rows, found.vectors)
