"""Measures of a classifier on some images, all of them from its confusion matrix."""

from dataclasses import dataclass

import numpy as np

from domainbed_sage.results.records import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Scores:
    """Accuracies and F1 scores of C classes; NaN where there is nothing to measure.

    Attributes:
        confusion: images of class i that were taken for class j, [C, C].
    """

    confusion: IntArray

    @classmethod
    def of(cls, labels: IntArray, predicted: IntArray, num_classes: int) -> "Scores":
        """Count the pairs of a label [n] and a prediction [n], class indices below `num_classes`."""
        pairs = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
        return cls(pairs.reshape(num_classes, num_classes))

    @property
    def images(self) -> int:
        """Number of images."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """Share of the images whose class was predicted."""
        return float(np.trace(self.confusion) / self.images) if self.images else float("nan")

    @property
    def class_images(self) -> IntArray:
        """Images of each class [C]."""
        return self.confusion.sum(axis=1)

    @property
    def class_accuracy(self) -> FloatArray:
        """Accuracy on the images of each class, its recall [C]; NaN of a class without images."""
        return _ratio(np.diag(self.confusion), self.class_images)

    @property
    def class_f1(self) -> FloatArray:
        """F1 score of each class [C]: 2 TP / (2 TP + FP + FN); NaN of a class that neither occurs nor is predicted."""
        return _ratio(2 * np.diag(self.confusion), self.class_images + self.confusion.sum(axis=0))

    @property
    def macro_accuracy(self) -> float:
        """Mean of `class_accuracy` over the classes that occur."""
        return _mean(self.class_accuracy)

    @property
    def macro_f1(self) -> float:
        """Mean of `class_f1` over the classes that occur or are predicted, as scikit-learn counts them."""
        return _mean(self.class_f1)


def _ratio(part: IntArray, whole: IntArray) -> FloatArray:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def _mean(values: FloatArray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
