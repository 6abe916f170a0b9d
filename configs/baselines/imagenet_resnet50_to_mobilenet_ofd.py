"""ResNet-50 to MobileNet v1 on ImageNet, by OFD alone."""
_base_ = './imagenet_mobilenet.py'
model = dict(
    _delete_=True,
    type='mmlckd.LipschitzDistiller',
    student={{_base_.model}},
    teacher=dict(
        config='mmpretrain::resnet/resnet50_8xb32_in1k.py',
        checkpoint='https://mmassets.onedl.ai/mmclassification/v0/resnet/resnet50_8xb32_in1k_20210831-ea4938fc.pth',
        norm_stats='batch'),
    # before the ReLU of the point-wise convolutions 3, 5, 11 and 13
    taps=dict(
        student=[dict(module=f'backbone.timm_model.blocks.{block}.bn2.act', io='input')
                 for block in ('1.1', '2.1', '3.5', '4.1')],
        teacher='resnet_preact'),
    losses=dict(ofd=dict(type='mmlckd.OFDLoss', loss_weight=1e-4, connectors=True)))
