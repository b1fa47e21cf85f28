"""The masked autoencoder: one encoder, and one shared or two separate decoders with a space head and a time head.

Yang et al., 2022, arXiv 2210.04154. It maps clips and token indices to predictions; it knows no target, loss or mask.
What differs from VideoMAE: a time head beside the space head (or a decoder of its own), by option a share of the hidden
tokens alone is predicted, or by cross-attention, and the last block computes nothing but what is predicted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from motionmae.config import Model
from motionmae.models.blocks import EPS, Block, init_linear, run_blocks, vectors
from motionmae.models.encoder import VideoEncoder, training_grid
from motionmae.models.linear import Linear
from motionmae.models.tokens import Positions, clip_grid

TARGETS = ("appearance", "motion")  # what the space head and the time head predict
HEADS = (*TARGETS, "second")  # and, by option, a second time head


class TokenDecoder(nn.Module):
    """Visible tokens in, predictions at other places out: one prediction layer for each target, of so many numbers.

    With cross-attention a predicted place attends to the visible tokens alone (Fu et al., 2024, arXiv 2401.14391), so
    that no prediction depends on what else is predicted.
    """

    def __init__(self, config: Model, targets: Mapping[str, int]):
        super().__init__()
        size = config.decoder
        self.recompute, self.attention = False, size.attention
        self.enter = Linear(config.width, size.width, bias=False)
        self.mask_token = nn.Parameter(torch.empty(size.width))
        # Fixed sines whatever the encoder's kind: learned positions here would be thrown away with the decoder.
        kind = "sincos1d" if config.positions == "sincos1d" else "sincos3d"
        self.positions = Positions(kind, training_grid(config), size.width)
        self.blocks = nn.ModuleList(Block(size.width, size.heads, config.mlp_ratio) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.width, eps=EPS)
        heads = {target: Linear(size.width, numbers) for target, numbers in targets.items()}
        self.heads = nn.ModuleDict(heads)
        self.apply(init_linear)
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        for head in heads.values():
            nn.init.trunc_normal_(head.weight, std=0.002)  # start at the mean: the loss begins at its trivial baseline

    def forward(
        self,
        encoded: Float[Tensor, "b k d"],
        visible: Int[Tensor, "b k"],
        masked: Int[Tensor, "b m"],
        grid: tuple[int, int, int],
    ) -> dict[str, Float[Tensor, "b m p"]]:
        """What each head predicts at the indices `masked`."""
        x = self.features(encoded, visible, masked, grid)
        return {target: head(x) for target, head in self.heads.items()}

    def features(
        self,
        encoded: Float[Tensor, "b k d"],
        visible: Int[Tensor, "b k"],
        masked: Int[Tensor, "b m"],
        grid: tuple[int, int, int],
    ) -> Float[Tensor, "b m w"]:
        """The decoder's last tokens at the indices `masked`: what its heads read."""
        positions = self.positions(grid)
        seen, hidden = self.enter(encoded) + positions[visible], self.mask_token + positions[masked]
        if self.attention == "cross":
            return self.norm(run_blocks(self.blocks, hidden, self.recompute, seen))
        x = run_blocks(self.blocks[:-1], torch.cat((seen, hidden), dim=1), self.recompute)
        # Of the last block only the predicted tokens are wanted: the others are nothing but its context.
        return self.norm(run_blocks(self.blocks[-1:], x[:, visible.shape[1] :], self.recompute, x))


class MotionMAE(nn.Module):
    """The autoencoder that is pretrained; `encoder` is what is kept.

    `targets` names the heads it has, both or one for the pure variants, and how many numbers of a cube each predicts:
    by default both, each as many as a cube has.
    """

    def __init__(self, config: Model, targets: Mapping[str, int] | None = None):
        super().__init__()
        targets = targets or dict.fromkeys(TARGETS, math.prod(config.cube) * 3)
        self.config = config
        self.encoder = VideoEncoder(config)
        groups = [targets] if config.decoder.kind == "shared" else [{name: size} for name, size in targets.items()]
        self.decoders = nn.ModuleList(TokenDecoder(config, group) for group in groups)

    def forward(
        self, clip: Shaped[Tensor, "b c t h w"], visible: Int[Tensor, "b k"], masked: Int[Tensor, "b m"]
    ) -> dict[str, Float[Tensor, "b m p"]]:
        """Predictions of each target's numbers in each cube, (frame, row, column, channel), at the indices `masked`.

        `masked` may be any subset of the hidden tokens: the decoder spends nothing on the others.
        """
        encoded = self.encoder(clip, visible)
        grid = clip_grid(clip, self.config.cube)
        predictions: dict[str, Tensor] = {}
        for decoder in self.decoders:
            predictions |= decoder(encoded, visible, masked, grid)
        return predictions

    def layers(self) -> list[list[nn.Parameter]]:
        """The encoder's layers; the decoders belong to the last."""
        *below, last = self.encoder.layers()
        return [*below, [*last, *self.decoders.parameters()]]

    def undecayed(self) -> list[nn.Parameter]:
        """The parameters without weight decay: biases, norms, positions and mask tokens."""
        return [*self.encoder.undecayed(), *vectors(self.decoders)]

    def hidden_matrices(self) -> list[tuple[nn.Parameter, int]]:
        """The weight matrices of all blocks, and how many are stacked in each."""
        blocks = [block for decoder in self.decoders for block in decoder.blocks]  # pyright: ignore
        return [*self.encoder.hidden_matrices(), *(found for block in blocks for found in block.hidden_matrices())]

    def recompute(self, on: bool) -> None:
        """Whether blocks recompute their activations in the backward pass: less memory, about a third more time."""
        for module in (self.encoder, *self.decoders):
            module.recompute = on  # pyright: ignore[reportArgumentType]
