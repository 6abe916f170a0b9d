"""The pairs that tools/distill.py is tried on: configs that mmpretrain, mmseg and mmdet ship."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pair:
    """Configs of a student and a teacher.

    Attributes:
        name: What the page calls it.
        student, teacher: Names of configs, ``mmdet::...``.
        size: Side of the images of the trial in px, as small as the family allows.
        quick: Whether `make test` tries it, not `make nightly` alone.
    """

    name: str
    student: str
    teacher: str
    size: int
    quick: bool = False


def classifiers(name: str, student: str, teacher: str, size: int = 64, quick: bool = False) -> Pair:
    return Pair(name, f'mmpretrain::{student}.py', f'mmpretrain::{teacher}.py', size, quick)


def segmentors(name: str, student: str, teacher: str, size: int = 128, quick: bool = False) -> Pair:
    return Pair(name, f'mmseg::{student}.py', f'mmseg::{teacher}.py', size, quick)


def detectors(name: str, student: str, teacher: str, size: int = 128, quick: bool = False) -> Pair:
    return Pair(name, f'mmdet::{student}.py', f'mmdet::{teacher}.py', size, quick)


RESNET18, RESNET50 = 'resnet/resnet18_8xb32_in1k', 'resnet/resnet50_8xb32_in1k'
SWIN_B = 'swin_transformer/swin-base_16xb64_in1k'
V3_SMALL = 'mobilenet_v3/mobilenet-v3-small_8xb128_in1k'
FCN_HR18S = 'hrnet/fcn_hr18s_4xb4-160k_ade20k-512x512'
PSP_R18, PSP_R101 = (f'pspnet/pspnet_{depth}-d8_4xb2-80k_cityscapes-512x1024' for depth in ('r18', 'r101'))
MASK_R50 = 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco'

PAIRS = (
    classifiers('ResNet-50 to ResNet-18', RESNET18, RESNET50, quick=True),
    classifiers('ResNetV1d-50 to ResNet-18', RESNET18, 'resnet/resnetv1d50_8xb32_in1k'),
    classifiers('ConvNeXt-B to ResNet-50', RESNET50, 'convnext/convnext-base_32xb128_in1k'),
    classifiers('Swin-B to Swin-T', 'swin_transformer/swin-tiny_16xb64_in1k', SWIN_B, 224),
    classifiers('Swin-B to ResNet-50', RESNET50, SWIN_B, 224),
    classifiers(
        'ViT-B to DeiT-tiny', 'deit/deit-tiny_4xb256_in1k', 'vision_transformer/vit-base-p16_64xb64_in1k-384px', 224
    ),
    classifiers('DeiT-B to DeiT-tiny', 'deit/deit-tiny_4xb256_in1k', 'deit/deit-base_16xb64_in1k', 224),
    classifiers('T2T-ViT-24 to T2T-ViT-14', 't2t_vit/t2t-vit-t-14_8xb64_in1k', 't2t_vit/t2t-vit-t-24_8xb64_in1k', 224),
    classifiers('EfficientNet-B0 to MobileNetV3', V3_SMALL, 'efficientnet/efficientnet-b0_8xb32_in1k', quick=True),
    classifiers('ResNet-50 to MobileNetV3', V3_SMALL, RESNET50),
    classifiers('RegNetX-3.2GF to 400MF', 'regnet/regnetx-400mf_8xb128_in1k', 'regnet/regnetx-3.2gf_8xb64_in1k'),
    classifiers('RepVGG-B0 to A0', 'repvgg/repvgg-A0_8xb32_in1k', 'repvgg/repvgg-B0_8xb32_in1k'),
    classifiers('VAN-S to ShuffleNetV2', 'shufflenet_v2/shufflenet-v2-1x_16xb64_in1k', 'van/van-small_8xb128_in1k'),
    classifiers(
        'EfficientNetV2-B1 to MobileOne-S0',
        'mobileone/mobileone-s0_8xb32_in1k',
        'efficientnet_v2/efficientnetv2-b1_8xb32_in1k',
    ),
    classifiers(
        'DenseNet-121 to MobileNetV2', 'mobilenet_v2/mobilenet-v2_8xb32_in1k', 'densenet/densenet121_4xb256_in1k'
    ),
    classifiers(
        'PoolFormer-S24 to S12', 'poolformer/poolformer-s12_32xb128_in1k', 'poolformer/poolformer-s24_32xb128_in1k'
    ),
    classifiers('VGG-13 with batch norm to VGG-11', 'vgg/vgg11_8xb32_in1k', 'vgg/vgg13bn_8xb32_in1k', 224),
    classifiers(
        'TinyViT-11M to MobileViT-XS', 'mobilevit/mobilevit-xsmall_8xb128_in1k', 'tinyvit/tinyvit-11m_8xb256_in1k', 224
    ),
    classifiers('EdgeNeXt-B to S', 'edgenext/edgenext-small_8xb256_in1k', 'edgenext/edgenext-base_8xb256_in1k', 224),
    classifiers('DaViT-T to CSPDarkNet-50', 'cspnet/cspdarknet50_8xb32_in1k', 'davit/davit-tiny_4xb256_in1k', 224),
    classifiers(
        'ConvNeXtV2-B to A', 'convnext_v2/convnext-v2-atto_32xb32_in1k', 'convnext_v2/convnext-v2-base_32xb32_in1k'
    ),
    classifiers('Res2Net-101 to ResNet-18', RESNET18, 'res2net/res2net101-w26-s4_8xb32_in1k'),
    classifiers('MViTv2-S to T', 'mvit/mvitv2-tiny_8xb256_in1k', 'mvit/mvitv2-small_8xb256_in1k', 224),
    classifiers('HRNet-W32 to W18', 'hrnet/hrnet-w18_4xb32_in1k', 'hrnet/hrnet-w32_4xb32_in1k'),
    segmentors('PSPNet R101 to R18', PSP_R18, PSP_R101, 64, quick=True),
    segmentors(
        'SegFormer-B5 to B0',
        'segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024',
        'segformer/segformer_mit-b5_8xb1-160k_cityscapes-1024x1024',
    ),
    segmentors(
        'SegFormer-B2 to UPerNet R18',
        'upernet/upernet_r18_4xb2-80k_cityscapes-512x1024',
        'segformer/segformer_mit-b2_8xb1-160k_cityscapes-1024x1024',
    ),
    segmentors(
        'UPerNet Swin-T to FCN HRNet-18s',
        FCN_HR18S,
        'swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512',
    ),
    segmentors('PSPNet R101 to DDRNet', 'ddrnet/ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024', PSP_R101),
    segmentors('PSPNet R101 to PIDNet-S', 'pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes', PSP_R101),
    segmentors(
        'PIDNet-L to PIDNet-S',
        'pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes',
        'pidnet/pidnet-l_2xb6-120k_1024x1024-cityscapes',
    ),
    segmentors('PSPNet R101 to BiSeNetV1', 'bisenetv1/bisenetv1_r18-d32_4xb4-160k_cityscapes-1024x1024', PSP_R101),
    segmentors('PSPNet R101 to BiSeNetV2', 'bisenetv2/bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024', PSP_R101),
    segmentors(
        'Mask2Former R101 to R50',
        'mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024',
        'mask2former/mask2former_r101_8xb2-90k_cityscapes-512x1024',
    ),
    segmentors(
        'DeepLabV3+ R101 to MobileNetV2',
        'mobilenet_v2/mobilenet-v2-d8_deeplabv3plus_4xb2-80k_cityscapes-512x1024',
        'deeplabv3plus/deeplabv3plus_r101-d8_4xb2-80k_cityscapes-512x1024',
    ),
    segmentors(
        'SegNeXt-B to S',
        'segnext/segnext_mscan-s_1xb16-adamw-160k_ade20k-512x512',
        'segnext/segnext_mscan-b_1xb16-adamw-160k_ade20k-512x512',
    ),
    segmentors(
        'OCRNet HR18 to Fast-SCNN',
        'fastscnn/fast_scnn_8xb4-160k_cityscapes-512x1024',
        'ocrnet/ocrnet_hr18_4xb2-160k_cityscapes-512x1024',
        256,
    ),
    segmentors(
        'UPerNet R101 to CGNet',
        'cgnet/cgnet_fcn_4xb8-60k_cityscapes-512x1024',
        'upernet/upernet_r101_4xb2-40k_cityscapes-512x1024',
    ),
    segmentors(
        'Semantic FPN R101 to ERFNet',
        'erfnet/erfnet_fcn_4xb4-160k_cityscapes-512x1024',
        'sem_fpn/fpn_r101_4xb2-80k_cityscapes-512x1024',
    ),
    segmentors(
        'ICNet R101 to semantic FPN R50',
        'sem_fpn/fpn_r50_4xb2-80k_cityscapes-512x1024',
        'icnet/icnet_r101-d8_4xb2-160k_cityscapes-832x832',
    ),
    segmentors(
        'Segmenter ViT-B to ViT-S',
        'segmenter/segmenter_vit-s_fcn_8xb1-160k_ade20k-512x512',
        'segmenter/segmenter_vit-b_mask_8xb1-160k_ade20k-512x512',
        512,
    ),
    segmentors(
        'UPerNet ConvNeXt-B to K-Net R50',
        'knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512',
        'convnext/convnext-base_upernet_8xb2-amp-160k_ade20k-512x512',
    ),
    detectors(
        'RetinaNet R101 to R18',
        'retinanet/retinanet_r18_fpn_1x_coco',
        'retinanet/retinanet_r101_fpn_1x_coco',
        quick=True,
    ),
    detectors(
        'FCOS R101 to R50', 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco', 'fcos/fcos_r101-caffe_fpn_gn-head-1x_coco'
    ),
    detectors('ATSS R101 to R50', 'atss/atss_r50_fpn_1x_coco', 'atss/atss_r101_fpn_1x_coco'),
    detectors('GFL R101 to R50', 'gfl/gfl_r50_fpn_1x_coco', 'gfl/gfl_r101_fpn_ms-2x_coco'),
    detectors(
        'Faster R-CNN R101 to R50',
        'faster_rcnn/faster-rcnn_r50_fpn_1x_coco',
        'faster_rcnn/faster-rcnn_r101_fpn_1x_coco',
    ),
    detectors(
        'Cascade R-CNN R101 to R50',
        'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco',
        'cascade_rcnn/cascade-rcnn_r101_fpn_1x_coco',
    ),
    detectors('Mask R-CNN R101 to R50', MASK_R50, 'mask_rcnn/mask-rcnn_r101_fpn_1x_coco'),
    detectors('Mask R-CNN Swin-T to R50', MASK_R50, 'swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco'),
    detectors(
        'RTMDet-l to tiny', 'rtmdet/rtmdet_tiny_8xb32-300e_coco', 'rtmdet/rtmdet_l_8xb32-300e_coco', 64, quick=True
    ),
    detectors('YOLOX-l to tiny', 'yolox/yolox_tiny_8xb8-300e_coco', 'yolox/yolox_l_8xb8-300e_coco'),
    detectors(
        'YOLOv3 D53 to MobileNetV2',
        'yolo/yolov3_mobilenetv2_8xb24-320-300e_coco',
        'yolo/yolov3_d53_8xb8-320-273e_coco',
    ),
    detectors('SSD300 to SSDLite', 'ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco', 'ssd/ssd300_coco', 320),
    detectors('DETR R101 to R50', 'detr/detr_r50_8xb2-150e_coco', 'detr/detr_r101_8xb2-500e_coco'),
    detectors(
        'Deformable DETR two-stage to one-stage',
        'deformable_detr/deformable-detr_r50_16xb2-50e_coco',
        'deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco',
    ),
    detectors('DINO Swin-L to R50', 'dino/dino-4scale_r50_8xb2-12e_coco', 'dino/dino-5scale_swin-l_8xb2-12e_coco', 224),
    detectors(
        'CenterNet R50 to R18',
        'centernet/centernet_r18_8xb16-crop512-140e_coco',
        'centernet/centernet-update_r50_fpn_8xb8-amp-lsj-200e_coco',
    ),
    detectors('TOOD R101 to PAA R50', 'paa/paa_r50_fpn_1.5x_coco', 'tood/tood_r101_fpn_ms-2x_coco'),
    detectors('VFNet R101 to FoveaBox R101', 'foveabox/fovea_r101_fpn_4xb4-1x_coco', 'vfnet/vfnet_r101_fpn_1x_coco'),
    detectors(
        'YOLOF R50 to AutoAssign R50', 'autoassign/autoassign_r50-caffe_fpn_1x_coco', 'yolof/yolof_r50-c5_8xb8-1x_coco'
    ),
    detectors(
        'RepPoints R101 to R50',
        'reppoints/reppoints-moment_r50_fpn-gn_head-gn_1x_coco',
        'reppoints/reppoints-moment_r101_fpn-gn_head-gn_2x_coco',
    ),
    detectors(
        'Sparse R-CNN R101 to R50',
        'sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco',
        'sparse_rcnn/sparse-rcnn_r101_fpn_ms-480-800-3x_coco',
    ),
    detectors(
        'DAB-DETR R50 to Conditional DETR R50',
        'conditional_detr/conditional-detr_r50_8xb2-50e_coco',
        'dab_detr/dab-detr_r50_8xb2-50e_coco',
    ),
    detectors('RetinaNet PVT-S to R18', 'retinanet/retinanet_r18_fpn_1x_coco', 'pvt/retinanet_pvt-s_fpn_1x_coco'),
    detectors('HTC R101 to Mask R-CNN R50', MASK_R50, 'htc/htc_r101_fpn_20e_coco'),
    detectors('YOLACT R101 to R50', 'yolact/yolact_r50_1xb8-55e_coco', 'yolact/yolact_r101_1xb8-55e_coco', 550),
    detectors(
        'SOLO R101 to decoupled SOLO light R50',
        'solo/decoupled-solo-light_r50_fpn_3x_coco',
        'solo/solo_r101_fpn_8xb8-lsj-200e_coco',
    ),
    detectors(
        'QueryInst R101 to R50',
        'queryinst/queryinst_r50_fpn_1x_coco',
        'queryinst/queryinst_r101_fpn_ms-480-800-3x_coco',
    ),
    detectors(
        'CenterNet FPN R101 to R18',
        'centernet/centernet-update_r18_fpn_8xb8-amp-lsj-200e_coco',
        'centernet/centernet-update_r101_fpn_8xb8-amp-lsj-200e_coco',
    ),
    detectors(
        'Cascade Mask R-CNN ConvNeXt-T to R50',
        'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco',
        'convnext/cascade-mask-rcnn_convnext-t-p4-w7_fpn_4conv1fc-giou_amp-ms-crop-3x_coco',
    ),
    detectors(
        'RetinaNet EfficientNet-B3 to R18',
        'retinanet/retinanet_r18_fpn_1x_coco',
        'efficientnet/retinanet_effb3_fpn_8xb4-crop896-1x_coco',
    ),
    detectors('DDOD R50 to ATSS R50', 'atss/atss_r50_fpn_1x_coco', 'ddod/ddod_r50_fpn_1x_coco'),
)
