"""Layouts of published ViTs, each against an implementation of it that is not ours.

`PublishedViT` is written from the papers' repositories (timm's VisionTransformer, MAE, DINOv2 with
3D patches, as 3DINO has it) in plain torch; MONAI's own layouts are computed by MONAI's own ViT.
"""

import pytest
import torch
from monai.networks.nets import UNETR, SwinUNETR, ViTAutoEnc
from torch import nn

from lora_ext import load_encoder, network_for_encoder
from lora_ext.weights.layouts import plain_vit

ENCODER = {"blocks.0.norm1.weight": torch.zeros(2), "blocks.0.attn.qkv.weight": torch.zeros(6, 2)}


class Attention(nn.Module):
    def __init__(self, width, heads, qkv_bias):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        batch, count, width = x.shape
        qkv = self.qkv(x).reshape(batch, count, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-2, -1) * (width // self.heads) ** -0.5
        mixed = scores.softmax(dim=-1) @ value
        return self.proj(mixed.transpose(1, 2).reshape(batch, count, width))


class LayerScale(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return self.gamma * x


class Mlp(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, width, heads, qkv_bias, scaled, eps):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)
        self.attn, self.mlp = Attention(width, heads, qkv_bias), Mlp(width)
        self.ls1, self.ls2 = [LayerScale(width) if scaled else nn.Identity() for _ in range(2)]

    def forward(self, x):
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class Patches(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.proj = nn.Conv3d(1, width, 16, 16)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class PublishedViT(nn.Module):
    """timm's, MAE's and DINOv2's ViT on volumes of 32^3 voxels.

    `registers` are ``timm``'s (positions like the class token's), ``unembedded`` (timm's
    `no_embed_class`: positions for the patches alone) or ``dinov2``'s (put in after positions).
    """

    def __init__(
        self, depth=4, heads=2, chunks=0, qkv_bias=True, cls=True, registers=None, scaled=False,
        eps=1e-6,
    ):  # fmt: skip
        super().__init__()
        width, generator = 64 * heads, torch.Generator().manual_seed(3)
        self.registers, self.chunks = registers, chunks
        self.patch_embed = Patches(width)
        if cls:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        if registers:
            name = "register_tokens" if registers == "dinov2" else "reg_token"
            self.register_parameter(name, nn.Parameter(torch.zeros(1, 3, width)))
        own = {None: int(cls), "dinov2": int(cls), "timm": int(cls) + 3, "unembedded": 0}
        self.pos_embed = nn.Parameter(torch.zeros(1, own[registers] + 8, width))
        blocks = [Block(width, heads, qkv_bias, scaled, eps) for _ in range(depth)]
        if chunks:  # DINOv2's BlockChunk: the second number goes on counting
            size = depth // chunks
            blocks = [
                nn.ModuleList([nn.Identity()] * start + blocks[start : start + size])
                for start in range(0, depth, size)
            ]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width, eps)
        for name, parameter in self.named_parameters():
            # tokens of little variance, so that eps shows
            std = 3e-4 if name == "patch_embed.proj.weight" else 0.03
            one = 1.0 if "gamma" in name or ("norm" in name and "weight" in name) else 0.0
            nn.init.normal_(parameter, one, std if one == 0 else 0.3, generator=generator)

    def tokens(self, x):
        x = self.patch_embed(x)
        first = [self.cls_token] if hasattr(self, "cls_token") else []
        late = self.registers == "dinov2"
        if self.registers and not late:
            first.append(self.reg_token)
        first = [token.expand(len(x), -1, -1) for token in first]
        if self.registers == "unembedded":
            return torch.cat([*first, x + self.pos_embed], dim=1)
        x = torch.cat([*first, x], dim=1) + self.pos_embed
        if late:
            x = torch.cat([x[:, :1], self.register_tokens.expand(len(x), -1, -1), x[:, 1:]], dim=1)
        return x

    def forward(self, x):
        x, hidden = self.tokens(x), []
        for block in self.blocks if not self.chunks else [b for c in self.blocks for b in c]:
            if isinstance(block, nn.Identity):
                continue
            x = block(x)
            hidden.append(x)
        taps = [hidden[k * len(hidden) // 4] for k in (1, 2, 3)]
        return [tap[:, -8:] for tap in [*taps, self.norm(x)]]


def volumes():
    return torch.randn(2, 1, 32, 32, 32, generator=torch.Generator().manual_seed(1)).double()


def assert_same_taps(path, expected, **rest):
    """At the file's own grid; one channel, so that the encoder is all there is."""
    network = network_for_encoder(
        path, 1, 1, (32, 32, 32), regime="frozen", feature_size=4, **rest
    ).double()
    for tap, theirs in zip(network.encoder(volumes()), expected, strict=True):
        assert theirs.abs().max() > 1e-3
        assert (tap[:, 0] - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    return network


DINO = {"depth": 8, "chunks": 4, "scaled": True}  # 3DINO's form: ViT-L, 24 blocks in 4 chunks
FORMS = {
    "MAE": ({}, lambda s: {"model": s | {"mask_token": s["cls_token"]}}),
    "timm": ({"cls": False, "qkv_bias": False}, lambda s: s),
    "timm, registers": ({"registers": "timm", "scaled": True}, lambda s: under("module.", s)),
    "timm, no_embed_class": ({"registers": "unembedded"}, lambda s: under("encoder.", s)),
    "DINOv2, registers": ({**DINO, "registers": "dinov2"}, lambda s: {"model_state_dict": s}),
    "3DINO": (
        DINO,
        lambda s: {
            "student": under("backbone.", s),
            "teacher": under("backbone.", s) | {"dino_head.mlp.0.weight": torch.zeros(3)},
        },
    ),
    "DINO, flat": (
        {},
        lambda s: (
            under("student.backbone.", {k: 0 * v for k, v in s.items()})
            | under("teacher.backbone.", s)
        ),
    ),
    "nnssl's wrapper": ({}, lambda s: {"network_weights": under("encoder.", s)}),
}


def under(prefix, state):
    return {f"{prefix}{k}": v for k, v in state.items()}


@pytest.mark.parametrize("form", FORMS)
def test_published_forms_give_the_taps_of_their_own_implementation(torch_file, form):
    options, wrap = FORMS[form]
    source = PublishedViT(**options)
    network = assert_same_taps(torch_file(wrap(source.state_dict())), source.double()(volumes()))
    assert network.config["norm_eps"] == 1e-6
    assert network.config["qkv_bias"] == options.get("qkv_bias", True)


def test_the_agreement_is_not_for_want_of_a_difference():
    """Each part that a plain ViT lacks moves the taps by far more than they may differ."""
    exact = PublishedViT(**DINO).double()
    taps, state = exact(volumes()), exact.state_dict()
    others = [PublishedViT(**DINO, eps=1e-5).double()]
    others[0].load_state_dict(state)
    for part in ("gamma", "cls_token", "qkv.bias"):
        others.append(PublishedViT(**DINO).double())
        others[-1].load_state_dict(
            {k: torch.full_like(v, part == "gamma") if part in k else v for k, v in state.items()}
        )
    for other in others:
        moved = (other(volumes())[3] - taps[3]).abs().max() / taps[3].abs().max()
        assert moved > 1e-4


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_layer_scale_is_folded_in_full_precision(torch_file, half):
    source = PublishedViT(scaled=True).to(half)
    assert_same_taps(torch_file(source.state_dict()), source.double()(volumes()))


def test_perceptron_patches_of_unetr_btcv_are_the_equal_convolution(torch_file):
    torch.manual_seed(4)
    unetr = UNETR(
        1, 14, (32, 32, 32), feature_size=4, hidden_size=64, mlp_dim=96, num_heads=1,
        proj_type="perceptron",
    ).double()  # fmt: skip
    state = {k: v.float() for k, v in unetr.state_dict().items()}
    unetr.load_state_dict({k: v.double() for k, v in state.items()})
    # MONAI made it and used it nowhere
    state["vit.patch_embedding.cls_token"] = torch.ones(1, 1, 64)
    normed, hidden = unetr.vit(volumes())
    assert_same_taps(torch_file(state), [hidden[3], hidden[6], hidden[9], normed])


def test_monais_self_supervised_vit_gives_its_taps(torch_file):
    torch.manual_seed(4)
    vit = ViTAutoEnc(1, (32, 32, 32), (16, 16, 16), hidden_size=128, mlp_dim=96, num_layers=4,
                     num_heads=2)  # fmt: skip
    path = torch_file({"state_dict": vit.state_dict(), "epoch": 3})
    x = vit.double().patch_embedding(volumes())
    hidden = [x := block(x) for block in vit.blocks]
    assert_same_taps(path, [*hidden[1:4], vit.norm(x)])


@pytest.mark.parametrize("qkv_bias", [False, True])
def test_monais_vit_may_have_a_qkv_bias(build_vit, torch_file, qkv_bias):
    vit = build_vit(img_size=(32, 32, 32), qkv_bias=qkv_bias)
    path = torch_file({"state_dict": under("backbone.", vit.state_dict())})  # BrainIAC's form
    normed, hidden = vit.double()(volumes())
    assert_same_taps(path, [*hidden[1:4], normed], num_heads=4)


def test_prefix_tokens_are_trained_with_the_encoder_or_not_at_all(torch_file):
    path = torch_file(PublishedViT(**DINO).state_dict())
    for regime, trained in (("finetune", True), ("frozen", False), ("lora", False)):
        network = network_for_encoder(path, 2, 1, (32, 32, 16), regime=regime, feature_size=4)
        assert network.encoder.prefix_tokens.requires_grad is trained


def test_positions_of_prefix_tokens_stay_when_the_others_are_resampled(torch_file):
    source = PublishedViT()
    network = network_for_encoder(
        torch_file(source.state_dict()), 1, 1, (48, 32, 16), regime="frozen", feature_size=4
    )
    token = source.cls_token + source.pos_embed[:, :1]
    torch.testing.assert_close(network.encoder.prefix_tokens, token)


def changed(**tensors):
    state = PublishedViT(scaled=True).state_dict()
    return {k: v for k, v in (state | tensors).items() if v is not None}


SAM = "image_encoder.blocks.0."
REFUSED = {
    "SAM-Med3D": (
        {f"{SAM}norm1.weight": torch.ones(4), f"{SAM}attn.rel_pos_d": torch.ones(3, 4)},
        "found the image encoder of SAM .*relative positions and attention in windows",
    ),
    "Primus": (
        {"encoder.eva.blocks.0.norm1.weight": torch.ones(4)},
        "found Primus or another EVA .*rotary positions, gated MLPs",
    ),
    "DINOv3": (
        {**ENCODER, "rope_embed.periods": torch.ones(4)}, "found a ViT such as DINOv3's .*rotary"
    ),
    "2D": (
        changed(**{"patch_embed.proj.weight": torch.ones(128, 3, 16, 16)}),
        r"patch size \[16, 16\], input channels 3; this network has \[16, 16, 16\]",
    ),
    "three channels": (
        changed(**{"patch_embed.proj.weight": torch.ones(128, 3, 16, 16, 16)}),
        r"input channels 3; this network has 1 \(each image channel is",
    ),
    "another patch": (
        changed(**{"patch_embed.proj.weight": torch.ones(128, 1, 8, 8, 8)}),
        r"patch size \[8, 8, 8\]; this network has \[16, 16, 16\]",
    ),
    "linear patches": (
        changed(**{"patch_embed.proj.weight": torch.ones(128, 4096)}),
        "patch embedding linear; this network has conv",
    ),
    "decoder alone": (
        {"decoder_blocks.0.norm1.weight": torch.ones(4)}, "expected .* found a decoder alone"
    ),
    "two": (
        {f"{n}.{k}": v for n in ("query", "key") for k, v in ENCODER.items()},
        r"expected the blocks of one ViT .* found \['query.', 'key.'\]",
    ),
    "none": ({"conv.weight": torch.ones(1)}, "expected the blocks of one ViT .* found none among"),
    "gated": (
        changed(**{"blocks.0.mlp.w12.weight": torch.ones(4)}),
        r"found a ViT such as DINOv2's giant .*gated MLPs \(SwiGLU\)",
    ),
    "normalised queries": (
        changed(**{"blocks.0.attn.q_norm.weight": torch.ones(4)}),
        "has 1 block weights that the shared encoder has no place for, .*q_norm",
    ),
    "factors of another width": (
        changed(**{"blocks.0.ls1.gamma": torch.ones(4)}), r"'blocks.0.ls1.gamma' has shape \[4\]"
    ),
    "factors that are no numbers": (
        changed(**{"blocks.0.ls1.gamma": torch.full((128,), torch.nan)}),
        "found 'blocks.0.ls1.gamma' as 128 of",
    ),
    "class token of another form": (
        changed(cls_token=torch.ones(128)), r"'cls_token' has shape \[128\]; expected"
    ),
    "no positions": (changed(pos_embed=None), "lacks 1 encoder weights, .*position_embeddings"),
    "another number of positions": (
        changed(pos_embed=torch.ones(1, 12, 128)), "12 position embeddings fit neither"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_plain_vit_of_one_channel_is_refused_in_one_sentence(torch_file, what):
    state, sentence = REFUSED[what]
    with pytest.raises(ValueError, match=rf"vit\.pt: {sentence}") as error:
        network_for_encoder(torch_file(state), 1, 1, (32, 32, 32), regime="frozen", feature_size=4)
    assert "\n" not in str(error.value)


def test_swin_transformer_is_refused_by_its_name(torch_file, small_network):
    swin = SwinUNETR(1, 2, feature_size=12, spatial_dims=3).swinViT
    with pytest.raises(ValueError, match=r"found a Swin transformer .*shifted windows"):
        load_encoder(small_network(), torch_file(swin.state_dict()))


def test_prefix_is_taken_off_and_other_keys_are_listed():
    tensors = under("module.vit.", ENCODER) | {"module.out.bias": torch.ones(1)}
    vit = plain_vit(tensors, "v.pt")
    assert vit.tensors == ENCODER
    assert vit.skipped == ["module.out.bias"]


def test_masked_autoencoders_last_block_entry_is_its_final_norm():
    vit = plain_vit({**ENCODER, "blocks.1.bias": torch.ones(2)}, "v.pt")
    assert vit.tensors.keys() == {*ENCODER, "norm.bias"}


@pytest.mark.parametrize("decoder", ["decoder_blocks.", "decoder.blocks."])
def test_decoder_blocks_are_not_taken_for_the_encoders(decoder):
    tensors = {**ENCODER, f"{decoder}0.norm1.weight": torch.ones(1)}
    vit = plain_vit(tensors, "v.pt")
    assert torch.equal(vit.tensors["blocks.0.norm1.weight"], ENCODER["blocks.0.norm1.weight"])
