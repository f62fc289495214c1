"""A start for the autoencoder: a truncated Haar wavelet transform in the very layers of an AutoencoderKL.

With diffusers' own random start the product of some ten random convolutions is so ill-conditioned that colour
directions of little variance are not found for thousands of steps. Started as below, the encoder keeps the
lowest-frequency Haar coefficients of each 16x16 patch in a luma-chroma basis, and the decoder hands the patch
means through: the right colours stand from the first step on, and training adds the detail.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.254, -0.497, 0.75], [0.75, -0.629, -0.122]])  # chroma times 1.5
HAAR = torch.tensor([[[1, 1], [1, 1]], [[2, 2], [-2, -2]], [[2, -2], [2, -2]], [[2, -2], [-2, 2]]]) / 4
FREQUENCY = (0.0, 1.0, 1.0, 2.2)  # of HAAR's four
CHROMA = 0.9  # what a chroma channel adds to its frequency in the order of importance


@torch.no_grad()
def start(network: AutoencoderKL) -> None:
    """Sets the weights in place. Latents are twice the first coefficients."""
    for name, parameter in network.named_parameters():
        if name.endswith(("conv2.weight", "conv2.bias")):  # residual blocks begin as the identity
            parameter.zero_()
    encoder, decoder = network.encoder, network.decoder
    encoder.conv_in.weight.mul_(0.1)
    encoder.conv_in.bias.zero_()
    encoder.conv_in.weight[:3, :, 1, 1] += YCC
    order = [0.0, CHROMA, CHROMA]
    for level, block in enumerate(encoder.down_blocks):
        pass_through(shortcuts(block))
        for downsampler in block.downsamplers or ():
            order = haar(downsampler.conv, order, level)
    pass_through([decoder.conv_in, *(conv for block in decoder.up_blocks for conv in shortcuts(block))])
    pass_through([sampler.conv for block in decoder.up_blocks for sampler in block.upsamplers or ()])
    latents = decoder.conv_in.in_channels
    bottleneck(encoder.conv_out, latents, 0.05, 2.0)
    bottleneck(network.quant_conv, latents, 0.01, 1.0)
    bottleneck(network.post_quant_conv, latents, 0.01, 1.0)
    decoder.conv_out.weight.mul_(0.05)
    decoder.conv_out.bias.zero_()
    decoder.conv_out.weight[:, :3, 1, 1] += 1.2 * torch.linalg.inv(YCC)


def shortcuts(block: nn.Module) -> list[nn.Conv2d]:
    """The 1x1 convolutions of the residual blocks that change the number of channels."""
    return [resnet.conv_shortcut for resnet in block.resnets if resnet.conv_shortcut is not None]


def pass_through(convolutions: list[nn.Conv2d]) -> None:
    """Each channel to the one of its number; the rest of the weights stays, small."""
    for conv in convolutions:
        conv.weight.mul_(0.02)
        conv.bias.zero_()
        for channel in range(min(conv.weight.shape[:2])):
            conv.weight[channel, channel] = centre(conv.weight[channel, channel], 1.0)


def centre(kernel: Tensor, value: float) -> Tensor:
    """A kernel of zeros with `value` in the middle."""
    only = torch.zeros_like(kernel)
    only[kernel.shape[0] // 2, kernel.shape[1] // 2] = value
    return only


def haar(conv: nn.Conv2d, order: list[float], level: int) -> list[float]:
    """A stride-2 convolution as a Haar step on the channels whose frequencies are `order`, lowest first.

    Returns the frequencies of its outputs; coarser levels count for less, as natural pictures have it.
    """
    weight = 2.0 ** (0.7 * (3 - level))
    found = sorted(
        (frequency + weight * FREQUENCY[kind], channel, kind)
        for channel, frequency in enumerate(order)
        for kind in range(4)
    )[: conv.out_channels]
    conv.weight.mul_(0.02)
    conv.bias.zero_()
    for out, (_, channel, kind) in enumerate(found):
        conv.weight[out] = 0
        conv.weight[out, channel, :2, :2] = HAAR[kind]
    return [frequency for frequency, _, _ in found]


def bottleneck(conv: nn.Conv2d, latents: int, rest: float, gain: float) -> None:
    """The latents' channels passed on `gain` times; the others (the posterior's spread) small."""
    conv.weight.mul_(rest)
    conv.bias.zero_()
    for channel in range(latents):
        conv.weight[channel] = 0
        conv.weight[channel, channel] = centre(conv.weight[channel, channel], gain)
