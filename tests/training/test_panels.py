from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lora_ext.training import OverlayPanels

REGIONS = {"TC": [2, 3], "WT": [1, 2, 3], "ET": [3]}


def test_each_validation_leaves_one_image_with_its_epoch(tmp_path, small_network, build):
    panels = OverlayPanels(tmp_path, REGIONS, ["FLAIR", "t1gd"])
    trainer, _ = build(small_network(), lambda v, o: ([], []), epochs=2, val_handlers=[panels])
    trainer.run()
    panels.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    images = events.Images("validation")
    assert [image.step for image in images] == [1, 2]
    assert min(images[0].width, images[0].height) > 200


def test_interval_skips_validations(tmp_path, small_network, build):
    panels = OverlayPanels(tmp_path, REGIONS, ["FLAIR", "t1gd"], interval=2)
    trainer, _ = build(small_network(), lambda v, o: ([], []), epochs=3, val_handlers=[panels])
    trainer.run()
    panels.close()
    assert [i.step for i in EventAccumulator(str(tmp_path)).Reload().Images("validation")] == [1, 3]
