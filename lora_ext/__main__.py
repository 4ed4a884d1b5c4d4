"""The command line: ``python -m lora_ext VERB``, a verb a function, flags as in monai.bundle."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import fire


def params(json: bool = False, backbone: str = "unetr") -> None:
    """Print the parameter counts of all segmentation bundles beside the paper's Table 2.

    Args:
        json: print JSON, with exact integers, in place of the table.
        backbone: unetr, the paper's, or swin_unetr.
    """
    from lora_ext.bundles.parameter_table import format_table, parameter_table

    table = parameter_table(backbone)
    print(_dump(table) if json else format_table(table))


def phantom(
    task: str,
    out: str,
    cases: int = 24,
    seed: int = 0,
    size: Any = (128, 128, 48),
    test_cases: int = 2,
) -> None:
    """Write a phantom task in MSD layout.

    Args:
        task: brats or prostatex.
        out: folder to write.
        cases: number of labelled cases.
        seed: same seed, same files.
        size: voxels along each axis, such as 128,128,48.
        test_cases: number of cases without labels.
    """
    from lora_ext.phantoms import write_phantoms

    print(write_phantoms(task, out, cases=cases, seed=seed, size=size, test_cases=test_cases))


def download(task: str, data_dir: str, url: str | None = None, keep_archive: bool = False) -> None:
    """Download a task of the Medical Segmentation Decathlon; a broken download is resumed.

    Args:
        task: brats (Task01_BrainTumour) or prostatex (Task05_Prostate).
        data_dir: folder to write the task's folder to.
        url: address of the archive in place of MONAI's; its checksum is compared all the same.
        keep_archive: keep the archive after the extraction.
    """
    from lora_ext.data.download import download_task, next_command

    folder = download_task(task, data_dir, url=url, keep_archive=keep_archive)
    print(f"{folder}\ntrain: {next_command(task, folder)}")


def bundles(
    write: bool = False,
    check: bool = False,
    list: bool = False,  # noqa: A002 (it is the flag's name)
    root: str = "bundles",
) -> None:
    """Write the bundles from their source, check that they agree with it, or list them.

    Args:
        write: write every bundle below root.
        check: exit with 1 and name the differences if a file disagrees with the source.
        list: print the bundles' names, titles and data.
        root: the folder of bundles.
    """
    from lora_ext.bundles import generator

    if write + check + list != 1:
        raise ValueError("bundles needs exactly one of --write, --check, --list")
    if list:
        for name, facts in generator.all_facts().items():
            print(f"{name:<20} {facts['regime_title']}, {facts['dataset_title']}")
    elif write:
        generator.write_bundles(Path(root))
        print(f"wrote {len(generator.all_facts())} bundles to {root}/")
    elif problems := generator.check_bundles(Path(root)):
        sys.exit("\n".join([*problems, "fix: python -m lora_ext bundles --write"]))
    else:
        print(f"{len(generator.all_facts())} bundles agree with their source")


def new_bundle(
    data: str,
    out: str,
    regime: str = "lora32",
    overwrite: bool = False,
    labels: Any = None,
    **settings: Any,
) -> None:
    """Plan a bundle for your data, print the plan with its reasons, and write the bundle.

    Args:
        data: the data set's folder.
        out: the bundle's folder, such as bundles/mytask_lora32; its name becomes the bundle's.
        regime: baseline, finetune, frozen, lora16, lora32 or lora64.
        overwrite: write into a folder that is there; its models and reports stay.
        labels: names of the label values where the data set gives none, "{'1': 'tumour'}".
        **settings: settings in place of planned ones, such as --spacing "[1,1,3]", --roi_size,
            --regions, --modalities, --intensity, --pretrained; python -m lora_ext settings lists
            them.
    """
    from lora_ext.bundles import new_bundle as made

    plan = made.new_bundle(data, out, regime, overwrite=overwrite, labels=labels, **settings)
    for name, decision in plan.items():
        print(f"{name:<16} {_dump_line(decision.value)}\n{'':<16} {decision.reason}")
    config = Path(out) / "configs" / "train.json"
    print(f"train: python -m monai.bundle run training --config_file {config}")


def settings(bundle: str = "brats_lora32", config: str | None = None) -> None:
    """Print every setting of a bundle: its default, type, range, unit and meaning.

    Args:
        bundle: a bundle's name.
        config: train (evaluation too) or inference; by default both.
    """
    from lora_ext.bundles.generator import all_facts
    from lora_ext.bundles.settings_tables import settings_text

    facts = all_facts()
    if bundle not in facts:
        raise ValueError(f"bundle: expected one of {', '.join(facts)}; got {bundle!r}")
    print(settings_text(facts[bundle]["kind"], facts[bundle], config))


def encoders() -> None:
    """Print the known public single-channel 3D encoders: what they are, and what to pass."""
    from lora_ext.weights.published import encoder_table

    print(encoder_table())


def probe(
    encoder: str,
    data: str,
    modalities: Any = None,
    out: str | None = None,
    cases: int = 40,
    seed: int = 0,
    device: str | None = None,
    num_heads: int | None = None,
    **settings: Any,
) -> None:
    """Say what an encoder knows of a data set's labels before any fine-tuning (R^2 per label).

    Args:
        encoder: file or address, as for --pretrained.
        data: a labelled data set of any layout.
        modalities: names of the channels, such as FLAIR,T1w; by default all.
        out: folder for probe.json.
        cases: how many cases to take at most.
        seed: of the draws, the folds and the random weights that stand beside.
        device: cpu, cuda, ...; by default a GPU where there is one.
        num_heads: attention heads of an encoder whose file does not tell.
        **settings: roi_size, spacing, intensity, ct_window, pet_window as in the bundles, in place
            of those in the record beside the encoder.
    """
    from lora_ext.bundles.settings import check_values
    from lora_ext.files import make_folder, whole_file
    from lora_ext.pretraining.probe import PREPARED, probe_encoder

    allowed = ("roi_size", *PREPARED)
    if unknown := sorted(settings.keys() - set(allowed)):
        raise ValueError(f"--{unknown[0]}: expected one of {', '.join(allowed)}")
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}
    check_values(settings)
    names = modalities.split(",") if isinstance(modalities, str) else modalities
    sizes = {} if num_heads is None else {"num_heads": num_heads}
    found = probe_encoder(
        str(encoder), str(data), names, cases=cases, seed=seed, device=device, sizes=sizes,
        **settings,
    )  # fmt: skip
    print(found)
    if out is not None:
        make_folder(out)
        with whole_file(Path(out) / "probe.json") as draft:
            draft.write_text(_dump(found.record()) + "\n", encoding="utf-8")


def export_encoder(ckpt_dir: str, out: str, overwrite: bool = False) -> None:
    """Write a pre-trained encoder in Hugging Face form: weights, config.json, model card.

    Args:
        ckpt_dir: the models folder of a mae_pretrain training.
        out: the folder to write.
        overwrite: replace a model card that is there.
    """
    from lora_ext.bundles.hub import export_encoder as export

    folder = export(ckpt_dir, out, overwrite)
    print(f"{folder}\nfill in the licence in its README.md, then: hf upload OWNER/NAME {folder}")


def package(bundle: str, out: str, models: str | None = None, **settings: Any) -> None:
    """Write a bundle as a zip file that needs no installed lora_ext, and the wheel beside it.

    Args:
        bundle: a bundle's name or folder.
        out: folder to write to.
        models: folder of the trained files; by default the bundle folder's own models/.
        **settings: settings to bake in, such as --epochs 100; those that the weights were trained
            with are known from their record.
    """
    from lora_ext.bundles.package import package_bundle

    packed = package_bundle(bundle, out, models, **settings)
    weights = "with trained weights" if packed.trained else "without trained weights"
    print(f"{packed.archive} ({packed.archive.stat().st_size / 1e6:.1f} MB, {weights})")
    print(packed.wheel or "no wheel was made: lora_ext does not run from its source checkout")


def overlay(
    image: str,
    prediction: str,
    out: str,
    truth: str | None = None,
    bundle: str = "brats_lora32",
    channel: int = 0,
) -> None:
    """Draw image, ground truth and prediction in three planes to a PNG.

    Args:
        image: NIfTI, NRRD or MetaImage file (channels last), or the folder of a DICOM series.
        prediction: label map.
        out: the PNG to write.
        truth: label map of the ground truth, if there is one.
        bundle: the bundle whose regions are drawn.
        channel: index of the image channel to show.
    """
    from lora_ext.bundles.generator import bundle_facts
    from lora_ext.figures import overlay_from_files

    regions = bundle_facts()[bundle]["regions"]
    print(overlay_from_files(image, truth, prediction, regions, out, channel=channel))


def inspect(data: str, out: str | None = None, modalities: Any = None, channel: int = 0) -> None:
    """Read every file of a data set once: tables, all faults, outliers, a picture of each case.

    Args:
        data: a data set of any layout, or the JSON file that lists it.
        out: folder for inspection.html and contact_sheet.png; without it nothing is drawn.
        modalities: names of the channels, such as FLAIR,T1w, where the data set has none.
        channel: index of the channel that is drawn.
    """
    from lora_ext.evaluation.inspection import inspect_data

    names = modalities.split(",") if isinstance(modalities, str) else modalities
    print(inspect_data(str(data), out, names, channel))


def study(
    data_dir: str,
    out: str,
    bundles: Any = None,
    seeds: Any = 0,
    folds: Any = 0,
    reference: Any = None,
    **settings: Any,
) -> None:
    """Train and evaluate bundles as a user would; the same command again resumes it.

    Args:
        data_dir: one task folder, or a folder that holds task folders.
        out: folder of the study: results.json, tables, plots, runs.
        bundles: names such as brats_lora32,brats_frozen; by default all whose data set is there.
        seeds: one or more, such as 0,1,2.
        folds: one or more, such as 0,1.
        reference: reference networks beside the bundles: segresnet, dynunet, unetr.
        **settings: other settings of train.json, such as --epochs 20. Every regime but baseline
            needs --pretrained FILE (in its name {dataset}, {seed} and {fold} are filled in) or
            --pretrained none.
    """
    from lora_ext.study import run_study

    run_study(data_dir, out, bundles, seeds, folds, reference, **settings)


def ablation(
    data_dir: str,
    out: str,
    ranks: Any = (4, 8, 16, 32, 64, 128),
    scalings: Any = ("rank_stabilised", "classical"),
    placements: Any = "out_proj,linear1;qkv,out_proj;qkv,out_proj,linear1,linear2",
    bundle: str = "brats_lora32",
    seeds: Any = 0,
    folds: Any = 0,
    **settings: Any,
) -> None:
    """Compare ranks, scalings and placements of the adapters; the same command again resumes it.

    Args:
        data_dir: one task folder, or a folder that holds task folders.
        out: folder of the ablation: ablation.json, ablation.md, ablation.png, a folder per variant.
        ranks: one or more; every scaling is run at each, at the bundle's own placement.
        scalings: rank_stabilised (alpha/sqrt(r)), classical (alpha/r), or both.
        placements: linear layers with adapters, semicolons between placements; each is run at
            rank 32, rank-stabilised.
        bundle: a bundle with adapters.
        seeds: one or more, such as 0,1,2.
        folds: one or more, such as 0,1.
        **settings: other settings of train.json; --pretrained FILE or --pretrained none is needed.
    """
    from lora_ext.study import run_ablation

    run_ablation(data_dir, out, ranks, scalings, placements, bundle, seeds, folds, **settings)


def _dump(table: dict) -> str:
    return json.dumps(table, indent=2)


def _dump_line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def main() -> None:
    """Run a verb; bad input ends with one sentence and exit code 2, not with a traceback."""
    verbs = {
        "params": params,
        "phantom": phantom,
        "download": download,
        "bundles": bundles,
        "new_bundle": new_bundle,
        "settings": settings,
        "encoders": encoders,
        "probe": probe,
        "export_encoder": export_encoder,
        "package": package,
        "study": study,
        "ablation": ablation,
        "overlay": overlay,
        "inspect": inspect,
    }
    try:
        fire.Fire(verbs, name="lora_ext")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; the same command goes on, or starts again", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
