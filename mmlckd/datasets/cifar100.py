"""CIFAR-100 from its own files, or other images in the same format."""

from __future__ import annotations

from mmpretrain.datasets import CIFAR100 as MMPretrainCIFAR100

from mmlckd.registry import DATASETS


@DATASETS.register_module()
class CIFAR100(MMPretrainCIFAR100):
    """mmpretrain's CIFAR-100, whose check sums can be left out.

    The files are Python pickles, and reading a pickle can run code. Leave the check on for files that others wrote.

    Args:
        args, kwargs: Those of mmpretrain's class.
        check_md5: Compare the files with the check sums of the original.
    """

    train_list: list[list[str | None]]
    test_list: list[list[str | None]]
    meta: dict

    def __init__(self, *args, check_md5: bool = True, **kwargs):
        if not check_md5:
            self.train_list = [[name, None] for name, _ in self.train_list]
            self.test_list = [[name, None] for name, _ in self.test_list]
            self.meta = dict(self.meta, md5=None)
        super().__init__(*args, **kwargs)
