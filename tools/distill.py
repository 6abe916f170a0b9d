"""Distil any pair: find taps, choose losses, measure their weights, write a recipe and train it.

    python tools/distill.py STUDENT_CONFIG TEACHER_CONFIG TEACHER_CHECKPOINT
    python tools/distill.py ... --write-only                  # stop after writing the recipe
    python tools/distill.py ... --recipe configs/mine.py      # where it is written (default: recipes/)
    python tools/distill.py ... --no-calibration              # default weights, where the data is not at hand

A recipe that is there already is trained as it is, with all changes made to it by hand; --overwrite writes it anew.
The recipe is an ordinary config: tools/train.py, tools/dist_train.sh and tools/test.py take it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import train
from mmengine.config import Config

from mmlckd.cli import add_run_arguments, check_folder, run_tool
from mmlckd.config import bare_model, is_distiller, read_config
from mmlckd.recipes import design, refuse_as_base, tables, write


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('student', help="config of the student: a path, or the name of another package's (mmdet::...)")
    parser.add_argument('teacher', help='config of the teacher, in the same forms')
    parser.add_argument('checkpoint', help="the teacher's checkpoint: a path, or an http(s) address")
    parser.add_argument('--recipe', help='file of the recipe (default: recipes/TEACHER_to_STUDENT.py)')
    parser.add_argument('--write-only', action='store_true', help='write the recipe and stop')
    parser.add_argument('--overwrite', action='store_true', help='write the recipe anew where there is one')
    parser.add_argument(
        '--guidance', action='store_true', help='compare a second view of each batch too: more robust, twice the cost'
    )
    parser.add_argument(
        '--no-calibration', action='store_true', help='default weights in the place of measured ones; reads no data'
    )
    parser.add_argument(
        '--batches', type=int, default=12, help='how many batches the weights are measured on (default: 12)'
    )
    train.add_training_arguments(parser)
    add_run_arguments(parser)
    return parser


def main(args):
    args.config = args.recipe or default_recipe(args)
    path = Path(args.config)
    check_folder('--recipe', path.parent)
    if path.exists() and not args.overwrite:
        check_same_pair(read_config(args.config), args)
        print(f'{path} is there already and is used as it is; --overwrite writes it anew')
    else:
        write_recipe(args, path)
    if not args.write_only:
        train.main(args)


def default_recipe(args):
    return str(Path('recipes') / f'{Path(args.teacher).stem}_to_{Path(args.student).stem}.py')


def write_recipe(args, path):
    if args.launcher != 'none':
        raise ValueError(
            f'{path} does not exist, and --launcher starts several processes: write it with --write-only first, then '
            'give it to tools/dist_train.sh'
        )
    refuse_as_base(args.student)
    recipe = design(
        args.student,
        args.teacher,
        args.checkpoint,
        guidance=args.guidance,
        calibrate=not args.no_calibration,
        overrides=args.cfg_options,
        batches=args.batches,
    )
    write(recipe, path)
    print(f'\n{tables(recipe)}\n\n{path}: written')


def check_same_pair(recipe: Config, args):
    """See that a recipe that is there is of the pair that is asked for."""
    there = recipe.model.teacher if is_distiller(recipe.model) else {}
    students = [dict(bare_model(each), data_preprocessor=None) for each in (recipe, read_config(args.student))]
    if students[0] != students[1]:
        raise ValueError(
            f'{args.config} is there already, for another student than {args.student}: name another file with '
            '--recipe, or write it anew with --overwrite'
        )
    if (there.get('config'), there.get('checkpoint')) != (args.teacher, args.checkpoint):
        raise ValueError(
            f'{args.config} is there already and has the teacher {dict(there)}: name another file with --recipe, or '
            'write it anew with --overwrite'
        )


if __name__ == '__main__':
    run_tool(main, make_parser())
