"""What inference does beyond one look at a case: ensembles, mirroring, probabilities, clean-up."""

from __future__ import annotations

import itk
import nibabel as nib
import numpy as np
import pytest
import torch

from lora_ext import ChannelLoRAUNETR
from lora_ext.bundles.starting import user_error
from lora_ext.weights import save_model

BUNDLE = "prostatex_baseline"
SIZES = {"feature_size": 4, "hidden_size": 24, "mlp_dim": 32, "num_layers": 4, "num_heads": 2}
RUN = {"num_workers": 0, "amp": False, "sw_overlap": 0.25}


def _network(seed, shift=(0.0, 0.0)):
    torch.manual_seed(seed)
    network = ChannelLoRAUNETR(
        2, 2, (32, 32, 16), regime="baseline", modalities=["T2", "ADC"], **SIZES
    )
    network.config.update(
        regions={"PZ": [1], "TZ": [2]}, spacing=[1.0, 1.0, 2.0], intensity="mr", fold=seed
    )
    (bias,) = (p for name, p in network.named_parameters() if name.endswith("out.conv.conv.bias"))
    with torch.no_grad():
        bias += torch.tensor(shift)
    return network


@pytest.fixture
def folds(tmp_path):
    """Folders of two models that answer differently."""
    folders = [tmp_path / "folds" / f"fold{number}" for number in range(2)]
    for seed, folder in enumerate(folders):
        save_model(_network(seed), folder / "model.pt")
    return folders


@pytest.fixture
def infer(run_workflow, tasks, tmp_path):
    """A function that segments the unlabelled phantom -> its labels and its probabilities."""

    def run(name, ckpt_dir, **settings):
        own = {"save_probabilities": True, **RUN, **settings}
        run_workflow(
            BUNDLE, "infer", dataset_dir=str(tasks["prostatex"]), output_dir=str(tmp_path / name),
            ckpt_dir=ckpt_dir, **own,
        )  # fmt: skip
        (path,) = (tmp_path / name).glob("*.nii.gz")
        maps = tmp_path / name / "probabilities" / path.name
        labels = np.asarray(nib.load(path).dataobj)
        return labels, nib.load(maps).get_fdata() if maps.exists() else None

    return run


def parts(mask):
    image = itk.image_from_array(mask.astype(np.uint8))
    return int(
        itk.array_from_image(
            itk.connected_component_image_filter(image, fully_connected=True)
        ).max()
    )


def test_probabilities_of_folds_are_averaged_and_saved(infer, folds, capsys):
    single = [infer(folder.name, str(folder)) for folder in folds]
    labels, maps = infer("both", str(folds[0].parent / "fold*"))
    assert "1 of 1 cases, 00:00 left" in capsys.readouterr().out
    mean = (single[0][1] + single[1][1]) / 2
    assert np.abs(single[0][1] - single[1][1]).max() > 0.05
    np.testing.assert_allclose(maps, mean, atol=1e-5)
    sure = np.abs(mean - 0.5).min(axis=3) > 1e-4
    expected = np.where(mean.max(axis=3) > 0.5, 1 + mean.argmax(axis=3), 0)
    assert (labels == expected)[sure & (np.abs(np.diff(mean, axis=3))[..., 0] > 1e-4)].all()
    listed, _ = infer("listed", [str(folder) for folder in folds], save_probabilities=False)
    assert (listed == labels).all()


def test_mirrored_looks_and_clean_up_reach_the_segmentation(infer, folds):
    _, maps = infer("first", str(folds[0]))
    inside = np.median(maps[(maps != maps[0, 0, 0]).all(axis=3)], axis=0)
    # so that PZ is on in about half of the voxels, and TZ nowhere
    shift = (float(-np.log(inside[0] / (1 - inside[0]))), -100.0)
    save_model(_network(0, shift), folds[0] / "model.pt")
    plain, maps = infer("plain", str(folds[0]))
    _, mirrored = infer("mirrored", str(folds[0]), mirror_axes=[0])
    assert 1e-3 < np.abs(mirrored - maps).max() < 1
    cleaned, same = infer("clean", str(folds[0]), largest_component=True)
    np.testing.assert_array_equal(same, maps)
    assert parts(plain) > 1
    assert parts(cleaned) == 1
    assert (cleaned <= plain).all()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"mirror_axes": [3]},
            "--mirror_axes: expected a list or empty list, of 0, 1, 2",
        ),
        (
            {"largest_component": ["WT"]},
            "--largest_component: expected True, False or names",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_work_starts(infer, folds, settings, said):
    with pytest.raises(RuntimeError) as caught:
        infer("refused", str(folds[0]), **settings)
    assert str(user_error(caught.value)).startswith(said)


def test_models_of_different_trainings_are_no_ensemble(infer, folds):
    network = ChannelLoRAUNETR(
        2, 2, (32, 32, 16), regime="baseline", modalities=["T2", "ADC"], **SIZES
    )
    save_model(network, folds[1] / "model.pt")
    with pytest.raises(RuntimeError) as caught:
        infer("refused", [str(folder) for folder in folds])
    assert "models of an ensemble agree in everything but fold" in str(user_error(caught.value))


def test_an_ensemble_is_for_inference_alone(run_workflow, tasks, folds):
    for kind in ("train", "evaluate"):
        with pytest.raises(RuntimeError) as caught:
            run_workflow(
                BUNDLE, kind, dataset_dir=str(tasks["prostatex"]), ckpt_dir=list(map(str, folds))
            )
        assert "--ckpt_dir: found several folders" in str(user_error(caught.value))
