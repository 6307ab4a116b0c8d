"""CLIPs to test with: a tiny one with OpenAI's names of tensors, weight files of it, and `transformers`' own CLIP."""

import warnings

import open_clip
import torch
from torch import nn
from transformers import CLIPConfig, CLIPModel

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}
SINGLE = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "logit_scale": "logit_scale",
}
NORMS = {
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "ln_final": "text_model.final_layer_norm",
}
LAYERS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


def random_state(config, seed=0):
    """Random tensors of a CLIP, none of them constant, every value representable in half precision."""
    torch.manual_seed(seed)
    state = open_clip.CLIP(**config).state_dict()
    state = {name: (value + 0.02 * torch.randn_like(value)).half().float() for name, value in state.items()}
    return state | {"logit_scale": torch.tensor(100.0).log().half().float()}


def write_archive(state, path):
    """Save as OpenAI does: a TorchScript archive, matrices in half precision, three constants among the tensors."""
    root = nn.Module()
    constants = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
    for name, value in (state | {key: torch.tensor(number) for key, number in constants.items()}).items():
        *folders, leaf = name.split(".")
        module = root
        for folder in folders:
            if not hasattr(module, folder):
                module.add_module(folder, nn.Module())
            module = getattr(module, folder)
        module.register_buffer(leaf, value.half() if value.ndim >= 2 else value)
    root.forward = lambda x: x
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.save(torch.jit.trace(root, torch.zeros(1), check_trace=False), path)
    return path


def write_checkpoint(state, path, wrap=False):
    """Save as open_clip does; `wrap`: as its training script does, which leaves more in the file."""
    wrapped = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}
    torch.save(wrapped if wrap else state, path)
    return path


def transformers_clip(state):
    """`transformers`' CLIP ViT-B/16 with open_clip's tensors, translated by name; its QKV are three matrices."""
    config = CLIPConfig(text_config={"eos_token_id": 49407}, vision_config={"patch_size": 16}, projection_dim=512)
    assert config.vision_config.hidden_act == config.text_config.hidden_act == "quick_gelu"
    with torch.device("meta"):
        model = CLIPModel(config)
    for module in model.modules():  # buffers that are not saved
        if "position_ids" in module._buffers:
            module.position_ids = torch.arange(module.position_ids.shape[1])[None]
    model.load_state_dict(dict(pair for name, value in state.items() for pair in _translated(name, value)), assign=True)
    return model.eval()


def _translated(name, value):
    module, _, leaf = name.rpartition(".")
    if name in SINGLE:
        return [(SINGLE[name], value)]
    if name in ("visual.proj", "text_projection"):
        return [("visual_projection.weight" if module else "text_projection.weight", value.T)]
    if module in NORMS:
        return [(f"{NORMS[module]}.{leaf}", value)]
    tower, _, rest = name.partition("transformer.resblocks.")
    number, _, rest = rest.partition(".")
    layer = f"{'vision_model' if tower else 'text_model'}.encoder.layers.{number}"
    if rest.startswith("attn.in_proj_"):
        kind = rest.removeprefix("attn.in_proj_")
        return [(f"{layer}.self_attn.{q}_proj.{kind}", part) for q, part in zip("qkv", value.chunk(3), strict=True)]
    return [(f"{layer}.{LAYERS[rest.rpartition('.')[0]]}.{leaf}", value)]
