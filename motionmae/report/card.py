"""The model card of an exported model, filled from the config of its run: what it is, saw, and gives."""

from __future__ import annotations

from typing import Any

from motionmae import __version__
from motionmae.config import Model
from motionmae.words import many


def card(name: str, model: Model, config: dict[str, Any], kind: str, classes: tuple[str, ...], usage: str) -> str:
    """Markdown with the hub's front matter. `config` is the run's, as its checkpoint holds it; it may lack anything."""
    data, mask = config.get("data") or {}, config.get("mask") or {}
    loss, optim = config.get("loss") or {}, config.get("optim") or {}
    frames = f"{many(model.frames, 'frame')} of {model.size} x {model.size} pixels"
    stride = data.get("stride", "?")
    sampling = {"uniform": "spread over the video", "dense": f"at a stride of {stride}"}
    lines = [
        "---",
        "library_name: " + ("transformers" if kind == "hf" else "motionmae"),
        "pipeline_tag: " + ("video-classification" if classes else "feature-extraction"),
        "tags: [video, self-supervised-learning, motionmae, videomae]",
        "---",
        "",
        f"# {name}",
        "",
        f"A video transformer made with MotionMAE {__version__} (arXiv 2210.04154): clips of {frames}, cubes of "
        f"{' x '.join(map(str, model.cube))}, width {model.width}, {many(model.depth, 'block')}, "
        f"{many(model.heads, 'head')}, positions {model.positions}.",
        "",
        "| | |",
        "|---|---|",
        f"| frames are taken | {sampling.get(data.get('sampling', 'dense'), '?')} |",
    ]
    if mask:
        targets = ", ".join(f"{target} x {loss[target]:g}" for target in ("appearance", "motion") if loss.get(target))
        lines.append(
            f"| pretrained on | {targets or '?'}, {mask.get('ratio', 0):.0%} masked ({mask.get('kind', '?')}) |"
        )
    if optim:
        kind = "step" if optim.get("steps") else "epoch"
        lines.append(
            f"| trained for | {many(optim.get(f'{kind}s', 0), kind)} of {many(optim.get('batch', 0), 'clip')} |"
        )
    if classes:
        lines.append(f"| classes | {', '.join(classes[:20])}{' …' if len(classes) > 20 else ''} |")
    lines += [
        "",
        "## Use",
        "",
        usage,
        "",
        "## Limits",
        "",
        "What it was trained on is known to whoever trained it, and is not in this card: please add it, with the terms "
        "of the videos, and what the model should not be used for. It sees only the middle square of a frame, and "
        "clips of the length said above.",
        "",
    ]
    return "\n".join(lines)
