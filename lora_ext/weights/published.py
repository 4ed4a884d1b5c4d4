"""The public single-channel 3D encoders that are known, and whether they are taken.

Read from source repositories and model cards in November 2026; no weight file was opened. What is
only said by a model card is marked so.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

COLUMNS = (
    "Encoder", "Architecture", "Patch, grid", "Pre-trained on", "Licence", "Where", "Flag",
    "Taken",
)  # fmt: skip


@dataclass(frozen=True)
class PublishedEncoder:
    """One public encoder, a cell of the table each.

    Attributes:
        name: what it is called.
        architecture: width x blocks, heads, and what a plain ViT does not have.
        grid: patch size and input size in voxels.
        data: what it was pre-trained on.
        licence: of the weights.
        source: where they are.
        flag: what to pass; empty where it is not taken.
        taken: exactly, or not and why.
    """

    name: str
    architecture: str
    grid: str
    data: str
    licence: str
    source: str
    flag: str
    taken: str


EXACTLY = "exactly"
PUBLISHED = (
    PublishedEncoder(
        "BrainIAC", "ViT-B (MONAI): 768 x 12, 12 heads", "16^3, 96^3",
        "about 32,000 to 49,000 brain MR volumes", "non-commercial",
        "AIM-KannLab/BrainIAC; Hugging Face eugenehp/brainiac",
        "`--pretrained hf://eugenehp/brainiac/backbone.safetensors`", EXACTLY,
    ),
    PublishedEncoder(
        "3DINO-ViT", "ViT-L (DINOv2): 1024 x 24, 16 heads, class token, qkv bias, LayerScale",
        "16^3, 96^3 then 112^3", "about 100,000 MR and CT volumes", "CC BY-NC-ND",
        "AICONSlab/3DINO", "`--pretrained FILE`",
        f"{EXACTLY}: the teacher, its class token kept, LayerScale folded into the weights",
    ),
    PublishedEncoder(
        "UNETR BTCV", "ViT-B (MONAI): 768 x 12, 12 heads, perceptron patches", "16^3, 96^3",
        "BTCV abdominal CT, supervised", "see its repository",
        "Project-MONAI/research-contributions", "`--pretrained FILE`", EXACTLY,
    ),
    PublishedEncoder(
        "MONAI ViTAutoEnc", "ViT-B (MONAI): 768 x 12, 12 heads", "16^3, 96^3",
        "CT, self-supervised (MONAI tutorials)", "see its repository",
        "Project-MONAI/tutorials", "`--pretrained FILE`", EXACTLY,
    ),
    PublishedEncoder(
        "timm, MAE and DINOv2 ViTs", "any size, on one channel, plain MLPs", "16^3, any",
        "any", "its own", "any", "`--pretrained FILE`",
        f"{EXACTLY}: class token and registers kept, LayerScale folded; LayerNorm eps is taken as "
        "1e-6, as theirs is",
    ),
    PublishedEncoder(
        "SAM-Med3D, SAM-Med3D-turbo", "768 x 12, qkv bias, relative positions, windows of 14",
        "16^3, 128^3", "3D images with masks", "see its repository", "uni-medical/SAM-Med3D", "",
        "no: relative positions are added to its attention and most blocks attend in windows, "
        "which a plain ViT does not compute",
    ),
    PublishedEncoder(
        "OpenMind Primus-M", "864 x 16, 12 heads, rotary positions, SwiGLU", "8^3",
        "OpenMind brain MR", "CC BY 4.0", "MIC-DKFZ/nnssl; Hugging Face", "",
        "no: rotary positions, gated MLPs and patches of 8^3 make it another architecture",
    ),
    PublishedEncoder(
        "Dinov3D-Neuro (card)", "DINOv3 ViT-B of width 792, class token, rotary positions",
        "16^3", "see its card", "see its card", "Hugging Face", "",
        "no: rotary positions",
    ),
    PublishedEncoder(
        "BrainG3N (card, gated)", "1152 x 12, 16 heads, class token", "16^3, 160x192x160",
        "see its card", "see its card", "Hugging Face", "`--pretrained FILE --num_heads 16`",
        "not known: its key names were not read; a plain ViT loads, anything else is refused",
    ),
    PublishedEncoder(
        "SwinUNETR SSL, BrainSegFounder, VoCo", "Swin transformer", "2^3, 96^3 and others",
        "5,050 CT; UK Biobank MR; CT", "see their repositories", "Project-MONAI and others",
        "`--backbone swin_unetr --pretrained FILE`",
        f"{EXACTLY}, where the encoder takes one channel; `--roi_size` in multiples of 32",
    ),
)  # fmt: skip


def encoder_table() -> str:
    """Lay the published encoders out as a Markdown table."""
    rows = [COLUMNS, ("---",) * len(COLUMNS), *map(astuple, PUBLISHED)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
