"""Random numbers that depend on a key alone: the same on every device, in any batch, on any number of ranks.

A key is an int64 in [0, 2^32). Each sample carries one, made from (seed, epoch, index); masks and augmentation draw
from it, so that resuming, accumulating or splitting a batch never changes what a sample is. The mixing is Chris
Wellons' 32-bit "lowbias32" integer hash (public domain, 2018).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

_LOW = 0xFFFFFFFF


def _mix(x):
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & _LOW
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & _LOW
    return x ^ (x >> 16)


def key(*parts: int) -> int:
    """One key in [0, 2^32) from any integers, for instance (seed, epoch, index)."""
    mixed = 0
    for part in parts:
        mixed = _mix((mixed * 0x9E3779B1 + (part & _LOW) + 0x85EBCA6B) & _LOW)
    return mixed


def uniform(keys: Int[Tensor, " b"], count: int, stream: int) -> Float[Tensor, "b {count}"]:
    """`count` independent float32 numbers in [0, 1) for each key, on the keys' device.

    `stream` separates the uses of one key (the mask, the flip, …): equal streams give equal numbers.
    """
    base = _mix((keys[:, None] + key(stream)) & _LOW)
    places = torch.arange(count, device=keys.device, dtype=torch.int64)
    return (_mix((base ^ _mix(places * 2 + 1)) & _LOW) >> 8).to(torch.float32) * 2.0**-24


def normal(keys: Int[Tensor, " b"], count: int, stream: int) -> Float[Tensor, "b {count}"]:
    """`count` independent standard normal float32 numbers for each key."""
    return torch.special.ndtri(uniform(keys, count, stream).clamp(2.0**-24, 1 - 2.0**-24))
