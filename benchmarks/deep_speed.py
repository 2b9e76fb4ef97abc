"""What CNN descriptors cost beside their network: pooling and whitening, regions of R-MAC, images on disk to vectors.

``pooling``
    Pooling of a map and whitening of its vector, beside the forward of ResNet-50 (random weights) that made the map of
    an image of 1024 x 768 pixels. The target is at most 3 %.
``regions``
    R-MAC of that map beside a loop that takes the maximum of each region in turn, as cirtorch does. The target is 5
    times as fast at equal values.
``throughput``
    Photos on disk to vectors (`deep.GeM`, MobileNetV2 with ImageNet weights), beside the same network given the same
    batches from memory. The target is 0.9.

On the CPU with ``--threads`` threads, or on a GPU where there is one.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import data_folder, paired, report
from torch.nn import functional as F

from cvretrieval import ImageReader, PCAWhitening
from cvretrieval.deep import Backbone, GeM, layers
from cvretrieval.deep.inference import resolve_device
from cvretrieval.deep.layers.region_grid import rmac_regions
from cvretrieval.images import find_images


def synchronised(function: Any, device: torch.device) -> Any:
    """Return the function, waiting for the GPU at its end."""

    def run() -> Any:
        with torch.inference_mode():
            result = function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return result

    return run


def seconds(function: Any, repeats: int) -> float:
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def resnet_map(device: torch.device) -> tuple[Any, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    network = Backbone("resnet50", weights=None).build().to(device).eval()
    image = torch.rand(1, 3, 768, 1024, device=device)
    with torch.inference_mode():
        return network, image, network(image).float()


def pooling(arguments: argparse.Namespace, device: torch.device) -> None:
    network, image, x = resnet_map(device)
    forward = seconds(synchronised(lambda: network(image), device), arguments.repeats)
    print(f"ResNet-50, 1024 x 768, {device}: forward {1e3 * forward:.0f} ms, map {tuple(x.shape[1:])}")
    rng = np.random.default_rng(0)
    channels = x.shape[1]
    rows = rng.normal(size=(600, channels)).astype(np.float32)
    pca = PCAWhitening(512).fit(rows)
    netvlad = layers.NetVLAD(64, channels).to(device)
    tried = {
        "SPoC": layers.SPoC(), "MAC": layers.MAC(), "CroW": layers.CroW(), "GeM": layers.GeM(), "R-MAC": layers.RMAC(),
        "NetVLAD 64": netvlad,
    }  # fmt: skip
    for name, layer in tried.items():
        layer.to(device).eval()

        def describe(layer: Any = layer) -> Any:
            vector = F.normalize(layer(x), dim=1).cpu().numpy()
            return vector if vector.shape[1] > channels else pca.transform(vector)

        spent = seconds(synchronised(describe, device), 5 * arguments.repeats)
        whitened = "" if name == "NetVLAD 64" else " and whitening to 512"
        verdict = "met" if spent <= 0.03 * forward else "MISSED"
        print(f"  {name}{whitened}: {1e3 * spent:.2f} ms, {100 * spent / forward:.2f} %  (target ≤ 3: {verdict})")


def region_loop(x: torch.Tensor, regions: list[tuple[int, int, int, int]]) -> torch.Tensor:
    total = torch.zeros(x.shape[:2], device=x.device)
    for _, y, x0, side in regions:
        total = total + F.normalize(x[:, :, y : y + side, x0 : x0 + side].amax((2, 3)), dim=1)
    return F.normalize(total, dim=1)


def max_pool_loop(x: torch.Tensor, regions: list[tuple[int, int, int, int]]) -> torch.Tensor:
    """Take each region's maximum as cirtorch does, by max pooling of a copy of it with a window of its size."""
    total = torch.zeros(x.shape[:2], device=x.device)
    for _, y, x0, side in regions:
        window = x[:, :, y : y + side, :][:, :, :, x0 : x0 + side]
        vector = F.max_pool2d(window, (side, side)).flatten(1)
        total = total + vector / (vector.norm(dim=1, keepdim=True) + 1e-6)
    return F.normalize(total, dim=1)


def regions(arguments: argparse.Namespace, device: torch.device) -> None:
    _, _, x = resnet_map(device)
    layer = layers.RMAC().to(device).eval()
    grid = rmac_regions(x.shape[2], x.shape[3])
    for name, loop in (("max_pool2d of each region", max_pool_loop), ("amax of each region", region_loop)):
        difference = float((layer(x) - loop(x, grid)).abs().max())
        ours, peer = paired(
            synchronised(lambda: layer(x), device), synchronised(lambda loop=loop: loop(x, grid), device),
            20 * arguments.repeats,
        )  # fmt: skip
        report(
            f"R-MAC, {len(grid)} regions of {tuple(x.shape[1:])}",
            ours,
            peer,
            name,
            5 if loop is max_pool_loop else None,
        )
        print(f"  largest difference: {difference:.1e}")


def throughput(arguments: argparse.Namespace, device: torch.device) -> None:
    data = data_folder(arguments.data)
    spec = importlib.util.spec_from_file_location("backbones", data / "cnn_weights" / "backbones.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.mobilenet_v2().to(device)
    paths: list[Path] = sorted(find_images(data / "imagenet1k_sample"))[: arguments.images]
    gem = GeM(network, batch_size=arguments.batch_size, device=device, n_workers=arguments.workers).fit([])
    reader = ImageReader(max_size=1024)
    by_size: dict[Any, list[Any]] = {}
    for path in paths:
        pixels = reader.read(path, color="rgb").pixels
        by_size.setdefault(pixels.shape, []).append(torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255)
    batches = []
    for images in by_size.values():
        for start in range(0, len(images), arguments.batch_size):
            batches.append(torch.stack(images[start : start + arguments.batch_size]).to(device))

    def bare() -> None:
        for batch in batches:
            network(batch)

    ours, peer = paired(lambda: gem.transform(paths), synchronised(bare, device), arguments.repeats)
    ratio = report(f"{len(paths)} photos to vectors", ours, peer, "network alone", 0.9)
    rate = len(paths) / statistics.median(ours)
    print(
        f"  {rate:.1f} images/s of mean size {np.mean([b.shape[2] * b.shape[3] for b in batches]):.0f} px, {ratio:.2f}"
    )


ROWS = {"pooling": pooling, "regions": regions, "throughput": throughput}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of test images (default: CVRETRIEVAL_DATA)")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for row in arguments.rows:
        ROWS[row](arguments, resolve_device("auto"))


if __name__ == "__main__":
    main()
