"""A checkpoint to `Networks` on openvino: graphs compiled in the background, in the order of their use."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from math import prod
from pathlib import Path
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino as ov

from noisette.checkpoint import MOTION, cache_folder, fetch, not_skipped, side_of
from noisette.engines import tiled
from noisette.engines.openvino import text, unet, vae
from noisette.engines.openvino.cache import LARGEST, blob_key, compiled, float32_copy
from noisette.engines.openvino.graph import Weights
from noisette.engines.openvino.motion import Motion
from noisette.errors import UserError
from noisette.kinds import TEXT_2
from noisette.lora import read_lora
from noisette.mapped import MappedTensors
from noisette.optimized import files_of
from noisette.tensors import check_all_used, file_of

if TYPE_CHECKING:
    from noisette.checkpoint import Checkpoint
    from noisette.engines import Added, Array, Ids

HINTS = {"float32": "f32", "float16": "f16", "bfloat16": "bf16", "int8": "f32"}  # int8: of what stays in float
CAPABILITIES = {"float32": "FP32", "float16": "FP16", "bfloat16": "BF16", "int8": "INT8"}
CLIP = "unet_clip_"  # and frames: a graph for each number, since openvino 2026.4 goes on with that of another call
EAGER = ("unet", "text_encoder", TEXT_2, "unet_context", "vae_decoder")  # the slowest beside those used first
KEPT_CONTEXTS = 4  # with and without guidance, and one of each to spare


def load(
    checkpoint: Checkpoint,
    device: str = "auto",
    precision: str = "float32",
    loras: Sequence[tuple[Path, float]] = (),
    networks: Sequence[str] = EAGER,
    motion_scale: float = 1.0,
) -> OpenVINONetworks:
    """The networks of a checkpoint on the CPU, LoRA files merged in at their scales, motion modules in the UNet.

    Returns at once: `networks` load in the background, the others when they are first used.
    """
    check(device, precision)
    return OpenVINONetworks(ov.Core(), fetch(checkpoint), precision, loras, networks, motion_scale)


def check(device: str, precision: str) -> None:
    """Raises UserError for a precision that this processor does not run."""
    if precision not in precisions():
        raise UserError(f"--precision {precision} does not run on this processor: {', '.join(precisions())} do")


def precisions() -> list[str]:
    """Those that this processor has instructions for."""
    known = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return [name for name, capability in CAPABILITIES.items() if capability in known]


class OpenVINONetworks:
    """`Networks` of one checkpoint. Sizes, batch and token counts are free at every call."""

    def __init__(
        self,
        core: ov.Core,
        checkpoint: Checkpoint,
        precision: str,
        loras: Sequence[tuple[Path, float]],
        networks: Sequence[str],
        motion_scale: float = 1.0,
    ) -> None:
        self._core, self._checkpoint, self._precision = core, checkpoint, precision
        self._moves, self._motion_scale = MOTION in checkpoint.configs, motion_scale
        adapted = [network for network in ("unet", "text_encoder", TEXT_2) if network in checkpoint.configs]
        names = {network: checkpoint.tensors(network) for network in adapted} if loras else {}
        self._loras = [read_lora(path, scale, names) for path, scale in loras]
        self._unet_config = checkpoint.configs["unet"]
        # Always explicit: openvino's own default may be a lower precision than the one that was asked for.
        self._properties = {"INFERENCE_PRECISION_HINT": HINTS[precision], "PERFORMANCE_HINT": "LATENCY"}
        self._int8 = files_of(checkpoint) if precision == "int8" else {}
        self._copying, self._stepped = Lock(), Event()
        self._copies: dict[str, MappedTensors] = {}  # what `_mapped` found; two graphs share the UNet's
        self._pool = ThreadPoolExecutor(2)
        self._models: dict[str, Future[tuple[ov.CompiledModel, Any]]] = {}
        self._deep: Array = np.zeros(0, np.float32)
        self._contexts: list[tuple[list[Array], dict[str, ov.Tensor]]] = []
        for name in networks:
            if network_of(name) in checkpoint.configs and not (self._moves and name == "unet"):
                self._start(name)

    def wait(self, networks: Sequence[str] = EAGER) -> None:
        """Return when these are ready."""
        for name in networks:
            if network_of(name) in self._checkpoint.configs:
                self._model(name)

    def encode_text(self, ids: Ids, attention_mask: Ids | None) -> Array:
        """Token ids [B, T], mask [B, T] -> [B, T, width]."""
        mask = np.ones_like(ids) if attention_mask is None else attention_mask
        return run(self._model("text_encoder"), {"ids": ids, "mask": mask})["last"]

    def text_states(self, network: str, ids: Ids) -> tuple[Array, Array]:
        """Token ids [B, T] -> hidden states [B, T, width] and the last ones, projected if need be, [B, T, P]."""
        found = run(self._model(network), {"ids": ids, "mask": np.ones_like(ids)})
        return found["hidden"], found.get("projected", found["last"])

    def denoise(
        self,
        sample: Array,
        timestep: float,
        context: Array,
        added: Added | None = None,
        num_frames: int = 1,
        reuse: bool = False,
    ) -> Array:
        """sample [B, C_in, h, w], one timestep, context [B, T, width], SDXL's `added` -> [B, C_out, h, w].

        With `reuse` the deep features of the last call without it stand in for this call's, batch and size alike.
        """
        inputs, carried = self._step(sample, timestep, context, added)
        if not reuse:
            name = f"{CLIP}{num_frames}" if self._moves and num_frames > 1 else "unet"
            found = run(self._model(name), inputs, carried)
            self._stepped.set()
            self._deep = found["deep"]
            return found["prediction"]
        model = self._model("unet_shallow")
        needed = {port.any_name for port in model.inputs}
        held = {name: tensor for name, tensor in carried.items() if name in needed}
        return run(model, {**inputs, "deep": self._deep}, held)["prediction"]

    def encode_image(self, pixels: Array) -> tuple[Array, Array]:
        """Pixels [B, 3, H, W] -> (mean, logvar) [B, C, h, w]; AutoencoderTiny's logvar is the lowest, -30."""
        side, latents = self._tile
        moments = self._in_tiles("vae_encoder", "pixels", "moments", pixels, side, latents)
        if self._checkpoint.configs["vae"].get("_class_name") == "AutoencoderTiny":
            return moments, np.full_like(moments, -30.0)
        mean, logvar = np.split(moments, 2, axis=1)
        return mean, np.clip(logvar, -30.0, 20.0)

    def decode_image(self, latents: Array) -> Array:
        """Latents [B, C, h, w] -> pixels [B, 3, H, W]."""
        side, tile = self._tile
        return self._in_tiles("vae_decoder", "latents", "pixels", latents, tile, side)

    @property
    def _tile(self) -> tuple[int, int]:
        """Pixels and latents along each side of a tile: what the autoencoder was trained on."""
        config, factor = self._checkpoint.configs["vae"], self._checkpoint.vae_scale_factor
        latents = max(1, side_of(config.get("sample_size", 512)) // factor)
        return latents * factor, latents

    def _in_tiles(self, model: str, given: str, wanted: str, x: Array, tile: int, made: int) -> Array:
        """A VAE network over a picture: whole, or in tiles above `tiled.WHOLE_AREA` pixels."""

        def once(part: Array) -> Array:
            result: Array = run(self._model(model), {given: part})[wanted]
            return result

        return tiled.whole_or_tiled(once, x, tile, made)

    def optimize(self, name: str, samples: Sequence[tuple[Any, ...]], path: Path) -> list[str]:
        """Writes "unet" or "vae_decoder" as int8 to `path` (.xml), calibrated on arguments of `denoise` or
        `decode_image`; returns the names of the layers that stay in float.
        """
        from noisette.engines.openvino.quantize import KEPT_SHARE, quantize

        if name == "unet":
            given = [(inputs, carried) for inputs, carried in (self._step(*sample) for sample in samples)]
            arrays = [{**inputs, **{key: t.data for key, t in carried.items()}} for inputs, carried in given]
        else:
            arrays = [{"latents": latents} for (latents,) in samples]
        tensors = self._checkpoint.tensors(network_of(name))
        get, where = MappedTensors(tensors), file_of(self._checkpoint.weights[network_of(name)])
        graph, kept = quantize(
            lambda: build_graph(name, self._config(name), get, tensors, where), arrays, KEPT_SHARE[name]
        )
        ov.save_model(graph, path, compress_to_fp16=False)
        return kept

    def _step(
        self, sample: Array, timestep: float, context: Array, added: Added | None = None
    ) -> tuple[dict[str, Array], dict[str, ov.Tensor]]:
        """The step graph's inputs, and those which are the same at every step of a prompt."""
        features = unet.time_features(self._unet_config, timestep)
        conditions = {"context": context}
        if added is not None:
            conditions["added_features"] = unet.added_features(self._unet_config, *added)
        return {"sample": sample, "time_features": features}, self._carried(conditions)

    def _mapped(self, network: str) -> MappedTensors:
        """The checkpoint's, or their float32 copy where the network is too large for its compiled form to be kept."""
        tensors = self._checkpoint.tensors(network)
        size = sum(4 * prod(tensor.shape) for tensor in tensors.values())
        if size <= LARGEST or all(tensor.dtype == "F32" for tensor in tensors.values()):
            return MappedTensors(tensors)
        files = [identity(path) for path in self._checkpoint.weights[network]]
        with self._copying:
            if network not in self._copies:
                group = f"{network}-{place_hash(files)}"
                copy = float32_copy(tensors, cache_folder() / "openvino", group, files)
                try:
                    self._copies[network] = MappedTensors(copy)
                    self._copies[network].map()
                except FileNotFoundError:  # another process took it away just now
                    self._copies[network] = MappedTensors(tensors)
        return self._copies[network]

    def _config(self, name: str) -> dict[str, Any]:
        return self._checkpoint.configs[network_of(name)]

    def _carried(self, inputs: dict[str, Array]) -> dict[str, ov.Tensor]:
        """What the UNet derives from the prompt alone, computed once for each prompt."""
        arrays = list(inputs.values())
        for known, carried in self._contexts:
            if all(np.array_equal(a, b) for a, b in zip(known, arrays, strict=True)):
                return carried
        found = run(self._model("unet_context"), inputs)
        carried = {name: ov.Tensor(array, shared_memory=True) for name, array in found.items()}
        self._contexts = [([a.copy() for a in arrays], carried), *self._contexts][:KEPT_CONTEXTS]
        return carried

    def _model(self, name: str) -> ov.CompiledModel:
        if name not in self._models:
            self._start(name)
        try:
            return self._models[name].result()[0]
        except BaseException:  # Ctrl-C too: what has not begun would be compiled to its end before the process ends
            self._models = {other: model for other, model in self._models.items() if not model.cancel()}
            raise

    def _start(self, name: str) -> None:
        """Compile one graph in the background, or fetch it from the cache."""
        network, config = network_of(name), self._config(name)
        quantized = self._int8.get("unet" if name == "unet_shallow" else name)
        paths = (quantized, quantized.with_suffix(".bin")) if quantized else self._checkpoint.weights[network]
        merged = [lora for lora in self._loras if network in lora.updates]
        files = [identity(path) for path in paths]
        adapters: list[Any] = [(identity(lora.path), lora.scale) for lora in merged]
        moves = name.startswith(CLIP)
        if moves:
            files_of_motion = [identity(path) for path in self._checkpoint.weights[MOTION]]
            adapters.append((self._checkpoint.configs[MOTION], files_of_motion, self._motion_scale))
        device = self._core.get_property("CPU", "FULL_DEVICE_NAME")
        properties = self._properties
        if network == "vae" and self._precision == "float16" and self._checkpoint.upcasts_vae:
            properties = properties | {"INFERENCE_PRECISION_HINT": HINTS["float32"]}
        key = blob_key(name, config, files, adapters, properties, device)
        group = f"{name}-{self._precision}-{place_hash(files)}"

        def build() -> tuple[ov.Model, Any]:
            if quantized:
                graph = read_int8(self._core, quantized, self._checkpoint.model)
                return (unet.shallow(graph) if name == "unet_shallow" else graph), None
            tensors, where = self._checkpoint.tensors(network), file_of(self._checkpoint.weights[network])
            get: Callable[[str], Any] = self._mapped(network)
            Thread(target=let_go, args=(get, self._stepped), daemon=True).start()
            for lora in merged:
                get = lora.merged(network, get)
            if not moves:
                return build_graph(name, config, get, tensors, where), get
            of_motion = self._checkpoint.tensors(MOTION)
            get_motion = MappedTensors(of_motion)
            frames = int(name.removeprefix(CLIP))
            place = file_of(self._checkpoint.weights[MOTION])
            weights = Weights(get_motion, MOTION, where=place)
            motion = Motion(self._checkpoint.configs[MOTION], weights, frames, self._motion_scale)
            made = build_graph(name, config, get, tensors, where, motion)
            check_all_used(MOTION, of_motion, weights.used, place)
            return made, (get, get_motion)

        folder = cache_folder() / "openvino"
        self._models[name] = self._pool.submit(compiled, self._core, build, properties, folder, group, key)


def let_go(get: MappedTensors, done: Event) -> None:
    """Gives pages of the weights back while a graph is compiled and first run, which packs them for itself.

    They are read again where they are needed; without this the source would stay beside what is made of it.
    """
    while not done.wait(0.05):
        get.release()
    get.release()


def read_int8(core: ov.Core, path: Path, model: str) -> ov.Model:
    """A graph that `noisette optimize` made. Raises UserError when its files are damaged."""
    try:
        return core.read_model(path)
    except RuntimeError:
        raise UserError(f"{path} is damaged: python3 -m noisette optimize {model} makes it again") from None


def network_of(name: str) -> str:
    """The network that one of the graphs belongs to: unet, vae, text_encoder or text_encoder_2."""
    return name if name.startswith("text_encoder") else name.partition("_")[0]


def identity(path: Path) -> tuple[str, int, int]:
    """What tells a file from any other and from its own earlier states: place, size, time of change."""
    status = path.stat()
    return str(path.resolve()), status.st_size, status.st_mtime_ns


def place_hash(files: Sequence[tuple[str, int, int]]) -> str:
    """Stands in names of the cache for the place of a network's files."""
    return hashlib.sha256(files[0][0].encode()).hexdigest()[:12]


def build_graph(
    name: str,
    config: Mapping[str, Any],
    get: Callable[[str], Any],
    names: Mapping[str, Any],
    where: str,
    motion: Motion | None = None,
) -> ov.Model:
    """One of the graphs of a checkpoint. UserError when its config and the tensors `names` in `where` do not fit."""
    network = network_of(name)
    weights = Weights(get, network, where=where)
    made: dict[str, ov.Model] = {}
    if network == "unet":
        made["unet_context"], made["unet"] = unet.build_unet(config, weights, motion)
    elif network == "vae":  # both, or the tensors of the other would be left over
        made = {"vae_encoder": vae.build_encoder(config, weights), "vae_decoder": vae.build_decoder(config, weights)}
    else:
        made[name] = text.build_text_encoder(config, weights)
    check_all_used(network, not_skipped(names, config), weights.used, where)
    return unet.shallow(made["unet"]) if name == "unet_shallow" else made["unet" if motion else name]


def run(model: ov.CompiledModel, inputs: Mapping[str, Any], held: Mapping[str, ov.Tensor] = {}) -> dict[str, Array]:
    """One inference: named arrays (and tensors that stay as they are) to named arrays."""
    arrays = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
    results = model({**arrays, **held}, share_inputs=True)
    return {output.any_name: array for output, array in results.items()}
