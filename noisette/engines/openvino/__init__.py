"""The torch-free CPU engine: graphs built from safetensors, run by OpenVINO.

    graph.py   layers on openvino ops, with weights straight from the checkpoint
    unet.py    UNet2DConditionModel of the Stable Diffusion families
    vae.py     AutoencoderKL and AutoencoderTiny
    text.py    CLIPTextModel, CLIPTextModelWithProjection, BertModel
    cache.py   compiled models on disk
    engine.py  load(): a checkpoint to `Networks`

Nothing outside this package imports openvino, and nothing inside imports torch, diffusers or transformers.
"""

from noisette.engines.openvino.engine import OpenVINONetworks, load

__all__ = ["OpenVINONetworks", "load"]
