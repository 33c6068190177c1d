"""timm: representatives of every one of its modules of convolutional classifiers.

A module of timm holds the variants of one architecture. Those named here differ in kind (blocks,
attention over channels, normalisation, activation, padding, stem), not only in size.
"""

from __future__ import annotations

from bench.coverage.families import Family, Subject, smaller_side
from bench.coverage.torchvision_models import torchvision

CONVOLUTIONAL: dict[str, tuple[str, ...]] = {
    "byobnet": (
        *("eca_resnet33ts", "gcresnet33ts", "gernet_s", "mobileone_s0", "mobileone_s1"),
        *("regnetz_b16", "regnetz_c16_evos", "regnetz_d8", "repvgg_a0", "repvgg_b1g4"),
        *("repvgg_d2se", "resnet32ts", "resnet33ts", "resnet51q", "resnext26ts"),
        *("seresnet33ts", "bat_resnext26ts"),
    ),
    "convmixer": ("convmixer_768_32",),
    "convnext": (
        *("convnext_atto", "convnext_atto_ols", "convnext_atto_rms", "convnext_tiny"),
        *("convnext_tiny_hnf", "convnext_zepto_rms_ols", "convnextv2_atto", "convnextv2_tiny"),
    ),
    "cspnet": (
        *("cs3darknet_focus_m", "cs3darknet_m", "cs3edgenet_x", "cs3se_edgenet_x"),
        *("cs3sedarknet_l", "cspdarknet53", "cspresnet50", "cspresnet50d", "cspresnext50"),
        *("darknet53", "darknetaa53", "sedarknet21"),
    ),
    "cspnext": ("cspnext_tiny",),
    "densenet": ("densenet121", "densenetblur121d"),
    "dla": ("dla34", "dla60", "dla60x", "dla60_res2net", "dla60_res2next", "dla46x_c"),
    "dpn": ("dpn48b", "dpn68", "dpn68b"),
    "efficientnet": (
        *("efficientnet_b0", "efficientnet_b0_gn", "efficientnet_b0_g8_gn"),
        *("efficientnet_b0_g16_evos", "efficientnet_blur_b0", "efficientnet_cc_b0_4e"),
        *("efficientnet_es", "efficientnet_lite0", "efficientnet_h_b5", "efficientnet_x_b3"),
        *("efficientnetv2_rw_t", "efficientnetv2_s", "fbnetc_100", "gc_efficientnetv2_rw_t"),
        *("mixnet_s", "mnasnet_100", "mobilenet_edgetpu_v2_s", "mobilenetv1_100"),
        *("mobilenetv1_100h", "mobilenetv2_100", "mobilenetv2_110d", "semnasnet_100"),
        *("spnasnet_100", "tf_efficientnet_b0", "tf_efficientnet_cc_b0_4e"),
        *("tf_efficientnet_lite0", "tf_efficientnetv2_b0", "tf_mixnet_s", "tinynet_a"),
    ),
    "fasternet": ("fasternet_t0", "fasternet_s"),
    "ghostnet": ("ghostnet_100", "ghostnetv2_100", "ghostnetv3_100"),
    "hardcorenas": ("hardcorenas_a", "hardcorenas_f"),
    "hgnet": ("hgnet_tiny", "hgnetv2_b0", "hgnetv2_b4"),
    "hrnet": ("hrnet_w18", "hrnet_w18_small", "hrnet_w18_ssld"),
    "inception_next": ("inception_next_atto", "inception_next_tiny"),
    "inception_resnet_v2": ("inception_resnet_v2",),
    "inception_v3": ("inception_v3",),
    "inception_v4": ("inception_v4",),
    "lcnetv2": ("lcnetv2_base",),
    "mambaout": ("mambaout_femto", "mambaout_base_tall_rw"),
    "metaformer": ("convformer_s18", "poolformer_s12", "poolformerv2_s12"),
    "mobilenetv3": (
        *("fbnetv3_b", "lcnet_100", "mobilenetv3_large_100", "mobilenetv3_large_150d"),
        *("mobilenetv3_rw", "mobilenetv3_small_100", "mobilenetv4_conv_small"),
        *("mobilenetv4_conv_medium", "mobilenetv4_conv_aa_medium"),
        *("mobilenetv4_conv_blur_medium", "tf_mobilenetv3_large_100"),
        "tf_mobilenetv3_large_minimal_100",
    ),
    "nasnet": ("nasnetalarge",),
    "nfnet": (
        *("dm_nfnet_f0", "nfnet_f0", "nfnet_l0", "eca_nfnet_l0", "nf_regnet_b0", "nf_resnet50"),
        *("nf_seresnet50", "nf_ecaresnet50"),
    ),
    "pnasnet": ("pnasnet5large",),
    "rdnet": ("rdnet_tiny",),
    "regnet": (
        *("regnetv_040", "regnetx_002", "regnety_002", "regnety_040_sgn", "regnetz_005"),
        "regnetz_040_h",
    ),
    "repghost": ("repghostnet_100",),
    "repvit": ("repvit_m0_9", "repvit_m1"),
    "res2net": ("res2net50_26w_4s", "res2net50d", "res2next50"),
    "resnest": ("resnest14d", "resnest50d", "resnest50d_4s2x40d"),
    "resnet": (
        *("ecaresnet26t", "ecaresnet50d", "ecaresnetlight", "resnet10t", "resnet18", "resnet18d"),
        *("resnet26", "resnet50", "resnet50_gn", "resnet50c", "resnet50d", "resnet50s"),
        *("resnet50t", "resnetaa50d", "resnetblur50", "resnetrs50", "resnext50_32x4d"),
        *("resnext50d_32x4d", "seresnet50", "seresnext26t_32x4d", "seresnextaa101d_32x8d"),
        *("senet154", "wide_resnet50_2"),
    ),
    "resnetv2": (
        *("resnetv2_18", "resnetv2_34d", "resnetv2_50", "resnetv2_50d", "resnetv2_50t"),
        *("resnetv2_50d_gn", "resnetv2_50d_evos", "resnetv2_50d_frn", "resnetv2_50x1_bit"),
    ),
    "rexnet": ("rexnet_100", "rexnetr_100"),
    "selecsls": ("selecsls42", "selecsls42b", "selecsls84"),
    "senet": ("legacy_senet154", "legacy_seresnet18", "legacy_seresnet50"),
    "sknet": ("skresnet18", "skresnet50d", "skresnext50_32x4d"),
    "starnet": ("starnet_s1", "starnet_s050"),
    "tresnet": ("tresnet_m", "tresnet_v2_l"),
    "vgg": ("vgg11", "vgg16_bn"),
    "vovnet": ("eca_vovnet39b", "ese_vovnet19b_dw", "ese_vovnet39b_evos", "vovnet39a"),
    "xception": ("legacy_xception",),
    "xception_aligned": ("xception41", "xception41p", "xception71"),
}
# Convolutions mixed with attention, focal modulation or other mixing of places.
HYBRID: dict[str, tuple[str, ...]] = {
    "byoanet": ("botnet26t_256", "halonet26t", "lambda_resnet26t"),
    "coat": ("coat_lite_mini",),
    "cpubone": ("cpubone_nano",),
    "csatv2": ("csatv2",),
    "edgenext": ("edgenext_xx_small",),
    "efficientformer": ("efficientformer_l1",),
    "efficientformer_v2": ("efficientformerv2_s0",),
    "efficientvim": ("efficientvim_m1",),
    "efficientvit_mit": ("efficientvit_b0", "efficientvit_l1"),
    "efficientvit_msra": ("efficientvit_m0",),
    "fastvit": ("fastvit_t8", "fastvit_sa12", "fastvit_mci0"),
    "focalnet": ("focalnet_tiny_srf",),
    "gcvit": ("gcvit_xxtiny",),
    "iformer": ("iformer_t",),
    "levit": ("levit_128s",),
    "lowformer": ("lowformer_b0",),
    "maxxvit": ("coatnet_0_rw_224",),
    "metaformer": ("caformer_s18",),
    "mobilenetv3": ("mobilenetv4_hybrid_medium",),
    "mobilenetv5": ("mobilenetv5_300m",),
    "mobilevit": ("mobilevit_xxs", "mobilevitv2_050"),
    "nextvit": ("nextvit_small",),
    "pvt_v2": ("pvt_v2_b0",),
    "shvit": ("shvit_s1",),
    "swiftformer": ("swiftformer_xs",),
    "tiny_vit": ("tiny_vit_5m_224",),
    "visformer": ("visformer_tiny",),
    "vision_transformer_hybrid": ("vit_tiny_r_s16_p8_224",),
    "vitamin": ("vitamin_small_224",),
}
# Transformers, multilayer perceptrons and recurrent networks: not tried.
OTHER = (
    *("beit", "cait", "convit", "crossvit", "davit", "deepseek_vit", "deit", "eva"),
    *("gemma4_vit", "hiera", "hieradet_sam2", "mlp_mixer", "mvitv2", "naflexvit", "nest", "pit"),
    *("qwen3_vit", "sequencer", "swin_transformer", "swin_transformer_v2"),
    *("swin_transformer_v2_cr", "tnt", "twins", "vision_transformer"),
    *("vision_transformer_relpos", "vision_transformer_sam", "volo", "xcit"),
)
# Larger pictures take longer and show nothing more.
_LARGEST = 256
# Its attention works on blocks of a fixed number of places.
_ONE_SIZE = ("bat_resnext26ts",)


def unsorted_modules() -> list[str]:
    """Modules of the installed timm that stand in none of the three lists."""
    torchvision()
    import timm

    return sorted(set(timm.list_modules()) - {*CONVOLUTIONAL, *HYBRID, *OTHER})


def _build(name: str) -> Subject:
    torchvision()
    import timm

    module = timm.create_model(name)
    settings = module.default_cfg
    side = settings["input_size"][-1]
    if settings.get("fixed_input_size") or name in _ONE_SIZE:
        return Subject.square(module, side)
    side = min(side, _LARGEST)
    return Subject.square(module, side, smaller_side(side))


FAMILIES = (
    Family(
        "timm",
        "timm, convolutional",
        lambda: [name for names in CONVOLUTIONAL.values() for name in names],
        _build,
    ),
    Family(
        "timm-hybrid",
        "timm hybrids",
        lambda: [name for names in HYBRID.values() for name in names],
        _build,
    ),
)
