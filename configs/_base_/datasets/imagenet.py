"""ImageNet in batches of 96: 12 images a process on eight processes."""
_base_ = 'mmpretrain::_base_/datasets/imagenet_bs32.py'
train_dataloader = dict(batch_size=12)
