"""What the network is punished for while it trains. Nothing here is needed to detect."""

from ledetr.losses.criterion import LossConfig, criterion
from ledetr.losses.denoising import DenoisingConfig, make_denoising
from ledetr.losses.targets import Targets

__all__ = ["DenoisingConfig", "LossConfig", "Targets", "criterion", "make_denoising"]
