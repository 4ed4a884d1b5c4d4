"""The page is read back as HTML: numbers, order, pictures, links and escaping."""

import re
from html.parser import HTMLParser

import pytest
import torch

from lora_ext.evaluation import case_metrics
from lora_ext.evaluation.page import figure_path, write_page

REGIONS = {"TC": [2], "WT": [1, 2]}


def measured(name, overlap):
    prediction, truth = torch.zeros(2, 8, 8, 8), torch.zeros(2, 8, 8, 8)
    truth[:, :4, 2, 2] = 1
    prediction[:, 4 - overlap : 8 - overlap, 2, 2] = 1
    return case_metrics(prediction, truth, (1.0, 1.0, 5.0), REGIONS, case=name)


class Text(HTMLParser):
    def __init__(self):
        super().__init__()
        self.cells, self.images, self.headings = [], [], []
        self.tag = ""

    def handle_starttag(self, tag, attributes):
        self.tag = tag
        if tag == "img":
            self.images.append(dict(attributes)["src"])

    def handle_data(self, data):
        if self.tag in ("td", "a"):
            self.cells.append(data.strip())
        if self.tag == "h2":
            self.headings.append(data.strip())
        self.tag = ""


@pytest.fixture
def page(tmp_path):
    cases = [measured("good one", 4), measured("bad & <odd>", 1)]
    picture = tmp_path / figure_path("good one")
    picture.parent.mkdir()
    picture.write_bytes(b"")
    write_page(tmp_path / "report.html", cases, "from <volumes>")
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_cases_stand_worst_first_with_their_numbers(page):
    text = Text()
    text.feed(page)
    assert text.headings[1:] == ["bad & <odd>", "good one"]
    for value in ("1.000", "0.250", "0.02"):  # Dice 4 of 4 and 1 of 4 voxels, 4 x 5 mm3 in ml
        assert value in text.cells


def test_pictures_are_shown_where_there_are_any(page):
    text = Text()
    text.feed(page)
    assert text.images == [figure_path("good one")]
    assert page.count("No picture") == 1


def test_names_are_escaped_and_links_lead_somewhere(page):
    assert "<odd>" not in page
    assert "Encoder: from &lt;volumes&gt;" in page
    targets = set(re.findall(r'id="([^"]+)"', page))
    assert set(re.findall(r'href="#([^"]+)"', page)) == targets
    assert len(targets) == 2


def test_page_needs_nothing_from_elsewhere(page):
    assert "http" not in page
    assert "<script" not in page


@pytest.mark.parametrize("case", ["../a b/c", "a#b", "a?b", "", "..", "é" * 300, "=1+1", "a\nb"])
def test_any_case_name_gives_a_plain_file_name_inside_the_folder(case, tmp_path):
    assert figure_path("BRATS_001") == "figures/BRATS_001.png"
    assert re.fullmatch(r"figures/[\w-][\w.-]*\.png", figure_path(case))
    (tmp_path / "figures").mkdir()
    (tmp_path / figure_path(case)).touch()  # a name that the file system takes


@pytest.mark.parametrize(
    "names", [["a b", "a_b", "a  b", "a/b"], [".a", "a", "..a"], ["x" * 120 + c for c in "ab"]]
)
def test_cases_with_like_names_have_a_picture_each(names):
    assert len({figure_path(name) for name in names}) == len(names)
