"""A U-Net for scenes, and LeNet for two digits: shapes, what they share, places, and images they cannot take."""

import pytest
import torch
from torch.nn import functional as F

from domainbed_sage.core.errors import UserError
from domainbed_sage.models.mtan_segnet import mtan_segnet
from domainbed_sage.models.scene_unet import scene_unet
from domainbed_sage.models.shared_trunk import lenet_heads, resnet_heads
from domainbed_sage.models.task_models import task_models
from domainbed_sage.tasks import Classification, Depth, Normals, Segmentation

SCENE = (Segmentation(4), Depth(), Normals())
DIGITS = (Classification("left", 10), Classification("right", 10))


@pytest.mark.parametrize(
    ("model", "shape"),
    [(scene_unet(SCENE, width=2), (3, 32, 48)), (lenet_heads(DIGITS), (3, 28, 28))],
    ids=["unet", "lenet"],
)
def test_outputs_and_what_is_shared(model, shape):
    tasks = SCENE if shape[1] == 32 else DIGITS
    with torch.no_grad():
        found = model.eval()(torch.randn(2, *shape))
    space = shape[1:] if tasks is SCENE else ()
    assert [tuple(y.shape) for y in found] == [(2, task.channels, *space) for task in tasks]
    assert model.shared == model.code_shared
    for k, head in enumerate(model.pred):
        own = [p for p, has in zip(model.parameters(), model.private(k), strict=True) if has]
        assert [id(p) for p in own] == [id(p) for p in head.parameters()]


def test_default_sizes():
    count = lambda model: sum(p.numel() for p in model.parameters())  # noqa: E731
    assert count(scene_unet((Segmentation(13), Depth(), Normals()))) == 492_161
    trunk = (3 * 25 + 1) * 10 + (10 * 25 + 1) * 20 + (320 + 1) * 50
    assert count(lenet_heads(DIGITS)) == trunk + 2 * (50 + 1) * 10


def test_it_sees_where_a_pixel_is():
    """In an image of one colour, far from the edges, the first level's features depend on the row and on the column."""
    model = scene_unet((Depth(),), width=2).eval()
    with torch.no_grad():
        model.down[0][0].weight.fill_(0)
        model.down[0][0].weight[0, 3] = model.down[0][0].weight[1, 4] = 1
        features = []
        model.down[0][0].register_forward_hook(lambda _, __, y: features.append(y[0] / 9))
        model(torch.full((1, 3, 32, 48), 0.5))
    (rows, columns), i, j = features[0], torch.arange(1, 31), torch.arange(1, 47)
    assert torch.allclose(rows[1:-1, 1:-1], (2 * i / 31 - 1)[:, None].expand(30, 46), atol=1e-6)
    assert torch.allclose(columns[1:-1, 1:-1], (2 * j / 47 - 1).expand(30, 46), atol=1e-6)


def test_an_image_that_cannot_be_halved():
    with pytest.raises(UserError, match=r"multiples of 16\. Found 40 x 32"):
        scene_unet(SCENE, width=1)(torch.zeros(1, 3, 40, 32))
    with pytest.raises(UserError, match=r"multiples of 16\. Found 32 x 40"):
        scene_unet(SCENE, width=1)(torch.zeros(1, 3, 32, 40))


def test_an_image_that_lenet_cannot_take():
    for size, found in (((36, 28), "6 x 4"), ((28, 36), "4 x 6")):
        with pytest.raises(
            UserError, match=rf"28 x 28 pixels\. Found features of {found} in the place of 4 x 4: choose resnet"
        ):
            lenet_heads(DIGITS)(torch.zeros(1, 3, *size))


def test_lenet_is_its_definition():
    """Also for images of one channel."""
    model, x = lenet_heads(DIGITS, channels=1).double(), torch.rand(2, 1, 28, 28, dtype=torch.float64)
    first, second, linear = (module for module in model.trunk.children() if hasattr(module, "weight"))
    z = F.relu(F.max_pool2d(F.conv2d(x, first.weight, first.bias), 2))
    z = F.relu(F.max_pool2d(F.conv2d(z, second.weight, second.bias), 2))
    z = F.relu(F.linear(z.flatten(1), linear.weight, linear.bias))
    for found, head in zip(model(x), model.pred, strict=True):
        torch.testing.assert_close(found, F.linear(z, head.weight, head.bias))
    assert model.shared == model.code_shared


def test_unet_is_its_definition():
    model, x = scene_unet((Depth(),), width=2).double().eval(), torch.rand(2, 3, 32, 48, dtype=torch.float64)

    def twice(convs, z):
        for conv, norm in ((convs[0], convs[1]), (convs[3], convs[4])):
            z = F.relu(F.conv2d(z, conv.weight, padding=1) / (1 + norm.eps) ** 0.5)
        return z

    rows, columns = (torch.linspace(-1, 1, n, dtype=torch.float64) for n in (32, 48))
    places = torch.stack([rows[:, None].expand(32, 48), columns.expand(32, 48)]).expand(2, -1, -1, -1)
    levels = [twice(model.down[0], torch.cat([x, places], 1))]
    for convs in model.down[1:]:
        levels.append(twice(convs, F.max_pool2d(levels[-1], 2)))
    z = levels.pop()
    for convs in model.up[::-1]:
        larger = F.interpolate(z, scale_factor=2, mode="bilinear", align_corners=False)
        z = twice(convs, torch.cat([levels.pop(), larger], 1))
    expected = F.conv2d(z, model.pred[0].weight, model.pred[0].bias)
    torch.testing.assert_close(model(x)[0], expected, rtol=1e-10, atol=1e-12)


def test_networks_by_name():
    assert {name: spec.build for name, spec in task_models.items()} == {
        "mtan_segnet": mtan_segnet,
        "resnet_heads": resnet_heads,
        "scene_unet": scene_unet,
        "lenet_heads": lenet_heads,
    }
