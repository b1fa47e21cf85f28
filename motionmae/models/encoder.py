"""The encoder: a plain vision transformer over space-time cubes, joint attention, embedding only what it is given.

Dosovitskiy et al., 2021, arXiv 2010.11929; as a video autoencoder, Tong et al., 2022, arXiv 2203.12602. No class token.
What differs from VideoMAE: only what is visible is embedded at all (its pixels are gathered, then projected by one
matrix), clips are normalised inside, positions are separable sines by default and fit any grid, and training asks the
module for its layers, its undecayed parameters and its hidden matrices.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, overload

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from motionmae import models
from motionmae.config import Model, Pooling, check
from motionmae.errors import MotionMAEError
from motionmae.models.blocks import EPS, Block, init_linear, run_blocks, vectors
from motionmae.models.linear import Linear
from motionmae.models.tokens import Positions, clip_grid, grid_of, patchify

Watched = Tensor | str | os.PathLike[str]
"""A batch of clips, or the path of a video."""
SLACK = 0.01  # by which floats may lie outside [0, 1]: rounding, and filters that overshoot
MEAN = (0.485, 0.456, 0.406)  # of ImageNet's RGB in [0, 1], the field's custom
STD = (0.229, 0.224, 0.225)


class VideoEncoder(nn.Module):
    """Clips to tokens.

    Clips are uint8, or float in [0, 1], RGB; they are normalised inside. Whether floats are in that range is looked at
    in every call that is not compiled, which waits for the device: `check_range = False` leaves it out in a hot loop.
    Frames, height and width may be any multiples of the cube: positions are interpolated from the grid that the encoder
    was made for. `made_with` is the config of the run that it was loaded from, which says how its clips were cut.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: Model, drop_path: float = 0.0):
        check(config, "model")
        super().__init__()
        self.config = config
        self.recompute: bool = False
        self.check_range: bool = True
        self.made_with: dict[str, Any] = {}
        tp, hp, wp = config.cube
        self.embed = Linear(tp * hp * wp * 3, config.width)
        self.positions = Positions(config.positions, training_grid(config), config.width)
        rates = torch.linspace(0, drop_path, config.depth, device="cpu").tolist() if drop_path else [0.0] * config.depth
        self.blocks = nn.ModuleList(Block(config.width, config.heads, config.mlp_ratio, rate) for rate in rates)
        self.norm = nn.LayerNorm(config.width, eps=EPS) if config.norm else nn.Identity()
        self.register_buffer("pixel_mean", torch.tensor(MEAN).repeat(tp * hp * wp), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(STD).repeat(tp * hp * wp), persistent=False)
        self.apply(init_linear)

    @overload
    def forward(
        self, clip: Shaped[Tensor, "b c t h w"], visible: Int[Tensor, "b k"] | None = None, layers: None = None
    ) -> Float[Tensor, "b n d"]: ...
    @overload
    def forward(
        self, clip: Shaped[Tensor, "b c t h w"], visible: Int[Tensor, "b k"] | None = None, *, layers: Sequence[int]
    ) -> tuple[Float[Tensor, "b n d"], ...]: ...
    def forward(
        self,
        clip: Shaped[Tensor, "b c t h w"],
        visible: Int[Tensor, "b k"] | None = None,
        layers: Sequence[int] | None = None,
    ) -> Float[Tensor, "b n d"] | tuple[Float[Tensor, "b n d"], ...]:
        """The encoded tokens, all of them or those at the indices `visible`, in the order of the indices.

        With `layers` a tuple of the tokens after each of these blocks, in the order asked: 0 is the embedding, `depth`
        the last; each passes the encoder's norm, and no block above the highest is run.
        """
        x = self.tokens(clip, visible)
        if layers is None:
            return self.norm(run_blocks(self.blocks, x, self.recompute))
        depth, found = len(self.blocks), {}
        for layer in layers:
            if not 0 <= layer <= depth:
                raise MotionMAEError(f"layers has {layer}: the encoder has the layers 0 to {depth}")
        for layer in range(max(layers, default=-1) + 1):
            x = run_blocks(self.blocks[layer - 1 : layer], x, self.recompute) if layer else x
            if layer in layers:
                found[layer] = self.norm(x)
        return tuple(found[layer] for layer in layers)

    def tokens(
        self, clip: Shaped[Tensor, "b c t h w"], visible: Int[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """The embedded tokens with their positions, before the first block. Only visible ones are ever converted.

        Raises MotionMAEError, naming the axis, for what is not a batch of clips.
        """
        check_clip(clip, self.check_range)
        pixels = to_unit(patchify(clip, self.config.cube, visible), self.pixel_mean.dtype)
        x = self.embed((pixels - self.pixel_mean) / self.pixel_std)
        positions = self.positions(clip_grid(clip, self.config.cube))
        return x + (positions if visible is None else positions[visible])

    @property
    def width(self) -> int:
        """Numbers of a token."""
        return self.config.width

    def grid(self, clip: Shaped[Tensor, "b c t h w"]) -> tuple[int, int, int]:
        """Tokens in time, rows and columns of a clip."""
        return clip_grid(clip, self.config.cube)

    @overload
    def encode(
        self, clip: Watched, layers: int | None = None, pool: Pooling = "mean", every: str | None = None
    ) -> Tensor: ...
    @overload
    def encode(
        self, clip: Watched, layers: Sequence[int], pool: Pooling = "mean", every: str | None = None
    ) -> tuple[Tensor, ...]: ...
    @torch.no_grad()
    def encode(
        self,
        clip: Shaped[Tensor, "b c t h w"] | str | os.PathLike[str],
        layers: int | Sequence[int] | None = None,
        pool: Pooling = "mean",
        every: str | None = None,
    ) -> Tensor | tuple[Tensor, ...]:
        """A vector a clip, without gradients, float32: the mean token, [b d].

        `clip` is a batch of clips, and the vectors are on the encoder's device; or the path of a video or folder of
        images, with a vector for each of its clips, on the CPU: end to end, or with `every` one each so many seconds
        ("1s"), or "video" for the mean of all. `motionmae.embed` says besides which stretch a vector stands for.

        `pool` "time" is each time slot's mean token, one after another, [b t*d]; "none" all tokens, [b n d]. `layers`
        is one of `forward`'s layers, by default the last, or several: then a tuple, in the order asked.
        Raises MotionMAEError for what is neither, for a layer that there is not, or for `every` beside a tensor.
        """
        asked = (len(self.blocks),) if layers is None else (layers,) if isinstance(layers, int) else tuple(layers)
        if isinstance(clip, (str, os.PathLike)):
            vectors = models.embed(self, clip, every or "clip", pool=pool, layers=asked).vectors
            found = tuple(vectors[layer] for layer in asked)
        elif every is not None:
            raise MotionMAEError(f"every={every!r}: is of a video's path; a batch of clips has a vector for each clip")
        else:
            tokens = self(clip.to(self.pixel_mean.device), layers=asked)
            found = tuple(pooled(each.float(), pool, self.grid(clip)[0]) for each in tokens)
        return found[0] if layers is None or isinstance(layers, int) else found

    @torch.no_grad()
    def dense(
        self, clip: Shaped[Tensor, "b c t h w"], layer: int | None = None
    ) -> Float[Tensor, "b slots rows columns d"]:
        """The tokens at their places, without gradients: time slots, rows, columns, width.

        `layer` is that of `forward`; by default the middle one, `depth` // 2, which carries labels better than the last
        where it was measured (docs/segmentation.md).
        """
        layer = max(1, len(self.blocks) // 2) if layer is None else layer
        (tokens,) = self(clip.to(self.pixel_mean.device), layers=(layer,))
        return tokens.unflatten(1, self.grid(clip))

    def layers(self) -> list[list[nn.Parameter]]:
        """All parameters from the input up: the embedding with its positions, each block, the last norm."""
        first = [*self.embed.parameters(), *self.positions.parameters()]
        return [first, *([*block.parameters()] for block in self.blocks), [*self.norm.parameters()]]

    def undecayed(self) -> list[nn.Parameter]:
        """The parameters without weight decay: biases, norms and positions."""
        return [*vectors(self), *self.positions.parameters()]

    def hidden_matrices(self) -> list[tuple[nn.Parameter, int]]:
        """The blocks' weight matrices, and how many are stacked in each; the embedding is none, it meets pixels."""
        return [found for block in self.blocks for found in block.hidden_matrices()]  # pyright: ignore


def pooled(tokens: Float[Tensor, "b n d"], pool: Pooling, slots: int) -> Float[Tensor, "b ..."]:
    """The mean token [b d]; each time slot's mean token, one after another [b slots*d]; or the tokens [b n d]."""
    if pool == "none":
        return tokens
    return tokens.mean(1) if pool == "mean" else tokens.unflatten(1, (slots, -1)).mean(2).flatten(1)


def training_grid(config: Model) -> tuple[int, int, int] | None:
    """Tokens in time, rows and columns of the clips that the model is made for; None where their size is unknown."""
    return grid_of(config.frames, config.size, config.size, config.cube) if config.size else None


def check_clip(clip: Any, in_range: bool) -> None:
    """Raise MotionMAEError for what is not a batch of RGB clips; with `in_range`, for floats outside [0, 1] too."""
    order = "[b, c, t, h, w] (clips, channels, frames, rows, columns)"
    if not isinstance(clip, Tensor):
        raise MotionMAEError(f"clips must be a tensor of PyTorch, {order}, not {type(clip).__name__}")
    shape = list(clip.shape)
    if clip.ndim != 5:
        hint = ": a single clip needs its axis b, clip[None]" if clip.ndim == 4 else ""
        raise MotionMAEError(f"clips must have five axes, {order}; these have {clip.ndim}, {shape}{hint}")
    if clip.shape[1] != 3:
        hint = ": axes 1 and 2 seem to be swapped" if clip.shape[2] == 3 else ""
        hint = ": the channels seem to be last" if clip.shape[4] == 3 else hint
        raise MotionMAEError(f"clips must have 3 channels (RGB) in axis 1 of {order}; these are {shape}{hint}")
    if not clip.is_floating_point() and clip.dtype != torch.uint8:
        raise MotionMAEError(f"clips must be uint8, or float in [0, 1]; these are {clip.dtype}")
    if in_range and clip.is_floating_point() and clip.numel() and not (clip.is_meta or torch.compiler.is_compiling()):
        low, high = (float(end) for end in clip.detach().aminmax())
        if not (low >= -SLACK and high <= 1 + SLACK):  # NaN is neither
            raise MotionMAEError(
                f"float clips must be in [0, 1], before any normalisation; these are in [{low:g}, {high:g}]"
            )


def to_unit(pixels: Shaped[Tensor, "*shape"], dtype: torch.dtype) -> Float[Tensor, "*shape"]:
    """Pixels in [0, 1]: uint8 are divided by 255, floats are taken to be in [0, 1] already."""
    if not pixels.is_floating_point() and pixels.dtype != torch.uint8:
        raise MotionMAEError(f"pixels must be uint8, or float in [0, 1]; these are {pixels.dtype}")
    return pixels.to(dtype) / 255 if pixels.dtype == torch.uint8 else pixels.to(dtype)
