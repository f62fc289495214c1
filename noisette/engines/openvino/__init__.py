"""The torch-free CPU engine: graphs built from safetensors, run by OpenVINO.

    graph.py   layers on openvino ops, with weights straight from the checkpoint
    unet.py    UNet2DConditionModel of the Stable Diffusion families
    motion.py  motion modules between its layers
    vae.py     AutoencoderKL and AutoencoderTiny
    text.py    CLIPTextModel, CLIPTextModelWithProjection, BertModel
    upscaler.py  the small network that doubles a picture
    quantize.py  int8 by NNCF, on request
    cache.py   compiled models on disk
    engine.py  load(): a checkpoint to `Networks`

Nothing outside this package imports openvino, and nothing inside imports torch, diffusers or transformers.
"""

import sys

# openvino imports its model converter and that imports telemetry: over half of its import time, for nothing that
# runs a model. It goes without them where they can't be imported; others who import them later still get them.
_hidden = "openvino" not in sys.modules
if _hidden:
    sys.modules["openvino.tools.ovc"] = None  # type: ignore[assignment]

from noisette.engines.openvino.engine import OpenVINONetworks, check, load  # noqa: E402

if _hidden:
    del sys.modules["openvino.tools.ovc"]

__all__ = ["OpenVINONetworks", "check", "load"]
