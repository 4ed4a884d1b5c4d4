"""The network's picture says what the network does."""

from lora_ext.figures import architecture_figure, save_figure


def test_the_picture_names_every_part_and_can_be_saved(tmp_path):
    figure = architecture_figure()
    save_figure(figure, tmp_path / "architecture.png")
    assert (tmp_path / "architecture.png").stat().st_size < 150_000
    texts = [text.get_text() for text in figure.axes[0].texts]
    for part in ("shared ViT encoder", "channel fusion", "UNETR decoder", "$A_4$\n$B_4$"):
        assert part in texts
    assert sum("Linear" in text for text in texts) == 4  # one fusion per tap
    assert sum("frozen" in text for text in texts) == 1


def test_no_text_leaves_the_picture():
    figure = architecture_figure()
    figure.canvas.draw()
    for text in figure.axes[0].texts:
        box = text.get_window_extent()
        if text.get_text():
            assert figure.bbox.x0 <= box.x0
            assert box.x1 <= figure.bbox.x1
            assert figure.bbox.y0 <= box.y0
            assert box.y1 <= figure.bbox.y1
