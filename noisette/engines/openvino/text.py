"""Text encoders as openvino graphs: CLIPTextModel (with or without projection) and BertModel.

CLIP: Radford et al. 2021; BERT: Devlin et al. 2018; names and configs of transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from noisette.engines.openvino import graph as g
from noisette.engines.openvino.graph import Node, Weights
from noisette.errors import UserError

CLIP = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "projection_dim": 512,
    "clip_skip": 0,
}
BERT = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 512,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "type_vocab_size": 2,
}
LOWEST = float(np.finfo(np.float32).min)


def build_text_encoder(config: Mapping[str, Any], w: Weights) -> ov.Model:
    """ids [B, T], mask [B, T] (int64, 1 = real token) -> last [B, T, width]; CLIP also `hidden`

    and, with a projection, `projected` [B, T, P].

    `last` is the final hidden state (CLIP: after the last layer norm), `hidden` that before the last layer, or
    `clip_skip` of the config earlier, not normed. `projected` is `last` through the projection, token by token.
    """
    kind = (config.get("architectures") or [""])[0] or config.get("model_type", "")
    if kind.startswith("CLIP") or kind == "clip_text_model":
        return build_clip({**CLIP, **config}, w)
    if kind.startswith("Bert") or kind == "bert":
        return build_bert({**BERT, **config}, w)
    raise UserError(f"text encoder {kind} is not supported by the openvino engine; use --engine torch")


def build_clip(c: Mapping[str, Any], w: Weights) -> ov.Model:
    """CLIPTextModel: causal attention, layer norms before the sublayers."""
    ids, mask = inputs()
    width, heads, whole = c["hidden_size"], c["num_attention_heads"], w
    if w.has("text_model.embeddings.token_embedding.weight"):
        w = w / "text_model"
    x = embedding(ids, w / "embeddings" / "token_embedding", c["vocab_size"], width)
    x = ops.add(x, positions(ids, w / "embeddings" / "position_embedding", c["max_position_embeddings"], width))
    bias = ops.add(causal_bias(ids), padding_bias(mask))
    states = [x]
    for i in range(c["num_hidden_layers"]):
        layer = w / "encoder" / "layers" / i
        h = g.layer_norm(x, layer / "layer_norm1", width, c["layer_norm_eps"])
        q, k, v = (
            g.split_heads(g.linear(h, layer / "self_attn" / name, width, width), heads, width)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        x = ops.add(x, g.linear(g.attention(q, k, v, width, bias), layer / "self_attn" / "out_proj", width, width))
        h = g.layer_norm(x, layer / "layer_norm2", width, c["layer_norm_eps"])
        h = g.activation(c["hidden_act"], g.linear(h, layer / "mlp" / "fc1", width, c["intermediate_size"]))
        x = ops.add(x, g.linear(h, layer / "mlp" / "fc2", c["intermediate_size"], width))
        states.append(x)
    last = g.layer_norm(x, w / "final_layer_norm", width, c["layer_norm_eps"])
    outputs = {"last": last, "hidden": states[-2 - c["clip_skip"]]}
    if (projection := whole / "text_projection").has("weight"):
        outputs["projected"] = g.linear(last, projection, width, c["projection_dim"], bias=False)
    return g.model(outputs, [ids, mask], "text_encoder")


def build_bert(c: Mapping[str, Any], w: Weights) -> ov.Model:
    """BertModel without its pooler: attention under the padding mask, layer norms after the sublayers."""
    ids, mask = inputs()
    width, heads, eps = c["hidden_size"], c["num_attention_heads"], c["layer_norm_eps"]
    if w.has("bert.embeddings.word_embeddings.weight"):
        w = w / "bert"
    e = w / "embeddings"
    x = embedding(ids, e / "word_embeddings", c["vocab_size"], width)
    x = ops.add(x, positions(ids, e / "position_embeddings", c["max_position_embeddings"], width))
    types = (e / "token_type_embeddings").float("weight", (c["type_vocab_size"], width))
    x = ops.add(x, ops.gather(types, g.index(0), g.index(0)))
    x = g.layer_norm(x, e / "LayerNorm", width, eps)
    bias = padding_bias(mask)
    for i in range(c["num_hidden_layers"]):
        layer = w / "encoder" / "layer" / i
        q, k, v = (
            g.split_heads(g.linear(x, layer / "attention" / "self" / name, width, width), heads, width)
            for name in ("query", "key", "value")
        )
        h = g.linear(g.attention(q, k, v, width, bias), layer / "attention" / "output" / "dense", width, width)
        x = g.layer_norm(ops.add(x, h), layer / "attention" / "output" / "LayerNorm", width, eps)
        h = g.linear(x, layer / "intermediate" / "dense", width, c["intermediate_size"])
        h = g.linear(g.activation(c["hidden_act"], h), layer / "output" / "dense", c["intermediate_size"], width)
        x = g.layer_norm(ops.add(x, h), layer / "output" / "LayerNorm", width, eps)
    return g.model({"last": x}, [ids, mask], "text_encoder")


def inputs() -> tuple[Node, Node]:
    """Token ids and attention mask, [B, T] each."""
    return g.parameter("ids", [-1, -1], np.int64), g.parameter("mask", [-1, -1], np.int64)


def embedding(ids: Node, w: Weights, count: int, width: int) -> Node:
    """Rows of a table; only the rows taken are converted to float32."""
    rows = ops.gather(w.stored("weight", (count, width)), ids, g.index(0))
    return ops.convert(rows, "f32")


def positions(ids: Node, w: Weights, count: int, width: int) -> Node:
    """Learned embeddings of the positions 0 .. T-1, [T, width]."""
    return ops.convert(ops.gather(w.stored("weight", (count, width)), token_range(ids), g.index(0)), "f32")


def token_range(ids: Node) -> Node:
    """0 .. T-1 of ids [B, T]."""
    length = ops.gather(ops.shape_of(ids), g.index(1), g.index(0))
    return ops.range(g.index(0), length, g.index(1), "i64")


def causal_bias(ids: Node) -> Node:
    """0 where a token may look (itself and earlier), the lowest float elsewhere: [1, 1, T, T]."""
    at = token_range(ids)
    later = ops.less(g.reshape(at, (-1, 1)), g.reshape(at, (1, -1)))
    bias = ops.select(later, g.scalar(LOWEST / 2), g.scalar(0.0))
    return ops.unsqueeze(bias, ops.constant(np.array([0, 1], np.int64)))


def padding_bias(mask: Node) -> Node:
    """0 at real tokens, half the lowest float at padding: [B, 1, 1, T]. (Half, so that two biases add.)"""
    padded = ops.equal(mask, g.index(0))
    bias = ops.select(padded, g.scalar(LOWEST / 2), g.scalar(0.0))
    return ops.unsqueeze(bias, ops.constant(np.array([1, 2], np.int64)))
