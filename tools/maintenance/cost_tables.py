"""What distillation costs, and what kills do to a run: the tables of the benchmarks, made from their records."""

from __future__ import annotations

import json
from pathlib import Path

from marked_text import paragraph, table

RECORDS = Path(__file__).resolve().parents[2] / 'tools' / 'benchmarks' / 'records'
VARIANTS = {  # in the record: its title in the table
    'student alone': 'student alone',
    'Lipschitz alone, no connectors': 'Lipschitz alone',
    'Lipschitz alone, through connectors': 'through connectors',
    'ours': 'ours',
    'ours, teacher in half precision': 'ours, teacher in bf16',
    'ours with a second view': 'with a second view',
    'naive': 'naive',
}
AUTHORS = "authors' formulation"
MOMENTS = {  # of a kill, in the order of a run
    'start': 'before the first iteration',
    'iteration': 'within an iteration',
    'writing': 'while a checkpoint was written',
    'written': 'between a checkpoint and the evaluation',
    'evaluation': 'within an evaluation',
    'evaluated': 'after an evaluation',
}


def record_of(name: str) -> dict:
    return json.loads((RECORDS / f'{name}.json').read_text())


def loss_table() -> str:
    """The Lipschitz loss alone against the authors' formulation."""
    record = record_of('lipschitz_loss')
    rows = [
        [name, f'{row["ms"]:.0f}', f'{row["speedup"]:.1f} x', f'{row["peak_mib"]:.0f}', f'{row["extra_mib"]:.0f}']
        for name, row in record['results'].items()
    ]
    targets = [
        f'{name}: {"met" if target["met"] else "missed"} ({target["reached"]})'
        for name, target in record['targets'].items()
    ]
    shares = [f'{row["op"].removeprefix("aten::")} {row["share"]:.0%}' for row in record['profile']]
    note = (
        f'Batch {record["batch"]}, {record["threads"]} threads, torch {record["torch"]}. '
        f'Targets: {"; ".join(targets)}. Where our time goes: {", ".join(shares)}.'
    )
    return f'{table(["", "ms", "faster", "peak MiB", "peak MiB beyond the gradients"], rows)}\n\n{paragraph(note)}'


def step_table() -> str:
    """Whole training steps of the recipes, as parts of the floor."""
    record = record_of('train_step')
    workloads = record['workloads'].values()
    targets = [
        ((title, f'`{Path(workload["config"]).stem}`'), target)
        for workload in workloads
        for title, target in workload['targets'].items()
    ]
    missed = [[*title, target['reached'], target['target']] for title, target in targets if not target['met']]
    rounds = ' to '.join(map(str, sorted({workload['rounds'] for workload in workloads})))
    header = ['step', 'floor, ms', *VARIANTS.values(), 'peak memory', 'hook']
    note = (
        "Floor: the student's step plus the teacher's forward to its deepest tap. The other times are parts of the "
        f'floor: medians of {rounds} rounds in turns, {record["threads"]} threads, {record["device"]}, '
        f'torch {record["torch"]}, {record["units"]}. Lipschitz alone: without connectors and other losses. Ours: the '
        'recipe, with connectors and OFD. With a second view: ours, and local Lipschitz guidance between two views of '
        'each image. Naive: the teacher runs through its own heads and losses. Peak memory: ours, as a part of the '
        "floor's. "
        "Hook: the part of training that reading every layer's norm takes. "
        f'{len(targets) - len(missed)} of {len(targets)} targets are met{". These are missed:" if missed else "."}'
    )
    text = f'{table(header, [step_row(workload) for workload in workloads])}\n\n{paragraph(note)}'
    return f'{text}\n\n{table(["what", "step", "reached", "target"], missed)}' if missed else text


def step_row(workload: dict) -> list[str]:
    variants = workload['variants']
    memory = variants['ours']['peak_mib'] / variants['floor']['peak_mib']
    return [
        f'`{Path(workload["config"]).stem}`, {workload["batch"]} x {workload["size"]} px',
        f'{variants["floor"]["ms"]:.0f}',
        *(f'{variants[name]["ratio"]:.2f}' for name in VARIANTS),
        f'{memory:.2f}',
        f'{workload["hook"]["share"]:.2%}',
    ]


def gpu_table() -> str:
    """The loss and whole training steps on a GPU."""
    record = record_of('gpu_check')
    workloads, loss = record['steps']['record']['workloads'], record['loss']['record']
    times = {name: f'{row["ms"]:.0f}' for name, row in loss['results'].items()}
    titles = [title.replace('bf16', 'fp16') for title in VARIANTS.values()]
    header = ['step', 'floor, ms', *titles, 'peak memory', 'hook']
    rounds = ' to '.join(map(str, sorted({workload['rounds'] for workload in workloads.values()})))
    killed = record['kills']['record']['rows']
    note = (
        f'One {record["machine"]["gpus"][0]}, torch {record["machine"]["torch"]}, medians of {rounds} rounds; columns '
        f'as above. The Lipschitz loss alone takes {times["ours"]} ms on the maps above (batch {loss["batch"]}), the '
        f"authors' {times[AUTHORS]} ms. {sum(not row['differs'] for row in killed)} of {len(killed)} killed trainings "
        'ended with the bits of one that was not killed, with `randomness.deterministic=True`.'
    )
    return f'{table(header, [step_row(workload) for workload in workloads.values()])}\n\n{paragraph(note)}'


def crash_table() -> str:
    """Trainings that were killed and resumed, by the signal and the moment."""
    record = record_of('crash_resume')
    rows = []
    for signal in sorted({row['signal'] for row in record['rows']}):
        for moment, title in MOMENTS.items():
            group = [row for row in record['rows'] if (row['signal'], row['fell_in']) == (signal, moment)]
            if group:
                half_written = sum(bool(row['half_written']) for row in group)
                repeated = max(row['repeated'] for row in group)
                equal = sum(not row['differs'] for row in group)
                rows.append([f'{signal}, {title}', len(group), half_written, repeated, equal])
    header = [
        'ended by',
        'times',
        'left a half-written file',
        'iterations repeated, at most',
        'ended with the same bits',
    ]
    note = (
        f'{record["epochs"]} epochs of 4 iterations, each with a checkpoint and an evaluation; one checkpoint is kept; '
        f'student with dropout and averaged weights; moments drawn with seed {record["seed"]}; torch {record["torch"]}.'
    )
    return f'{table(header, rows)}\n\n{paragraph(note)}'


def soak_sentence() -> str:
    """What grew in a long training."""
    record = record_of('soak')
    middle, last = record['readings']['middle'], record['readings']['last']
    # MMEngine's log history keeps two 64-bit numbers for each logged scalar and iteration.
    history = last['scalars'] * 16 * (last['iter'] - middle['iter']) / 2**20
    return paragraph(
        f'In a run of {record["iterations"]:,} iterations memory stays flat: over the second half it changed by '
        f'{record["growth_mib"]:+.2f} MiB of {last["rss_mib"]:,.0f}, with the history of the logged numbers, which '
        f'grew by {history:.2f} MiB. Single readings scatter by {record["scatter_mib"]:.1f} MiB. '
        '`tools/benchmarks/soak.py` also counts hooks, tensors, open files and threads, and fails if any of them grows.'
    )
