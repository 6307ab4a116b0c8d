"""Pictures of predictions and of tables of several tasks: colours by value, what is grey, and bytes that repeat."""

import io
from dataclasses import replace

import matplotlib.colors
import numpy as np
import pytest
from PIL import Image

from domainbed_sage.results import picture, scene_pictures, task_dots, task_tables
from domainbed_sage.results.scene_pictures import IGNORED, classes, depths, normals
from domainbed_sage.results.task_runs import TaskRun, TaskRuns

BETTER = {"test_seg_miou": True, "test_depth_abserr": False}


def test_classes():
    truth = np.array([[0, 2], [-1, 2]])
    found = classes(truth, truth)
    assert found[1, 0].tolist() == [IGNORED] * 3
    many = np.array([[0, 19, 20, 39]])
    first, last, *again = classes(many, many)[0].tolist()
    assert again == [first, last], "after twenty classes their colours return"
    assert found[0, 1].tolist() == found[1, 1].tolist() != found[0, 0].tolist()
    scores = np.array([[[9.0, 0], [0, 0]], [[0, 0], [0, 0]], [[0, 9.0], [9.0, 9.0]]])
    assert (classes(scores, truth)[truth >= 0] == found[truth >= 0]).all()
    assert (classes(scores, truth)[1, 0] == found[0, 1]).all(), "a prediction has no grey pixel"


def test_depths():
    truth = np.array([[[0.0, 2.0, 4.0]]])
    assert depths(truth, truth)[0, :, 0].tolist() == [IGNORED, 0.5, 1.0]
    assert depths(np.array([[[-1.0, 0.0, 8.0]]]), truth)[0, :, 0].tolist() == [0.0, 0.0, 1.0]
    nothing = np.zeros((1, 1, 2))
    assert depths(nothing, nothing)[0, :, 0].tolist() == [IGNORED] * 2


def test_normals():
    truth = np.array([[[1.0, 0.0]], [[0.0, 0.0]], [[-1.0, 0.0]]])
    assert normals(truth, truth)[0].tolist() == [[1.0, 0.5, 0.0], [IGNORED] * 3]


def drawn(rows=("LS", "MGDA"), words=("segmentation", "depth", "normal"), shape=(2, 4, 6)):
    n, height, width = shape
    random = np.random.default_rng(0)
    forms = {
        "segmentation": (random.integers(-1, 3, shape), random.random((n, 3, height, width))),
        "depth": (random.random((n, 1, height, width)), random.random((n, 1, height, width))),
        "normal": (random.random((n, 3, height, width)), random.random((n, 3, height, width))),
        "classification": (random.integers(0, 3, n), random.random((n, 3))),
    }
    truth = {word: forms[word][0] for word in words}
    outputs = {row: {word: forms[word][1] for word in words} for row in rows}
    images = random.random((n, 3, height, width)).astype(np.float32)
    return scene_pictures.draw("Rooms", range(n), images, {word: word for word in words}, truth, outputs)


def test_a_panel_for_each_row_and_task():
    (figure,) = drawn()
    samples = figure.subfigs
    assert len(samples) == 2
    panels = np.array(samples[0].axes).reshape(4, 3)
    assert [panel.get_title() for panel in panels[1]] == ["truth", "LS", "MGDA"]
    assert [len(panel.images) for panel in panels.flat] == [1, 0, 0] + [1] * 9


def test_many_rows_are_divided():
    titles = [
        panel.get_title()
        for figure in drawn([f"row{i}" for i in range(9)], shape=(1, 4, 6))
        for part in figure.subfigs
        for panel in part.axes
        if panel.get_title() not in ("", "sample 0")
    ]
    assert titles == ["truth", *(f"row{i}" for i in range(4)), "truth", *(f"row{i}" for i in range(4, 9))]


def test_how_many_panels_are_side_by_side(monkeypatch):
    monkeypatch.setattr(scene_pictures, "MOST", 3)
    for rows, blocks in ((2, 1), (3, 2)):
        figures = drawn([f"row{i}" for i in range(rows)], ["segmentation"], shape=(1, 4, 6))
        assert sum(len(figure.subfigs) for figure in figures) == blocks


def test_of_many_tasks_the_first_are_drawn():
    n, tasks = np.zeros((1, 4, 6), int), [f"task{i}" for i in range(7)]
    arrays, images = dict.fromkeys(tasks, n), np.zeros((1, 3, 4, 6), np.float32)
    (figure,) = scene_pictures.draw("X", [0], images, dict.fromkeys(tasks, "segmentation"), arrays, {"LS": arrays})
    assert len(figure.subfigs[0].axes) == 2 * (1 + scene_pictures.MOST_TASKS)


def test_every_sample_has_its_own_image_and_targets():
    images = np.stack([np.full((3, 2, 3), shade, np.float32) for shade in (0.25, 0.75)])
    images[:, 0, 0, 0] = 1.0  # the upper left corner is red
    depth, found = (np.stack([np.full((1, 2, 3), size) for size in sizes]) for sizes in ((1.0, 2.0), (0.5, 0.5)))
    (figure,) = scene_pictures.draw("X", [5, 9], images, {"d": "depth"}, {"d": depth}, {"LS": {"d": found}})
    for part, number, shade, ratio in zip(figure.subfigs, (5, 9), (0.25, 0.75), (0.5, 0.25), strict=True):
        image, _, truth, ours = part.axes
        assert image.get_title() == f"sample {number}"
        assert image.images[0].get_array()[0, 0].tolist() == [1.0, shade, shade]
        assert image.images[0].get_array()[1, 2].tolist() == [shade] * 3
        assert (truth.images[0].get_array()[0, 0, 0], ours.images[0].get_array()[0, 0, 0]) == (1.0, ratio)


def test_a_task_that_a_row_lacks_is_left_blank():
    n = np.zeros((1, 4, 6), int)
    both = {"a": "segmentation", "b": "segmentation"}
    images = np.zeros((1, 3, 4, 6), np.float32)
    (figure,) = scene_pictures.draw("X", [3], images, both, {"a": n, "b": n}, {"STL": {"b": n}})
    panels = np.array(figure.subfigs[0].axes).reshape(3, 2)
    assert [len(panel.images) for panel in panels[:, 1]] == [0, 0, 1]


def test_a_predicted_label_is_that_of_the_largest_score():
    scores, labels = np.array([[0.1, 0.2, 0.7], [0.5, 0.4, 0.1]]), np.array([2, 1])
    words, images = {"a": "classification"}, np.zeros((2, 3, 4, 6), np.float32)
    (figure,) = scene_pictures.draw("X", [0, 1], images, words, {"a": labels}, {"LS": {"a": scores}})
    shown = [(part.axes[3].texts[0].get_text(), part.axes[3].texts[0].get_color()) for part in figure.subfigs]
    assert shown == [("2", picture.INK), ("0", scene_pictures.WRONG)]


def test_labels_are_written_and_wrong_ones_are_red():
    (figure,) = drawn(["LS"], ["classification"])
    for n, part in enumerate(figure.subfigs):
        _, _, truth, found = part.axes
        colour = found.texts[0].get_color()
        assert (colour == scene_pictures.WRONG) == (truth.texts[0].get_text() != found.texts[0].get_text()), n
        assert truth.texts[0].get_color() == picture.INK


def test_bytes_repeat():
    first, second = (picture.written(drawn()[0]) for _ in range(2))
    assert first == second


def run(label, trial, seg, depth, only_task=""):
    values = {"test_seg_miou": seg, "test_depth_abserr": depth}
    values = {name: value for name, value in values.items() if only_task in name}
    trivial = {"test_seg_miou": 41.0, "test_depth_abserr": 9.0}
    better = {name: BETTER[name] for name in values}
    return TaskRun(f"{label}{trial}{only_task}", "Rooms", label, trial, only_task, values, trivial, better, 1, "few")


@pytest.fixture
def panels():
    runs = [run("LS", 0, 40.0, 2.0), run("LS", 1, 44.0, 1.0), run("MGDA", 0, 39.0, 1.0)]
    runs += [run("seg", 0, 42.0, 0, "seg"), run("depth", 0, 0, 1.5, "depth")]
    tables = task_tables.build(TaskRuns(tuple(runs)))
    (figure,) = task_dots.draw(tables, runs)
    return {panel.get_title().rstrip(" →←"): panel for panel in figure.subfigs[0].axes if panel.get_title()}


def test_dots_are_trials_and_strokes_their_means(panels):
    assert list(panels) == ["seg miou", "depth abserr", task_tables.DELTA]
    lines = panels["seg miou"].lines
    dots = {int(line.get_ydata()[0]): sorted(line.get_xdata()) for line in lines if line.get_marker() == "o"}
    strokes = {int(line.get_ydata()[0]): float(line.get_xdata()[0]) for line in lines if line.get_marker() == "|"}
    names = [label.get_text() for label in panels["seg miou"].get_yticklabels()]
    assert names == ["LS", "MGDA", "STL"]
    assert panels["seg miou"].get_ylim() == (2.5, -0.5), "the first row is above"
    assert dots == {0: [40.0, 44.0], 1: [39.0], 2: [42.0]}
    assert strokes == {0: 42.0, 1: 39.0, 2: 42.0}


def test_the_trivial_predictor_is_drawn_where_it_is_near(panels):
    """Its 41 lies between the rows; its depth of 9 would squeeze them."""
    marked = {
        name: {line.get_linestyle(): float(line.get_xdata()[0]) for line in panel.lines if line.get_marker() == "None"}
        for name, panel in panels.items()
    }
    assert marked["seg miou"] == {"--": 42.0, ":": 41.0}
    assert marked["depth abserr"] == {"--": 1.5}
    assert panels["seg miou"].get_xlim() == pytest.approx((38.75, 44.25)), "the dots, and a twentieth beside them"
    assert panels["depth abserr"].get_xlim()[1] < 9
    (footer,) = (
        text.get_text() for text in panels["seg miou"].get_figure(root=True).texts if "dots" in text.get_text()
    )
    assert footer.endswith("dotted line: Trivial, where it is near")


def test_metrics_that_fill_no_whole_line_leave_no_empty_panel():
    """Of two datasets, each with dots of its own: of seven metrics and one."""
    seven = [replace(run("LS", 0, 1.0, 1.0), metrics=dict.fromkeys("abcdefg", 1.0), trivial={})]
    seven[0] = replace(seven[0], higher_is_better=dict.fromkeys("abcdefg", True))
    one = [
        replace(run("LS", 0, 5.0, 1.0), dataset="NYUv2", metrics={"a": 5.0}, trivial={}, higher_is_better={"a": True})
    ]
    runs = [*seven, *one]
    (figure,) = task_dots.draw(task_tables.build(TaskRuns(tuple(runs))), runs)
    shown = [[panel for panel in part.axes if panel.axison] for part in figure.subfigs]
    assert [len(panels) for panels in shown] == [7, 1]
    assert [[list(line.get_xdata()) for line in panels[0].lines] for panels in shown] == [[[1.0]] * 2, [[5.0]] * 2]


def test_no_letter_is_cut():
    """The outermost pixels are white: letters have the widths in the file for which the picture was laid out."""
    runs = [run(f"SAGE-FairGrad-{'w' * wide}", 0, 40.0, 2.0) for wide in range(19)]
    (figure,) = task_dots.draw(task_tables.build(TaskRuns(tuple(runs))), runs)
    pixels = np.asarray(Image.open(io.BytesIO(picture.written(figure))).convert("L"))
    assert {int(side.min()) for side in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])} == {255}


def test_arrows_point_to_what_is_better(panels):
    ends = {name: panel.get_title()[-1] for name, panel in panels.items()}
    assert ends == {"seg miou": "→", "depth abserr": "←", task_tables.DELTA: "←"}


def test_rows_have_their_own_colours(panels):
    colours = [line.get_color() for line in panels["seg miou"].lines if line.get_marker() == "|"]
    assert len({matplotlib.colors.to_hex(colour) for colour in colours}) == 3
