"""Folders of runs on several tasks, as training leaves them."""

import json

BETTER = {
    "test_seg_miou": True,
    "test_seg_miou_present": True,
    "test_depth_abserr": False,
    "test_depth_abserr_pixels": False,
}


def write(
    results,
    name,
    values,
    *,
    algorithm="ERM",
    solver="LS",
    trial=0,
    only_task="",
    done=True,
    better=BETTER,
    trivial=None,
    dataset="Rooms",
):
    """A run whose metrics in each evaluation are these, by key."""
    folder = results / name
    folder.mkdir(parents=True)
    args = {"task": "multi_task", "dataset": dataset, "algorithm": algorithm, "trial_seed": trial}
    args |= {"test_envs": [1], "hparams_seed": 0}
    about = {
        "args": args,
        "hparams": {"solver": solver, "only_task": only_task},
        "data": {"variant": "5 train, 3 test"},
        "higher_is_better": {key: up for key, up in better.items() if key in values},
    }
    about |= {"trivial": trivial} if trivial else {}
    evaluations = max(map(len, values.values()))
    lines = [
        json.dumps({"step": t, **{key: series[t] for key, series in values.items()}, **about})
        for t in range(evaluations)
    ]
    (folder / "results.jsonl").write_text("\n".join(lines) + "\n")
    if done:
        (folder / "done").write_text("done")


def metrics(seg, depth, n=1):
    return {
        "test_seg_miou": [seg] * n,
        "test_seg_miou_present": [99.0] * n,
        "test_depth_abserr": [depth] * n,
        "test_depth_abserr_pixels": [99.0] * n,
    }
