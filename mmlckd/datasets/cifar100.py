"""CIFAR-100 in its own files, or other images in the same format."""

from __future__ import annotations

from mmpretrain.datasets import CIFAR100 as MMPretrainCIFAR100

from mmlckd.registry import DATASETS


@DATASETS.register_module()
class CIFAR100(MMPretrainCIFAR100):
    """mmpretrain's CIFAR-100, whose check sums can be left out.

    The files are Python pickles, which run code when they are read: leave the check on for files that you did not write.

    Args:
        args, kwargs: mmpretrain's.
        check_md5: Compare the files with the check sums of the original.
    """

    def __init__(self, *args, check_md5: bool = True, **kwargs):
        if not check_md5:
            self.train_list, self.test_list = (
                [[name, None] for name, _ in files] for files in (self.train_list, self.test_list)
            )
            self.meta = dict(self.meta, md5=None)
        super().__init__(*args, **kwargs)
