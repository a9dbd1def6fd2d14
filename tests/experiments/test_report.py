"""Figures and report.html of the overoptimisation laboratory, from a result that is made of the laws themselves."""

import base64
import copy
import html
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.image import imread
from synthetic_result import FIGURES, HOSTILE, from_json, synthetic_result

from rlx.experiments.overoptimization.report import write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# In a copy of the page only: the page itself has no script
MEASURE = """<script>addEventListener("load", () => {
  const images = [...document.images].map(image => [image.naturalWidth, image.naturalHeight, image.clientWidth]);
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  document.title = JSON.stringify({images, wide});
});</script>"""


@pytest.fixture(scope="module")
def result():
    return synthetic_result()


@pytest.fixture(scope="module")
def folder(result, tmp_path_factory):
    """A folder with the report, made of the result as it is read from disk."""
    folder = tmp_path_factory.mktemp("report")
    assert write_report(from_json(result), folder) == folder / "report.html"
    return folder


class Page(HTMLParser):
    """What a test asks of a page: its tags with their attributes, its text, and whether tags are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.opened = [], "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "br"):
            self.opened.append(tag)

    def handle_endtag(self, tag):
        assert self.opened.pop() == tag

    def handle_data(self, data):
        if self.opened[-1:] != ["style"]:
            self.text += data

    def attributes(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "report.html").read_text("utf-8"))


def test_figures_are_pictures(folder):
    files = sorted((folder / "figures").iterdir())
    assert {file.name for file in files} == {f"{name}{end}" for name in FIGURES for end in (".png", ".svg")}
    for file in files:
        if file.suffix == ".svg":
            root = ElementTree.parse(file).getroot()
            assert root.tag == "{http://www.w3.org/2000/svg}svg"
            assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) > 10
        else:
            pixels = imread(file)
            assert pixels.shape[1] == 1200
            assert pixels[..., :3].std() > 0.02  # not empty


def test_page_is_whole(page, result):
    assert not page.opened
    assert not page.attributes("script")
    for world in result["worlds"]:
        assert world["description"] in page.text
        for arm in world["arms"]:
            assert arm["label"] in page.text
    for study in result["studies"]:
        assert study["title"] in page.text
        assert study["question"] in page.text
        assert study["finding"] in page.text
    for words in (result["command"], result["commit"], *result["versions"], *(s["name"] for s in result["stages"])):
        assert words in page.text
    assert '"vocabulary": 16' in page.text
    assert "mi ta <eos> & so" in page.text
    anchors = {attrs["href"] for attrs in page.attributes("a")}
    assert len(anchors) == 10 + len(result["studies"])
    assert anchors <= {f"#{attrs['id']}" for _, attrs in page.tags if "id" in attrs}


def test_page_holds_every_figure_and_needs_nothing_else(page, folder):
    images = page.attributes("img")
    assert [attrs["id"] for attrs in page.attributes("figure")] == [f"figure-{name}" for name in FIGURES]
    for name, attrs in zip(FIGURES, images, strict=True):
        kind, _, data = attrs["src"].partition(",")
        assert kind == "data:image/svg+xml;base64"
        assert base64.b64decode(data) == (folder / "figures" / f"{name}.svg").read_bytes()
        assert len(attrs["alt"]) > 40
    for _, attrs in page.tags:
        for name in ("src", "href", "style"):
            assert "//" not in attrs.get(name, "").partition(",")[0]
    style = re.search("<style>(.*)</style>", (folder / "report.html").read_text("utf-8"), re.DOTALL)
    assert style
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_numbers_are_those_of_the_result(page, result):
    """One row by hand: 132 parameters under PPO in world 0."""
    arm = next(arm for arm in result["worlds"][0]["arms"] if arm["name"] == "ppo-w132")
    fit, d = arm["fit"], arm["fit"]["located_peak_d"]
    peak = [f"{d[name] ** 2:.1f}" for name in ("mean", "low", "high")]
    row = "0.62[0.59, 0.65]0.540[0.520, 0.560]0.987{}[{}, {}]".format(*peak)
    assert row in page.text
    assert f"{fit['located_peak_gold']['mean']:.2f}[" in page.text
    assert "✗" in page.text
    assert "27 of 27" in page.text  # the law is the best of its rivals in every best-of-n arm


def test_signatures_of_one_world_are_named(page):
    assert "gold rises, then falls: only in world 0" in page.text
    assert "the proxy rises throughout: only" not in page.text
    assert "Of 9 signatures looked for, over all worlds, 4 come out, 2 do not and 3 are not decided." in page.text


@pytest.mark.parametrize("what", ["nothing", "no fits", "nulls", "no gao"])
def test_whatever_is_missing_is_no_error(result, tmp_path, what):
    result = copy.deepcopy(result) | {"studies": result["studies"][1:]}
    arms = [arm for world in result["worlds"] for arm in world["arms"]]
    if what == "nothing":
        result |= {"worlds": [], "studies": [], "signatures": [], "trends": [], "stages": [], "gao": None}
    elif what == "no fits":
        for arm in arms:
            arm |= {"fit": None, "rivals": []}
    elif what == "nulls":
        result = nulls(result)
    else:
        del result["gao"]
        result |= {"worlds": result["worlds"][:1], "trends": result["trends"][:2]}
    page = Page(write_report(result, tmp_path).read_text("utf-8"))
    assert not page.opened
    assert not {"nan", "inf", "None"} & set(re.findall(r"\w+", page.text.partition("The whole configuration")[0]))
    assert len(page.attributes("img")) == {"nothing": 0, "no fits": 7, "nulls": 8, "no gao": 6}[what]


def nulls(value):
    """Replace every float of a result by null."""
    if isinstance(value, dict):
        return {key: each if key == "settings" else nulls(each) for key, each in value.items()}
    if isinstance(value, list):
        return [nulls(each) for each in value]
    return None if isinstance(value, float) else value


def test_without_matplotlib(result, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"^the figures need matplotlib: pip install 'rlx\[plot\]'$"):
        write_report(result, tmp_path / "report")
    assert not (tmp_path / "report").exists()


def browser():
    """Find a browser, or skip and say so."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        pytest.skip("NO BROWSER: report.html was not looked at; apt-get install chromium (or google-chrome) to test it")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 500])
def test_in_a_browser(folder, tmp_path, width):
    """It loads without a word on the console, every figure has a size, and the page is not wider than the window."""
    copied = tmp_path / "page.html"
    text = (folder / "report.html").read_text("utf-8")
    copied.write_text(text.replace("</body>", f"{MEASURE}</body>"), "utf-8")
    for file in (folder / "report.html", copied):
        done = look_at(file, width, tmp_path / "profile")
        complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        assert not complaints
        assert "</html>" in done.stdout
    title = re.search("<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title
    measured = json.loads(html.unescape(title[1]))
    assert len(measured["images"]) == len(FIGURES)
    assert min(size for image in measured["images"] for size in image) > 200
    assert measured["wide"] == 0


def look_at(file: Path, width: int, profile: Path) -> subprocess.CompletedProcess[str]:
    """Load a page in a browser of no window; what it holds then comes on stdout, its console on stderr."""
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr"]
    flags += [f"--user-data-dir={profile}", f"--window-size={width},900", "--dump-dom"]
    return subprocess.run([browser(), *flags, file.as_uri()], capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.slow
def test_the_browser_test_can_fail(folder, tmp_path):
    """A script that throws and a figure that is no picture are both seen."""
    text = (folder / "report.html").read_text("utf-8")
    text = text.replace("image/svg+xml;base64,", "image/svg+xml;base64,AAAA", 1)
    broken = tmp_path / "broken.html"
    broken.write_text(text.replace("</body>", f"<script>throw new Error('seen')</script>{MEASURE}</body>"), "utf-8")
    done = look_at(broken, 1280, tmp_path / "profile")
    assert "CONSOLE" in done.stderr
    assert "[0,0," in done.stdout


def test_hostile_words_stay_words(page):
    assert page.text.count(HOSTILE) == 5  # an arm in three worlds, a claim, and again as it differs
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
