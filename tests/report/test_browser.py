"""The report in a real browser: it loads, plays, fits and can be used by keyboard."""

import io

import numpy as np
import pytest
from PIL import Image

from experiments import report
from tests.report import browser, saved

WIDTHS = ((1280, 900), (390, 844))
PLAYS = """(async () => {
  const found = [];
  for (const one of document.querySelectorAll("audio")) {
    one.preload = "metadata";
    one.load();
    await new Promise((done) => {
      if (one.readyState >= 1) done();
      for (const event of ["loadedmetadata", "error"]) one.addEventListener(event, done);
    });
    found.push(one.readyState >= 1 ? one.duration : -1);
  }
  return found;
})()"""
ONE_AT_A_TIME = """(async () => {
  const [first, second] = document.querySelectorAll("audio");
  const heard = (one) => new Promise((done) => {
    one.addEventListener("timeupdate", () => one.currentTime > 0 && done());
    one.play();
  });
  await heard(first);
  const head = first.closest("figure").querySelector(".head");
  const moved = !head.hidden && parseFloat(head.style.left) > 0;
  await heard(second);
  return [first.paused, second.paused, moved];
})()"""
PICTURES = """(async () => {
  const all = [...document.images];
  for (const one of all) one.loading = "eager";
  await Promise.all(all.map((one) => one.decode()));
  return all.map((one) => one.naturalHeight);
})()"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        browser.installed() is None,
        reason="no Chromium is installed; give one, as by apt-get install chromium",
    ),
]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    return report.run(saved.card(folder / "report", **saved.write_all(folder)), saved.silent)


@pytest.fixture(scope="module")
def opened(path):
    with browser.opened() as found:
        yield found


@pytest.fixture
def page(opened, path):
    opened.troubles.clear()
    opened.screen(*WIDTHS[0])
    opened.open(path)
    yield opened
    opened.run("0")  # what was said until now has arrived
    assert opened.troubles == []


def test_every_player_loads(page):
    lengths = page.run(PLAYS)
    assert len(lengths) == page.run("document.querySelectorAll('audio').length") > 10
    assert all(1.4 < length < 3.2 for length in lengths)  # one begins half a second late


def test_one_player_plays_at_a_time_and_shows_where(page):
    assert page.run(ONE_AT_A_TIME) == [True, False, True]


def test_every_picture_loads(page):
    heights = page.run(PICTURES)
    assert heights
    assert set(heights) == {64}


@pytest.mark.parametrize(("width", "height"), WIDTHS)
def test_nothing_is_wider_than_the_screen(page, path, width, height):
    page.screen(width, height)
    page.open(path)
    page.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert page.run("innerWidth") == width
    outside = """[...document.querySelectorAll("main *, header *")].filter((one) => {
      if (one.closest(".scroll, .hidden, svg")) return false;
      const box = one.getBoundingClientRect();
      const room = document.documentElement.clientWidth;
      return box.width > 0 && (box.right > room + 1 || box.left < -1);
    }).map((one) => one.outerHTML.slice(0, 80))"""
    assert page.run(outside) == []
    # What retraining says is to be seen at once: its table does not scroll of itself.
    table = "document.querySelector('.truth').closest('.scroll')"
    assert page.run(f"{table}.scrollWidth <= {table}.clientWidth")
    cut = """[...document.querySelectorAll(".truth th, .truth td")]
      .filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.innerText)"""
    assert page.run(cut) == []


def test_the_keyboard_reaches_links_players_and_details(page):
    seen = []
    page.run("document.body.focus()")
    for _ in range(60):
        page.press("Tab")
        seen.append(page.run("document.activeElement.tagName.toLowerCase()"))
    assert seen[0] == "a"
    assert page.run("document.querySelector('.skip') !== null")
    assert {"a", "audio", "summary"} <= set(seen)
    page.run("document.querySelector('audio').focus()")
    page.press(" ")
    page.run("new Promise((done) => setTimeout(done, 300))")
    assert page.run("document.querySelector('audio').paused") is False


def test_a_screen_reader_is_told_what_players_and_charts_are(page):
    nodes = page("Accessibility.getFullAXTree")["nodes"]
    names = {}
    for node in nodes:
        if not node.get("ignored"):
            role = node["role"]["value"]
            names.setdefault(role, []).append(node.get("name", {}).get("value", ""))
    assert all(name.startswith("Excerpt of ") for name in names["Audio"])
    drawings = [name for role in ("image", "img") for name in names.get(role, [])]
    assert any(name.startswith("How scores are spread") for name in drawings)
    assert all(drawings)
    assert all(names["heading"])


def test_on_paper_it_is_dark_on_light(page):
    scheme = {"name": "prefers-color-scheme", "value": "dark"}
    page("Emulation.setEmulatedMedia", media="print", features=[scheme])
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.run("getComputedStyle(document.querySelector('.picture img')).filter") == "none"
    assert page.run("getComputedStyle(document.querySelector('audio')).display") == "none"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("width", "height"), WIDTHS)
def test_pictures_of_the_page(page, path, tmp_path, width, height, dark):
    page.screen(width, height, dark)
    page.open(path)
    page.run("document.documentElement.style.scrollBehavior = 'auto'")
    page.run(
        "new Promise((done) => { document.querySelector('#query-1').scrollIntoView();"
        " setTimeout(done, 500); })"
    )
    page.picture(tmp_path / "page.png")
    with Image.open(io.BytesIO((tmp_path / "page.png").read_bytes())) as picture:
        assert picture.size == (width, height)
        grey = np.asarray(picture.convert("L")).astype(float)
    paper = np.median(grey)
    assert paper < 40 if dark else paper > 235
    assert (np.abs(grey - paper) > 120).mean() > 0.01  # words stand out from the paper
    contrast = page.run(
        """[...document.querySelectorAll("h2, p, dd, figcaption, td, .by")].map((one) => {
          const light = (colour) => {
            const [r, g, b] = colour.match(/[0-9.]+/g).map(Number).map((x) => x / 255)
              .map((x) => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const page = light(getComputedStyle(document.body).backgroundColor);
          const ink = light(getComputedStyle(one).color);
          return (Math.max(page, ink) + 0.05) / (Math.min(page, ink) + 0.05);
        })"""
    )
    assert min(contrast) > 4.5  # WCAG 2.2, level AA
