"""What the command-line tools share."""

from __future__ import annotations

from .arguments import add_override_arguments, add_run_arguments, add_trust_argument
from .augmented_testing import augment_testing
from .errors import sentence_of
from .prerequisites import check_prerequisites, is_there, leaf_datasets, needed_paths
from .processes import init_processes
from .running import (
    check_config,
    check_folder,
    enter_scope,
    load_run_config,
    read_run_config,
    refuse_sharding,
    run_tool,
)

__all__ = [
    'add_override_arguments',
    'add_run_arguments',
    'add_trust_argument',
    'augment_testing',
    'check_config',
    'check_folder',
    'check_prerequisites',
    'enter_scope',
    'init_processes',
    'is_there',
    'leaf_datasets',
    'load_run_config',
    'needed_paths',
    'read_run_config',
    'refuse_sharding',
    'run_tool',
    'sentence_of',
]
