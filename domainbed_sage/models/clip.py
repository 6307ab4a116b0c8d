"""CLIP ViT-B/16 through open_clip: image tower, weights, and a classifier made from the names of the classes."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import open_clip
import torch
import torch.nn.functional as F
from open_clip.constants import IMAGENET_MEAN, IMAGENET_STD, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from pydantic import Field
from torch import Tensor, nn

from domainbed_sage.core import strict_json
from domainbed_sage.core.errors import UserError
from domainbed_sage.core.hparams import Power
from domainbed_sage.models.base import ImageSpec, Model
from domainbed_sage.models.checkpoints import State, check_tensors, is_archive, read, sha256_of
from domainbed_sage.models.fitting import fitted
from domainbed_sage.models.registry import Provenance, register
from domainbed_sage.models.weights import CLIP, clip_names, find, published, published_sha256

Activation: TypeAlias = Literal["auto", "quickgelu", "gelu"]

IMAGES = {
    "clip": ImageSpec(224, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD),
    "imagenet": ImageSpec(224, IMAGENET_MEAN, IMAGENET_STD),
}
PROMPTS_AT_ONCE = 64
CODE = re.compile(r"(n|c|id|class|label|category)?[\W_]*\d+", re.IGNORECASE)  # 7, n01440764, class_007
TOWER = "visual."

log = logging.getLogger(__name__)


class L2Normalize(nn.Module):
    """Features [N, D] -> features of length 1 [N, D]."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.normalize(x, dim=-1)


class ScaledLinear(nn.Linear):
    """Logits s f Wᵀ + b [N, C] of features f [N, D], with a constant scale s."""

    def __init__(self, in_features: int, out_features: int, scale: float, bias: bool) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.linear(self.scale * x, self.weight, self.bias)


def build_clip(quick_gelu: bool) -> Any:
    """open_clip's CLIP ViT-B/16, both towers, with random weights (149,620,737 parameters)."""
    return open_clip.CLIP(**open_clip.get_model_config(CLIP), quick_gelu=quick_gelu)


def expected_tensors() -> dict[str, torch.Size]:
    """Names and shapes of the tensors of a CLIP ViT-B/16 weight file, in open_clip's and OpenAI's naming."""
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in build_clip(quick_gelu=True).state_dict().items()}


def trained_activation(weights: str, path: Path) -> Literal["quickgelu", "gelu"] | None:
    """The activation that weights were trained with; None for a file that is not known.

    Known are open_clip's names, files whose sha256 is published, and OpenAI's TorchScript archives.
    """
    name = weights if published(weights) else next((n for n in clip_names() if _is_published(n, path)), None)
    if name:
        return "quickgelu" if published(name).get("quick_gelu") else "gelu"
    return "quickgelu" if is_archive(path) else None


def resolve(weights: str, activation: Activation) -> tuple[Path | None, Literal["quickgelu", "gelu"]]:
    """File of the weights (None for ``none``) and the activation to use with them.

    Raises:
        UserError: the file is missing or damaged; the activation is not the one the weights were trained with, or it
            is ``auto`` and that is unknown.
    """
    if weights == "none":
        return None, "quickgelu" if activation == "auto" else activation
    path = find(weights)
    trained = trained_activation(weights, path)
    if trained is None and activation == "auto":
        raise UserError(
            f"It is not known with which activation {path} was trained, and a wrong one silently costs accuracy. Set "
            f'the hyperparameter {{"activation": "quickgelu"}} (OpenAI, MetaCLIP, DFN) or {{"activation": "gelu"}} '
            f"(LAION, DataComp)."
        )
    if trained and activation not in ("auto", trained):
        raise UserError(f"{weights!r} was trained with {trained}. Found activation {activation!r}. Leave it at 'auto'.")
    return path, trained or ("gelu" if activation == "gelu" else "quickgelu")


def load_clip(weights: str, activation: Activation, *, text: bool = True) -> Any:
    """Both towers of CLIP ViT-B/16 with the given weights, float32, in evaluation mode.

    Args:
        weights: see `clip_vit_b16`.
        activation: see `clip_vit_b16`.
        text: whether the text tower is needed; if not, it stays random, and the file may lack it.

    Raises:
        UserError: see `resolve`; or the file holds other tensors, which are listed.
    """
    path, used = resolve(weights, activation)
    clip = build_clip(quick_gelu=used == "quickgelu")
    if path:
        state, expected = read(path), expected_tensors()
        tower = {name.removeprefix(TOWER): size for name, size in expected.items() if name.startswith(TOWER)}
        found = fitted(state, expected if text else tower, path)
        if "logit_scale" in found and found["logit_scale"].numel() == 1:
            found["logit_scale"] = found["logit_scale"].reshape(())
        if text and found is state and fitted(state, tower, path) is not state:
            _need_text(state, path)
        check_tensors(found, expected if text else tower, f"{path}, read as CLIP {CLIP}")
        (clip if text else clip.visual).load_state_dict(found)
    return clip.eval()


def _need_text(state: State, path: Path) -> None:
    """Refuse a file with the image tower alone, as a trained model's, with a clearer message than 150 missing names."""
    if not any(name.endswith("token_embedding.weight") for name in state):
        raise UserError(
            f"{path} holds CLIP's image tower without its text tower, which makes the zero-shot head. Set the "
            f'hyperparameter {{"head": "linear"}}, or give the weights of both.'
        )


@torch.no_grad()
def text_features(clip: Any, classes: Sequence[str], template: str) -> Tensor:
    """L2-normalised text features of the classes' prompts [C, 512].

    The name of a class is that of its folder, or the dataset's readable one, with ``_`` as a space; the tokenizer,
    OpenAI's, ignores case. Names that look like codes cause a warning.
    """
    prompts = [template.replace("{}", name.replace("_", " ")) for name in classes]
    _warn_of_codes(classes, prompts)
    chunks = open_clip.get_tokenizer(CLIP)(prompts).split(PROMPTS_AT_ONCE)
    return torch.cat([clip.encode_text(tokens, normalize=True) for tokens in chunks])


def _require(hparams: Mapping[str, Any]) -> Provenance:
    _check_template(hparams["template"])
    path, used = resolve(hparams["weights"], hparams["activation"])
    return {"name": hparams["weights"], "sha256": sha256_of(path) if path else None, "activation": used}


@register(
    "clip_vit_b16",
    require=_require,
    without_weights={"weights": "none"},
    search={"lr": Power(10, -7, -5)},  # a decade to either side of the recommended one
    lr=1e-6,
    batch_size=12,
)
def clip_vit_b16(
    classes: Sequence[str],
    *,
    weights: str = "openai",
    activation: Activation = "auto",
    head: Literal["zero_shot", "linear"] = "zero_shot",
    train_head: bool = True,
    template: str = "a photo of a {}.",
    logit_scale: Annotated[float, Field(gt=0)] = 100.0,
    normalize_features: bool = True,
    normalization: Literal["clip", "imagenet"] = "clip",
) -> Model:
    """Build CLIP ViT-B/16's image tower (86,192,640 parameters, 152 tensors, QKV fused) with a classifier.

    Logits are s f Wᵀ + b for projected features f [N, 512]. Only the image tower and the classifier remain in memory.

    Args:
        classes: names of the C classes.
        weights: a name that ``domainbed-sage weights list`` shows, a file in the weights' folder or the path of one
            (see `weights.find`), or ``none`` for random ones.
        activation: ``auto``: the one the weights were trained with; has to be stated for files of unknown origin.
        head: ``zero_shot``: the rows of W start as the L2-normalised text features of the classes, without bias b; from
            there W is a plain matrix, not renormalised. ``linear``: a random linear layer with bias.
        train_head: train the classifier; False keeps W as it starts (CLIPood's choice).
        template: prompt for the text features; ``{}`` stands for the name of the class.
        logit_scale: the constant s.
        normalize_features: divide f by its length. The linear classifier of MIRO and DomainBed: ``linear``, False, and
            a scale of 1.
        normalization: mean and standard deviation of the images: CLIP's, or ImageNet's as in MIRO.

    Differences from the paper:
        SAGE does not say how the classifier is initialised. The zero-shot one explains its CLIP results, which are
        within 0.7 points of CLIPood's; a random one is known to fall far short of them. Learning rate and batch size
        are the paper's (Appendix E).

    Raises:
        UserError: the weights are missing, damaged, or of another model.
    """
    _check_template(template)
    clip = load_clip(weights, activation, text=head == "zero_shot")
    tower = clip.visual
    classifier = ScaledLinear(tower.output_dim, len(classes), logit_scale, bias=head == "linear")
    if head == "zero_shot":
        with torch.no_grad():
            classifier.weight.copy_(text_features(clip, classes, template))
    classifier.requires_grad_(train_head)
    featurizer = nn.Sequential(tower, L2Normalize() if normalize_features else nn.Identity())
    return Model(featurizer, classifier, IMAGES[normalization], class_features=head == "zero_shot")


def _is_published(name: str, path: Path) -> bool:
    expected = published_sha256(name)
    return bool(expected) and sha256_of(path).startswith(expected)


def _warn_of_codes(classes: Sequence[str], prompts: Sequence[str]) -> None:
    """Warn that text features of numbers and WordNet ids mean nothing; such a run is valid all the same."""
    codes = [(name, prompt) for name, prompt in zip(classes, prompts, strict=True) if CODE.fullmatch(name)]
    if codes:
        log.warning(
            "%d of %d class names look like codes, and the classifier starts from prompts such as %r. Give readable "
            "ones in a file CLASSES.json in the dataset's folder, an object from class folders to names: {%s: …}.",
            *(len(codes), len(classes), codes[0][1], strict_json.dumps(codes[0][0])),
        )


def _check_template(template: str) -> None:
    if template.count("{}") != 1:
        raise UserError(f"template should hold one {{}} for the name of the class. Found {template!r}.")
