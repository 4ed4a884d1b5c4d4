import re
from pathlib import Path

import pytest

from lora_ext.__main__ import encoders
from lora_ext.weights.layouts import plain_vit
from lora_ext.weights.published import PUBLISHED, encoder_table

ROOT = Path(__file__).resolve().parents[2]


def test_table_of_the_document_is_the_commands(capsys):
    encoders()
    printed = capsys.readouterr().out.strip()
    assert printed == encoder_table()
    assert printed in (ROOT / "docs" / "own-encoder.md").read_text(encoding="utf-8")


def test_every_cell_is_filled_and_no_bar_splits_one():
    for row in encoder_table().splitlines():
        assert row.count("|") == 9
    for encoder in PUBLISHED:
        cells = vars(encoder)
        assert {name for name, text in cells.items() if not text} <= {"flag"}
        assert bool(encoder.flag) == (
            not re.match("no|not as", encoder.taken + " ") or encoder.taken.startswith("not known")
        )


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("SAM-Med3D", "image_encoder.blocks.0.attn.rel_pos_h"),
        ("Primus", "encoder.eva.blocks.0.attn.q_proj.weight"),
        ("Dinov3D", "rope_embed.periods"),
    ],
)
def test_what_the_table_says_is_not_taken_is_refused(name, key):
    (encoder,) = [e for e in PUBLISHED if name in e.name]
    assert encoder.taken.startswith("no")
    with pytest.raises(ValueError, match="have no place in a plain ViT"):
        plain_vit({key: None, "blocks.0.norm1.weight": None}, "v.pt")
