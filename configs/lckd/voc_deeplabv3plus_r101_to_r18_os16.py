"""DeepLabV3+, ResNet-101 to ResNet-18, both at output stride 16 as in OFD's experiment; no zoo has this teacher."""
_base_ = './voc_deeplabv3plus_r101_to_r18.py'
teacher_checkpoint = 'work_dirs/voc_deeplabv3plus_r101_os16/iter_40000.pth'
prerequisites = {teacher_checkpoint: 'python tools/train.py configs/teachers/voc_deeplabv3plus_r101_os16.py'}
model = dict(
    student=dict(
        backbone=dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)), decode_head=dict(dilations=(1, 6, 12, 18))),
    teacher=dict(config='configs/teachers/voc_deeplabv3plus_r101_os16.py', checkpoint=teacher_checkpoint))
