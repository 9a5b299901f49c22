"""What the peers of the method have to choose that the method itself has not."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FAnoGanOptions:
    """f-AnoGAN (Schlegl et al. 2019): a WGAN-GP, then an encoder for it; the defaults are its authors'.

    Its networks, schedule, batch and step sizes are these; --resolution, --penalty and what says how a run runs are
    shared with the other methods.
    """

    width: int = 64
    """Feature maps at full resolution, up to eight times as many below."""
    latent_size: int = 128
    """Size of the latent vector."""
    gan_images: int = 3_679_599
    """Images shown to the critic while generator and critic train (7 epochs of KTH)."""
    encoder_images: int = 3_200_000
    """Images shown to the encoder afterwards (50,000 batches)."""
    minibatch: int = 64
    """Global minibatch."""
    critic_steps: int = 5
    """Critic updates, each on a batch of its own, per generator update."""
    learning_rate: float = 1e-4
    """Adam's step size for generator and critic."""
    encoder_learning_rate: float = 5e-5
    """RMSProp's step size for the encoder."""


@dataclass(frozen=True)
class SearchOptions:
    """AnoGAN's iterative search for an image's latent vector, at test time (Schlegl et al. 2017)."""

    steps: int = 500
    """Updates of the latent vector."""
    restarts: int = 1
    """Starting points; the one that ends closest counts."""
    learning_rate: float = 0.02
    """Adam's step size."""
