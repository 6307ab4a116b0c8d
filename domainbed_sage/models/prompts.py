"""Visual prompt tuning: learned tokens beside the patches of a frozen vision transformer."""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeAlias

import torch
from pydantic import Field
from torch import Tensor, nn

from domainbed_sage.core.errors import UserError
from domainbed_sage.core.hparams import Choice
from domainbed_sage.models.base import Model
from domainbed_sage.models.registry import models, register

PromptDepth: TypeAlias = Literal["shallow", "deep"]


class Prompts(nn.Module):
    """Learned tokens [depth, P, D] that pass through the blocks of a transformer beside its own.

    They enter before the first block, behind the patches. ``deep``: before every further block new ones take the place
    of what the last P tokens became. They leave after the last block, so that the transformer pools its own tokens.

    Source: Jia et al., ECCV 2022, Eq. 4 (shallow) and 5 (deep); values start in U(-v, v), v = √(6 / (3 p² + D)) for
    patches of p x p pixels.

    Differences from the paper: the tokens stand at the end instead of behind the class token; attention does not know.
    In CLIP, whose tokens are normalised before the first block, prompts enter after that.
    """

    def __init__(self, blocks: Sequence[nn.Module], width: int, patch: int, length: int, depth: PromptDepth) -> None:
        super().__init__()
        v = math.sqrt(6 / (3 * patch**2 + width))
        self.tokens = nn.Parameter(torch.empty(len(blocks) if depth == "deep" else 1, length, width).uniform_(-v, v))
        for i, block in enumerate(blocks):
            block.register_forward_pre_hook(self._Enter(self, i))
        blocks[-1].register_forward_hook(self._leave)

    class _Enter:
        """What happens before block i."""

        def __init__(self, prompts: "Prompts", i: int) -> None:
            self.prompts, self.i = prompts, i

        def __call__(self, block: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            del block
            (x, *rest), tokens = inputs, self.prompts.tokens
            if self.i >= len(tokens):
                return inputs
            own = x if self.i == 0 else x[:, : -tokens.shape[1]]
            return torch.cat([own, tokens[self.i].to(x.dtype).expand(len(x), -1, -1)], dim=1), *rest

    def _leave(self, block: nn.Module, inputs: tuple[Tensor, ...], x: Tensor) -> Tensor:
        del block, inputs
        return x[:, : -self.tokens.shape[1]]


def add_prompts(model: Model, name: str, length: int, depth: PromptDepth) -> Model:
    """Freeze the featurizer of a vision transformer, and give it prompts that are trained with the classifier.

    Raises:
        UserError: the featurizer has no transformer blocks that pass on tokens [N, L, D].
    """
    found = [m for n, m in model.featurizer.named_modules() if n.rpartition(".")[2] in ("blocks", "resblocks")]
    blocks = [block for sequence in found[:1] for block in sequence.children()]
    norms = [m for block in blocks[:1] for m in block.children() if isinstance(m, nn.LayerNorm)]
    patch = next((m for m in model.featurizer.modules() if isinstance(m, nn.Conv2d)), None)
    if not norms or patch is None or not all(hasattr(block, "attn") for block in blocks):
        raise UserError(
            f"{name} has no tokens to put prompts beside: prompts need a vision transformer, whose blocks attend to "
            f"patches. Choose such a backbone, e.g. vit_base_patch16_224, or train the model without prompts."
        )
    model.featurizer.requires_grad_(False)
    prompts = Prompts(blocks, norms[0].normalized_shape[0], patch.kernel_size[0], length, depth)
    model.featurizer.add_module("prompts", _Beside(prompts))
    return model


class _Beside(nn.Module):
    """A place for the prompts among the featurizer's modules, which lets features through."""

    def __init__(self, prompts: Prompts) -> None:
        super().__init__()
        self.prompts = prompts

    def forward(self, x: Tensor) -> Tensor:
        """The features, as they are."""
        return x


def with_prompts(name: str, base: str, **recommended: Any) -> None:
    """Register `base`'s models with prompts under `name`; hyperparameters are those of `base` and two more."""
    spec = models[base]

    def build(
        classes: Sequence[str],
        *,
        prompt_length: Annotated[int, Field(ge=1), Choice(1, 5, 10, 50)] = 10,
        prompt_depth: PromptDepth = "deep",
        **hparams: Any,
    ) -> Model:
        return add_prompts(spec.build(classes, **hparams), hparams.get("backbone", base), prompt_length, prompt_depth)

    _declare_as(build, spec.build)
    build.__doc__ = _DOCS.format(first=(inspect.getdoc(spec.build) or "").splitlines()[0], base=base)
    register(name, require=spec.require, without_weights=spec.without_weights, **{**spec.recommended, **recommended})(
        build
    )


def _declare_as(build: Callable[..., Model], base: Callable[..., Model]) -> None:
    own, theirs = inspect.signature(build), inspect.signature(base)
    kept = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
    more = [p for p in theirs.parameters.values() if p.kind is p.KEYWORD_ONLY]
    build.__signature__ = own.replace(parameters=[*kept, *more])  # type: ignore[attr-defined]
    build.__annotations__ = {**base.__annotations__, **build.__annotations__}


_DOCS = """{first} Frozen, with visual prompts that are trained.

Prompts and classifier are trained, everything else stays as it is loaded; see `Prompts`.

Args:
    classes: names of the C classes.
    prompt_length: prompts P in every layer that has some.
    prompt_depth: ``shallow``: prompts enter before the first block; ``deep``: new ones before every block.

The other hyperparameters are those of {base}.
"""

with_prompts("clip_vit_b16_vpt", "clip_vit_b16", lr=1e-3)
with_prompts("timm_vpt", "timm", lr=1e-3, backbone="vit_base_patch16_224")
