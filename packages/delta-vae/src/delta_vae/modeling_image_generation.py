"""`DeltaVaeForImageGeneration`: the image delta-VAE, with `sample`, `reconstruct` and `interpolate`.

Images are integer levels (B, C, H, W), 0 ... levels - 1, as `DeltaVaeImageProcessor` makes them, with one latent a row:
T = H.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from delta_vae.configuration_delta_vae import DeltaVaeConfig
from delta_vae.latents import check_latents
from delta_vae.modeling_delta_vae import DeltaVaeModel, DeltaVaeOutput, spherical_interpolation
from delta_vae_core import DiagonalGaussian


class DeltaVaeForImageGeneration(DeltaVaeModel):
    """An image delta-VAE: called on images it gives the bound; it draws, rebuilds and interpolates images.

    Where a method takes `temperature` (of the likelihood, not of z), `use_cache` and `progress`, they are those of the
    decoder's `sample`; `generator` decides everything that is drawn, and the global random state is left as it was.
    """

    main_input_name = "pixel_values"

    def __init__(self, config: DeltaVaeConfig) -> None:
        if not hasattr(config.decoder, "image_shape"):
            raise ValueError(
                f"decoder.model_type={config.decoder.model_type!r}: DeltaVaeForImageGeneration needs an image decoder; "
                "use DeltaVaeForCausalLM for text"
            )
        super().__init__(config)

    def get_input_embeddings(self) -> None:  # type: ignore[override]  # every other model has a table to give
        """Pixels have no table of embeddings; sharding asks for it."""

    def forward(  # type: ignore[override]  # by the name that image processors give, and without a mask
        self, pixel_values: Tensor, noise: Tensor | None = None, generator: torch.Generator | None = None
    ) -> DeltaVaeOutput:
        """The bound on images; z is made from `noise` (B, T, D) if given, else drawn from `generator`."""
        return super().forward(pixel_values, None, noise, generator)

    def encode(self, pixel_values: Tensor) -> DiagonalGaussian:  # type: ignore[override]  # as `forward`
        """q(z|x), (B, T, D), one latent a row."""
        return super().encode(pixel_values)

    def decode(self, latents: Tensor, **kwargs: Any) -> Tensor:
        """Images (B, C, H, W) drawn from p(x | z) given latents (B, T, D); `kwargs` as in `sample`."""
        return self.sample(latents=latents, **kwargs)

    @torch.no_grad()
    def sample(
        self,
        num_images: int | None = None,
        latents: Tensor | None = None,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        *,
        source: str | None = None,
        use_cache: bool = True,
        progress: bool | None = None,
    ) -> Tensor:
        """Images (B, C, H, W): `num_images` of them, by default one, or one for each of `latents`.

        z is `latents` (B, T, D), or (1, T, D) for all of the images; else it is drawn from `source`, "auxiliary" or
        "prior", as in `sample_latents`. A decoder without latents has none.
        """
        if num_images is None:
            num_images = 1 if latents is None else len(latents)
        if num_images < 1:
            raise ValueError(f"num_images={num_images}: ask for at least 1")
        if latents is not None:
            check_latents(latents)
            if source is not None:
                raise ValueError(f"source={source!r} with latents given: leave one of them out")
            if len(latents) not in (1, num_images):
                raise ValueError(
                    f"latents of {len(latents)} images for num_images={num_images}: give as many, or one for all"
                )
            latents = latents.expand(num_images, *latents.shape[1:])
        elif self.config.latent_dim or source is not None:
            latents = self.sample_latents(num_images, self.config.decoder.height, generator, source)
        return self.decoder.sample(
            num_images,
            latents,
            temperature=temperature,
            generator=generator,
            use_cache=use_cache,
            progress=progress,
        )

    @torch.no_grad()
    def reconstruct(
        self,
        pixel_values: Tensor,
        *,
        sample: bool = False,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Decode the posterior's mean, or a sample of it: levels (B, C, H, W) -> the same. `kwargs` as in `sample`."""
        posterior = self.encode(pixel_values)
        latents = posterior.sample(generator) if sample else posterior.mean
        return self.decode(latents, generator=generator, **kwargs)

    @torch.no_grad()
    def interpolate(
        self,
        first: Tensor,
        second: Tensor,
        steps: int = 5,
        *,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Decode `steps` points on the arc between the posterior means of two images, levels (C, H, W) or (1, C, H, W).

        (steps, C, H, W); the ends are the two reconstructions. `kwargs` as in `sample`.
        """
        if steps < 2:
            raise ValueError(f"steps={steps}: an interpolation has at least its 2 ends; ask for 2 or more")
        means = []
        for image in (first, second):
            if image.dim() == 4 and len(image) != 1:
                raise ValueError(f"an end of an interpolation of shape {tuple(image.shape)}: give one image (C, H, W)")
            means.append(self.encode(image if image.dim() == 4 else image[None]).mean[0])
        return self.decode(spherical_interpolation(means[0], means[1], steps), generator=generator, **kwargs)
