"""Pictures of what networks of several tasks predict, beside what is true."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from domainbed_sage.results.picture import FAINT, INK, WIDTH, Block, pages, shortened, strips

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

MOST = 8  # panels side by side, with the truth
LARGEST = 1.2  # inches, the width of a panel
MOST_TASKS = 6  # of those of a sample
WRONG = "#851306"
IGNORED = 0.85  # grey of pixels that are not known
TRUTH = "truth"

Arrays = Mapping[str, np.ndarray]  # of each task, in the order of the samples


def draw(
    dataset: str,
    numbers: Sequence[int],
    images: np.ndarray,
    words: Mapping[str, str],
    truth: Arrays,
    rows: Mapping[str, Arrays],
) -> "list[Figure]":
    """One block for each sample: its tasks one below the other, the truth and each row of the table side by side.

    Classes have colours, depths go from black to white over the range of the truth, and the three components of normals
    are red, green and blue. Pixels whose truth is not known are grey in the truth.

    Args:
        dataset: its name.
        numbers: of the samples.
        images: float32 [n, 3, H, W] in [0, 1].
        words: of each task what it predicts: ``segmentation``, ``depth``, ``normal`` or ``classification``.
        truth: the targets of each task.
        rows: predictions of the tasks, by row of the table.
    """
    tasks = list(words)[:MOST_TASKS]
    shares = list(strips(len(rows), MOST - 1))
    panel = min(WIDTH / (1 + max(map(len, shares))), LARGEST) * images.shape[2] / images.shape[3]
    blocks = []
    for n, number in enumerate(numbers):
        for share in shares:
            shown = {TRUTH: truth, **{list(rows)[i]: rows[list(rows)[i]] for i in share}}
            one = {row: {task: arrays[task][n] for task in tasks if task in arrays} for row, arrays in shown.items()}
            height = 0.35 + (panel + 0.05) * (1 + len(tasks))
            blocks.append(Block(height, partial(_sample, number, images[n], {t: words[t] for t in tasks}, one)))
    return pages(blocks, f"{dataset}: predictions for test samples {', '.join(map(str, numbers))}")


def _sample(
    number: int, image: np.ndarray, words: Mapping[str, str], rows: Mapping[str, Arrays], part: "SubFigure"
) -> None:
    panels = part.subplots(1 + len(words), len(rows), squeeze=False)
    for panel in panels.flat:
        panel.set_axis_off()
    panels[0, 0].imshow(np.moveaxis(image, 0, -1), interpolation="nearest")
    panels[0, 0].set_title(f"sample {number}", fontsize=6, pad=2, color=FAINT)
    for column, (row, arrays) in enumerate(rows.items()):
        for panel, (task, word) in zip(panels[1:, column], words.items(), strict=True):
            if task in arrays:
                _panel(panel, word, arrays[task], rows[TRUTH][task])
        panels[1, column].set_title(shortened(row), fontsize=6, pad=2, color=INK)


def _panel(panel: "Axes", word: str, array: np.ndarray, truth: np.ndarray) -> None:
    if word == "classification":
        label = int(array) if array.ndim == 0 else int(array.argmax())
        colour = INK if label == int(truth) else WRONG
        panel.text(0.5, 0.5, str(label), ha="center", va="center", fontsize=8, color=colour, transform=panel.transAxes)
        return
    panel.imshow(COLOURED[word](array, truth), interpolation="nearest")


def classes(array: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Colours [H, W, 3] of class indices [H, W], -1 unknown, or of the largest of scores [C, H, W]."""
    import matplotlib

    del truth
    labels = array if array.ndim == 2 else array.argmax(0)
    palette = np.asarray(matplotlib.colormaps["tab20"].colors)  # type: ignore[attr-defined]
    return np.where((labels >= 0)[..., None], palette[labels % len(palette)], IGNORED)


def depths(array: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Grey [H, W, 3] of depths [1, H, W], black at 0 and white at the largest true one."""
    known = (array[0] > 0) | (array is not truth)
    grey = np.clip(array[0] / max(float(truth.max()), 1e-12), 0, 1)
    return np.repeat(np.where(known, grey, IGNORED)[..., None], 3, -1)


def normals(array: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Colours [H, W, 3] of unit vectors [3, H, W]; (0, 0, 0) is unknown."""
    del truth
    vectors = np.moveaxis(array, 0, -1)
    return np.where(vectors.any(-1, keepdims=True), np.clip((vectors + 1) / 2, 0, 1), IGNORED)


COLOURED = {"segmentation": classes, "depth": depths, "normal": normals}
