"""Nats inside, bits where a person reads them."""

from __future__ import annotations

import math
from typing import TypeVar

import torch

Number = TypeVar("Number", float, torch.Tensor)


def nats_to_bits(nats: Number) -> Number:
    """1 nat = 1 / ln 2 = 1.4427 bits."""
    return nats / math.log(2.0)


def bits_to_nats(bits: Number) -> Number:
    """1 bit = ln 2 = 0.6931 nats."""
    return bits * math.log(2.0)
