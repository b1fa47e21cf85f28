"""The models by name: VideoMAE's sizes, and one that a CPU trains in minutes."""

from __future__ import annotations

from motionmae.config.model import Decoder, Model


def _vit(width: int, depth: int, heads: int, decoder_width: int, decoder_heads: int) -> Model:
    """Clips of 16 x 224 x 224, cubes of 2 x 16 x 16, a decoder of half the width and 4 blocks."""
    return Model(
        width=width, depth=depth, heads=heads, decoder=Decoder(width=decoder_width, depth=4, heads=decoder_heads)
    )


SIZES: dict[str, Model] = {
    "tiny": Model(
        frames=8,
        size=64,
        cube=(2, 8, 8),
        width=128,
        depth=4,
        heads=4,
        decoder=Decoder(width=64, depth=2, heads=2),
    ),
    "small": _vit(384, 12, 6, 192, 3),
    "base": _vit(768, 12, 12, 384, 6),
    "large": _vit(1024, 24, 16, 512, 8),
    "huge": _vit(1280, 32, 16, 640, 8),
}
