"""Networks to pool: images (B, 3, H, W) in [0, 1] become feature maps (B, C, h, w)."""

from cvretrieval.deep.backbones.backbone import Backbone

__all__ = ["Backbone"]
