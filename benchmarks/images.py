"""The image model that is timed: the sizes of the preset `ablation-low`, without dropout."""

from __future__ import annotations

from typing import Any

# Razavi et al. 2019, Table 6: 8 layers of 128, 2 of them followed by attention, 8 latent dimensions.
ABLATION_LOW: dict[str, Any] = {
    "height": 32,
    "width": 32,
    "channels": 3,
    "levels": 256,
    "hidden_size": 128,
    "num_layers": 8,
    "attention_layers": 2,
    "num_heads": 4,
    "latent_dim": 8,
}
SMOKE: dict[str, Any] = ABLATION_LOW | {
    "height": 3,
    "width": 4,
    "hidden_size": 8,
    "num_layers": 2,
    "attention_layers": 1,
    "num_heads": 2,
}
COMPONENTS = 10
