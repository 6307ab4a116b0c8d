"""Small hand-made results folders."""

import json


def records(
    in_acc, out_acc, *, dataset="PACS", algorithm="ERM", test_envs=(0,), trial=0, hparams_seed=0, hparams=None, **more
):
    """JSON records of one run: `in_acc` and `out_acc` are [evaluations][environments], steps 0, 10, 20, ..."""
    args = {
        "dataset": dataset,
        "algorithm": algorithm,
        "test_envs": list(test_envs),
        "trial_seed": trial,
        "hparams_seed": hparams_seed,
    }
    lines = []
    for at, (ins, outs) in enumerate(zip(in_acc, out_acc, strict=True)):
        accuracies = {f"env{i}_in_acc": acc for i, acc in enumerate(ins)}
        accuracies |= {f"env{i}_out_acc": acc for i, acc in enumerate(outs)}
        hp = {"lr": 10.0**-hparams_seed} if hparams is None else hparams
        lines.append({"args": args, "hparams": hp, "step": 10 * at, "loss": 1.0 / (1 + at), **accuracies, **more})
    return lines


def write(folder, lines, *, name=None, done=True):
    """Write one run directory below `folder`; returns it."""
    args = lines[0]["args"]
    parts = (args["dataset"], args["algorithm"], *args["test_envs"], f"t{args['trial_seed']}h{args['hparams_seed']}")
    run = folder / (name or "-".join(map(str, parts)))
    run.mkdir(parents=True)
    (run / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if done:
        (run / "done").write_text("done")
    return run


def write_flat(folder, accuracies, **args):
    """One single-evaluation run per held-out environment; `accuracies`: its test accuracy, or None for no run."""
    n = len(accuracies)
    for env, acc in enumerate(accuracies):
        if acc is not None:
            ins = [acc if i == env else 0.9 for i in range(n)]
            write(folder, records([ins], [[0.5] * n], test_envs=[env], **args))
