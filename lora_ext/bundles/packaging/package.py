"""One zip file that holds a bundle, its weights and the package that runs it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_ext.bundles.generator import lay_out
from lora_ext.bundles.packaging import contents
from lora_ext.bundles.packaging.archive import write_archive
from lora_ext.bundles.packaging.standalone import standalone, uses_package
from lora_ext.bundles.packaging.wheel import build_wheel


@dataclass(frozen=True)
class Packaged:
    """What `package_bundle` wrote.

    Attributes:
        archive: the zip file.
        wheel: the wheel beside it; ``None`` where there is no checkout to build it from.
        trained: whether the archive holds trained weights.
    """

    archive: Path
    wheel: Path | None
    trained: bool


def package_bundle(
    bundle: str | os.PathLike[str],
    out: str | os.PathLike[str],
    models: str | os.PathLike[str] | None = None,
    **knobs: Any,
) -> Packaged:
    """Write ``<bundle>_v<version>.zip``, which needs no installed `lora_ext`, and the wheel.

    Args:
        bundle: a bundle's folder, or a name: its folder in ``./bundles``, or where that is absent
            the bundle as the package's own source makes it.
        out: folder to write to.
        models: folder of the trained files; by default the bundle folder's own ``models``, if any.
        **knobs: settings to bake in, such as ``spacing=[1.0, 1.0, 2.0]``. The sizes of the weights
            need not be given: ``network.json`` says them.

    Returns:
        The files written.

    Raises:
        ValueError: for an unknown bundle, a folder without trained files, or knobs that are
            unknown, of another JSON type, or do not fit the weights.
    """
    folder = contents.bundle_folder(bundle)
    weights = contents.weight_files(models, folder)
    plain = json.loads(json.dumps(knobs))  # a tuple from the command line is a list
    name, files = contents.bundle_files(bundle, folder, weights, plain)
    metadata = json.loads(files[contents.METADATA])
    entries: dict[str, bytes | Path] = {
        **_stand_alone(files),
        **weights,
        **contents.package_files(),
        "requirements.txt": contents.requirements(metadata),
    }
    archive = Path(out) / f"{name}_v{metadata['version']}.zip"
    write_archive(archive, {f"{name}/{path}": content for path, content in entries.items()})
    return Packaged(archive, build_wheel(Path(out)), bool(weights))


def _stand_alone(files: dict[str, bytes]) -> dict[str, bytes]:
    """Make the configs of a bundle find the package, if they use it."""
    paths = [k for k in files if k.startswith("configs/") and k.endswith(".json")]
    configs = {path: json.loads(files[path]) for path in paths if path != contents.METADATA}
    if not any(uses_package(config) for config in configs.values()):
        return files
    new = {path: lay_out(standalone(config, path)) + "\n" for path, config in configs.items()}
    return files | {path: text.encode() for path, text in new.items()}
