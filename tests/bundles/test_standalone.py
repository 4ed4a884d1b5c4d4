import json
import re

import pytest

from lora_ext.bundles.generator import all_facts, render_bundle
from lora_ext.bundles.standalone import IMPORT, standalone, uses_package

METADATA = "configs/metadata.json"


def configs(name):
    """The configs of a bundle, by path."""
    files = render_bundle(all_facts()[name])
    paths = [path for path in files if path.endswith(".json") and path != METADATA]
    return {path: json.loads(files[path]) for path in paths}


def texts(node):
    if isinstance(node, dict):
        return [text for value in node.values() for text in texts(value)]
    if isinstance(node, list):
        return [text for value in node for text in texts(value)]
    return [node] if isinstance(node, str) else []


@pytest.mark.parametrize("name", all_facts())
def test_every_use_of_the_package_waits_for_the_item_that_loads_it(name):
    new = [standalone(old, path) for path, old in configs(name).items()]
    expressions = [text for text in texts(new) if text.startswith("$")]
    assert IMPORT not in expressions
    uses = [text for text in expressions if re.search(r"\blora_ext\.", text)]
    assert len(uses) > 10
    assert not any(re.search(r"(?<!@)\blora_ext\.", text) for text in uses)


@pytest.mark.parametrize("name", all_facts())
def test_nothing_else_changes(name):
    for path, old in configs(name).items():
        new = standalone(old, path)
        for key in new.keys() & old.keys() - {"imports", "network_def"}:
            assert json.loads(json.dumps(new[key]).replace("@lora_ext.", "lora_ext.")) == old[key]
        assert old.keys() <= new.keys()
        if "network_def" in old:
            assert new["network_def"] == old["network_def"] | {"_requires_": "@lora_ext"}


def test_config_that_does_not_use_the_package_stays_as_it_is():
    config = {"imports": ["$import monai"], "network_def": {"_target_": "UNet"}}
    assert not uses_package(config)
    assert standalone(config, "train.json") == config


@pytest.mark.parametrize("line", ["$from lora_ext import data", "$import lora_ext.data as d"])
def test_other_ways_to_import_the_package_are_refused(line):
    with pytest.raises(ValueError, match=r"train.json: imports.*takes '\$import lora_ext' alone"):
        standalone({"imports": [line]}, "train.json")
