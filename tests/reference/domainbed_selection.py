"""DomainBed's model selection and averaging, restated literally in plain Python over lists of JSON records.

Slow on purpose: every rule is one loop. The package is compared with this on random sweeps.
"""

import math


def mean(numbers):
    return sum(numbers) / len(numbers)


def n_environments(record):
    n = 0
    while f"env{n}_out_acc" in record:
        n += 1
    return n


def single(records):
    return [r for r in records if len(r["args"]["test_envs"]) == 1]


def training_domain_run(records):
    """The first record with the highest mean source out-split accuracy: (val, test)."""
    best = None
    for r in single(records):
        test_env = r["args"]["test_envs"][0]
        val = mean([r[f"env{i}_out_acc"] for i in range(n_environments(r)) if i != test_env])
        if not math.isnan(val) and (best is None or val > best[0]):
            best = (val, r[f"env{test_env}_in_acc"])
    return best


def oracle_run(records):
    """The last record."""
    mine = single(records)
    if not mine:
        return None
    last = mine[0]
    for r in mine:
        if r["step"] >= last["step"]:
            last = r
    test_env = last["args"]["test_envs"][0]
    val = last[f"env{test_env}_out_acc"]
    return None if math.isnan(val) else (val, last[f"env{test_env}_in_acc"])


def leave_one_out_run(records):
    """The first step with the highest mean accuracy on the sources, each held out beside the test environment."""
    best = None
    for step in sorted({r["step"] for r in records}):
        here = [r for r in records if r["step"] == step]
        if len(single(here)) != 1:
            continue
        test_record = single(here)[0]
        test_env = test_record["args"]["test_envs"][0]
        accuracies = {}
        for r in here:
            if len(r["args"]["test_envs"]) == 2:
                (other,) = set(r["args"]["test_envs"]) - {test_env}
                accuracies[other] = r[f"env{other}_in_acc"]
        n = n_environments(here[0])
        if set(accuracies) != set(range(n)) - {test_env}:
            continue
        val = sum(accuracies[env] for env in sorted(accuracies)) / (n - 1)
        if not math.isnan(val) and (best is None or val > best[0]):
            best = (val, test_record[f"env{test_env}_in_acc"])
    return best


RUN_RULES = {
    "training-domain": training_domain_run,
    "leave-one-domain-out": leave_one_out_run,
    "oracle": oracle_run,
}


def select(records, method):
    """Test accuracy of the setting with the highest validation accuracy, the last one on ties; None without any."""
    best = None
    for seed in sorted({r["args"]["hparams_seed"] for r in records}):
        result = RUN_RULES[method]([r for r in records if r["args"]["hparams_seed"] == seed])
        if result is not None and (best is None or result[0] >= best[0]):
            best = result
    return None if best is None else best[1]


def of(records, dataset, algorithm, env, trial):
    return [
        r
        for r in records
        if (r["args"]["dataset"], r["args"]["algorithm"], r["args"]["trial_seed"]) == (dataset, algorithm, trial)
        and env in r["args"]["test_envs"]
    ]


def printed(numbers):
    """Mean +/- population standard deviation / sqrt(count), in percent."""
    centre = mean(numbers)
    spread = math.sqrt(mean([(x - centre) ** 2 for x in numbers])) / math.sqrt(len(numbers))
    return 100 * centre, f"{100 * centre:.1f} +/- {100 * spread:.1f}"


def dataset_row(records, dataset, algorithm, n_envs, trials, method):
    """Cells of a complete row of a dataset's table, the average last."""
    cells = [
        printed([select(of(records, dataset, algorithm, env, trial), method) for trial in trials])
        for env in range(n_envs)
    ]
    return [cell for _, cell in cells] + [f"{mean([value for value, _ in cells]):.1f}"]


def averages_row(records, sizes, algorithm, trials, method):
    """Cells of a complete row of the averages table, the overall average last; `sizes`: environments by dataset."""
    cells = []
    for dataset, n_envs in sizes.items():
        per_trial = [
            mean([select(of(records, dataset, algorithm, env, trial), method) for env in range(n_envs)])
            for trial in trials
        ]
        cells.append(printed(per_trial))
    return [cell for _, cell in cells] + [f"{mean([value for value, _ in cells]):.1f}"]
