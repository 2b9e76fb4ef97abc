"""Makes torchvision import beside a torch built for CPUs alone; to be imported before what needs torchvision."""

from __future__ import annotations

import torch

try:
    import torchvision
except RuntimeError:
    # Built for CUDA, torchvision's compiled operators do not load there. Its models need none of them; its import needs
    # these two to exist.
    _operators = torch.library.Library("torchvision", "DEF")
    _operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision  # noqa: F401
