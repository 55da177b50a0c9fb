"""The site as a reader gets it: built under `strict`, opened in a browser, on wide and narrow pages, light and dark."""

import functools
import html
import http.server
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest

from tt_tito import course, curriculum

ROOT = Path(__file__).parents[2]
NEEDED = ["mkdocs", "material", "mkdocstrings", "htmlproofer", "matplotlib"]
missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"the site is tested in the docs environment; missing: {missing}")
CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
DRIVER = shutil.which("chromedriver")


def build(config, folder):
    options = ["--strict", "--config-file", str(config), "--site-dir", str(folder)]
    command, environment = (
        [sys.executable, "-m", "mkdocs", "build", *options],
        os.environ | {"MISTAKES_SECONDS": "3600"},
    )
    return subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=3600)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    process = build(ROOT / "mkdocs.yml", folder)
    assert process.returncode == 0, process.stdout + process.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return sorted(file.relative_to(site).as_posix() for file in site.rglob("index.html"))


# -- without a browser ------------------------------------------------------------------------------------------------


def test_no_page_and_no_style_names_another_server(site):
    styles = [file for name in ("css", "katex") for file in (site / "assets" / name).glob("*.css")]
    sources = [*site.rglob("*.html"), *styles]
    found = {file.relative_to(site): FETCHED.search(file.read_text(encoding="utf-8")) for file in sources}
    assert not {file: hit[0] for file, hit in found.items() if hit}


FETCHED = re.compile(
    r"""<(?:script|img|iframe|source)[^>]*\ssrc=["']?(?:https?:)?//|<link[^>]*\shref=["']?https?://|url\(["']?https?://"""
)


def test_bundled_work_of_others_comes_with_its_licence(site):
    for name in ["katex", "fonts"]:
        assert list((site / "assets" / name).glob("LICENSE*")), f"site/assets/{name} has no licence"


def test_every_public_name_has_an_entry_in_the_reference(site):
    book = [sys.executable, "-c", LIST_NAMES, str(ROOT / "site" / "hooks")]
    names = json.loads(subprocess.run(book, capture_output=True, text=True, check=True).stdout)
    assert names
    for module, public in names.items():
        page = (site / "reference" / module / "index.html").read_text(encoding="utf-8")
        without = [name for name in public if f'id="{module}.{name}"' not in page]
        assert not without, f"{module}: no entry for {without}"


LIST_NAMES = """
import json, pathlib, sys
sys.path.insert(0, sys.argv[1])
from reference_page import documented_modules, public_names
root = pathlib.Path(sys.argv[1]).parents[1]
print(json.dumps({module: public_names(file) for module, file in documented_modules(root)}))
"""


PICTURES = {
    "learn": {
        "tito module test 01": [
            "manual_seed          FAILED",
            "Likely: ",
            'See "Chance that can be repeated".',
            "Run again: ",
        ],
        "tito watch 01": ["To fix: manual_seed", "Keys: h hint"],
        "tito module complete 01": ["01 Setup is complete: 7 of 7", "Capability 0 is unlocked", "tito module start 02"],
        "tito status": ["complete", "4 of 13 written", "mine", "reference", "Capabilities: 4 of 20", "Next: "],
    },
    "teach": {"tito grade submissions --csv marks.csv": ["ada", "9/9", "crashed", "2 of 5 with full marks", "2 x "]},
}


@pytest.mark.parametrize("page", PICTURES)
def test_pictures_of_the_terminal_show_what_they_should(site, page):
    text = (site / page / "index.html").read_text(encoding="utf-8")
    pictures = re.findall(r'<figure class="tt-terminal"><svg role="img" aria-label="(.+?)"(.+?)</svg></figure>', text)
    drawn = [html.unescape("".join(re.findall("<text[^>]*>([^<]*)", svg))).replace("\xa0", " ") for _, svg in pictures]
    assert all(len(alt) > 40 for alt, _ in pictures)
    for command, words in PICTURES[page].items():
        (picture,) = [text for text in drawn if text.startswith(f"$ {command}")]
        assert not [word for word in words if word not in picture], f"{command}: {picture}"


def test_every_planted_mistake_stands_on_the_page_for_instructors_and_nearly_all_with_the_cause(site):
    page = html.unescape((site / "teach" / "index.html").read_text(encoding="utf-8"))
    mutants = tomllib.loads((ROOT / "tests" / "mistakes" / "mutants.toml").read_text(encoding="utf-8"))["mutant"]
    rows = dict(re.findall(r"<tr><td>(.+?)</td><td>(.+?)</td></tr>", page))
    assert set(rows) == {mutant["mistake"] for mutant in mutants} and len(rows) > 50
    named = [mutant["id"] for mutant in mutants if mutant["says"][0] in re.sub("<[^>]*>", "", rows[mutant["mistake"]])]
    assert len(named) >= 0.9 * len(mutants), (
        f"no cause is named for {[m['id'] for m in mutants if m['id'] not in named]}"
    )


def test_the_semester_has_fourteen_weeks_and_says_which_chapters_are_written(site):
    page = (site / "teach" / "index.html").read_text(encoding="utf-8")
    table = page[page.index("<table") : page.index("</table>")]
    assert re.findall(r'<tr>\s*<td style="text-align: right;">(\d+)</td>', table) == [str(n) for n in range(1, 15)]
    for chapter in curriculum.chapters():
        name = f"{chapter.number:02d} {chapter.title}"
        linked = f'<a href="../chapters/{chapter.slug}/">{name}</a>'
        assert (linked if chapter in course.written() else f"{name} (planned)") in table


def test_the_times_of_every_package_are_on_the_page_of_benchmarks(site):
    page = (site / "benchmarks" / "index.html").read_text(encoding="utf-8")
    tables = re.findall(r'<table class="tt-bench tt-packages"><thead><tr><th>([\w-]+)<', page)
    written = [package.name for package in curriculum.packages() if (ROOT / "packages" / package.name).exists()]
    assert tables == written


def test_a_chapter_whose_experiment_raises_does_not_build(tmp_path, monkeypatch):
    demo = tmp_path / "packages" / "tt-tensor" / "src" / "tt_tensor"
    demo.mkdir(parents=True)
    (demo / "__init__.py").touch()
    (demo / "setup.py").write_text("# # Setup\n\n\ndef show_it():\n    return 1 / 0\n", encoding="utf-8")
    shutil.copytree(ROOT / "packages" / "tt-tito" / "src", tmp_path / "packages" / "tt-tito" / "src")
    shutil.copytree(ROOT / "site", tmp_path / "site", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{demo.parent}")
    process = build(tmp_path / "mkdocs.yml", tmp_path / "out")
    assert process.returncode != 0
    assert "packages/tt-tensor/src/tt_tensor/setup.py:5: an experiment failed" in process.stderr
    assert "ZeroDivisionError: division by zero" in process.stderr
    assert not (tmp_path / "out" / "chapters").exists()


def test_the_first_page_shows_what_is_special_and_counts_it(site):
    page = html.unescape((site / "index.html").read_text(encoding="utf-8"))
    words = re.sub(r"<[^>]*>", "", page.replace("\xa0", " "))
    assert "pip install hatch && hatch run tour" in words
    assert "manual_seed  FAILED" in words and 'See "Chance that can be repeated".' in words, "a message of the judge"
    assert re.search(r"tito watch 01\s+01 Setup", words), "tito watch"
    assert words.index("tensor([-1.,  2.])") < words.index("tensor([0., 2.])"), "a swap"
    assert re.search(r"XOR after 200 steps: loss 0\.0\d", words), "a program for PyTorch"
    assert "The 20 chapters are plain Python" in " ".join(words.split()) and "tt:" not in words
    assert page.index('class="tt-map"') < page.index('id="what-you-will-not-find-elsewhere"')


def test_chapters_follow_each_other_and_appendices_come_after_theirs(site):
    def neighbors(slug):
        page = (site / "chapters" / slug / "index.html").read_text(encoding="utf-8")
        return re.findall(r'<a href="\.\./(\w+)/" class="md-footer__link md-footer__link--(prev|next)"', page)

    assert neighbors("tensor") == [("setup", "prev"), ("activations", "next")]
    assert neighbors("more_activations") == [("activations", "prev"), ("layers", "next")]


def test_a_reference_page_has_an_example_with_what_it_printed(site):
    page = (site / "reference" / "tt_tensor.losses" / "index.html").read_text(encoding="utf-8")
    text = html.unescape(re.sub(r"<[^>]*>", "", page))
    assert "tensor([0.2395, 2.2395])" in text and "Explained in chapter 05 Losses" in text


def test_papers_are_linked_and_previews_described(site):
    page = (site / "chapters" / "optimizers" / "index.html").read_text(encoding="utf-8")
    assert page.count('href="https://arxiv.org/abs/1412.6980"') == 1
    assert '<meta property="og:title" content="06 Optimizers">' in page
    assert re.search(r'<meta property="og:description" content="[^"]{40,}', page)


# -- in a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(site):
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    nothing_to_search = False  # for who does not search: each page that is opened makes an index of the whole site

    def log_message(self, *_):
        pass

    def do_GET(self):
        if not (self.nothing_to_search and self.path.endswith("/search_index.json")):
            return super().do_GET()
        index = json.loads(Path(self.translate_path(self.path)).read_text(encoding="utf-8"))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(index | {"docs": []}).encode())


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium drives the browser")
    if not (CHROMIUM and DRIVER):
        pytest.skip("chromium and chromedriver show the pages; one of them is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    nowhere = "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"  # a page that asks another server complains
    for argument in [*QUIET.split(), nowhere, f"user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


QUIET = """
headless=new no-sandbox disable-gpu disable-quic no-first-run
disable-background-networking disable-component-update disable-sync
"""


def resize(browser, width):
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def show(browser, url, width):
    resize(browser, width)
    browser.get(url)


def look(browser, theme):
    """See the page in a theme, wait until everything on it stands, and return its state."""
    media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.set_script_timeout(30)
    return browser.execute_async_script(STATE, SCHEMES[theme])


SCHEMES = {"light": "default", "dark": "slate"}
STATE = """
const [scheme, done] = arguments, start = Date.now();
const count = selector => document.querySelectorAll(selector).length;
(function look() {
  const wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
  const unset = [...document.querySelectorAll(".arithmatex")].some(e => !e.querySelector(".katex"));
  const waiting = unset || document.body.dataset.mdColorScheme !== scheme;
  const limit = waiting || document.readyState !== "complete" ? 20000 : wide ? 1000 : 0;
  if (Date.now() - start < limit) return setTimeout(look, 50);
  done({
    scheme: document.body.dataset.mdColorScheme,
    wide: document.documentElement.scrollWidth, window: document.documentElement.clientWidth,
    raw: count(".mermaid, .language-mermaid"), diagrams: count(".tt-diagram > svg"),
    formulas: count(".arithmatex"), rendered: count(".arithmatex .katex"), wrong: count(".katex-error"),
    figures: count(".tt-figure > svg"),
  });
})();
"""


VIEWS = [(1280, "light"), (1280, "dark"), (400, "light")]


def test_every_page_stands_by_itself(browser, address, pages, monkeypatch):
    monkeypatch.setattr(Quiet, "nothing_to_search", True)
    seen = {"diagrams": 0, "rendered": 0}
    browser.get_log("browser")
    for page in pages:
        show(browser, address + page, VIEWS[0][0])
        for width, theme in VIEWS:
            resize(browser, width)
            state = look(browser, theme)
            assert state["scheme"] == SCHEMES[theme], page
            assert state["wide"] <= state["window"], f"{page} scrolls sideways at {width} pixels: {state}"
            assert state["rendered"] == state["formulas"], f"{page}: a formula is not set: {state}"
            assert not state["wrong"], f"{page}: a formula is wrong: {state}"
            assert not state["raw"], f"{page}: a diagram is not drawn: {state}"
        seen = {name: seen[name] + state[name] for name in seen}
    complaints = [entry["message"] for entry in browser.get_log("browser") if entry["level"] in {"SEVERE", "WARNING"}]
    assert not complaints
    assert seen["diagrams"] and seen["rendered"], "no page has a diagram, or none has a formula: nothing was tested"


@pytest.mark.parametrize("theme", SCHEMES)
def test_a_terminal_can_be_read_in_both_themes(browser, address, theme):
    show(browser, address + "learn/", 1280)
    look(browser, theme)
    colours = browser.execute_script(COLOURS)
    assert len(colours) >= 3
    for colour, background in colours:
        assert contrast(colour, background) > 4.5, f"{colour} on {background}"


COLOURS = """
const texts = [...document.querySelectorAll(".tt-terminal text")];
const pairs = texts.map(e => [getComputedStyle(e).fill, getComputedStyle(e.closest("figure")).backgroundColor]);
return [...new Map(pairs.map(pair => [pair[0], pair])).values()];
"""


def contrast(*colours):
    """How much brighter the one colour is than the other, as the Web Content Accessibility Guidelines count it."""

    def brightness(colour):
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip([0.2126, 0.7152, 0.0722], linear))

    darker, brighter = sorted(map(brightness, colours))
    return (brighter + 0.05) / (darker + 0.05)


def search(browser, words):
    """The addresses of what the search finds for some words, the best first."""
    field = browser.find_element("css selector", ".md-search__input")
    field.click()
    field.clear()
    field.send_keys(words)
    return [re.sub(r"\?h=[^#]*", "", link) for link in browser.execute_async_script(HITS)]  # words to highlight


ASKED = {
    "Primitive": "tensor",
    "save a model": "questions/#how-do-i-save-a-model",
    "gpu": "questions/#can-i-use-a-gpu",
    "install": "questions/#how-do-i-install-it",
    "backward": "questions/#what-does-backward-do",
    "stuck": "questions/#i-am-stuck",
    "Conv2d": "spatial",
}


@pytest.mark.parametrize("words", ASKED)
def test_a_search_finds_the_right_page_first(browser, address, words):
    show(browser, address, 1280)
    look(browser, "light")
    found = [re.sub(r"\?[^#]*", "", link) for link in search(browser, words)]
    assert any(ASKED[words] in link for link in found[:2]), found[:5]  # a page comes before its best section


HITS = """
const done = arguments[0];
let before = "";
(function look(times) {
  const hits = [...document.querySelectorAll(".md-search-result__link")].map(hit => hit.href);
  const now = hits.join();
  if ((now && now === before) || !times) return done(hits);
  before = now;
  setTimeout(() => look(times - 1), 400);
})(50);
"""


def test_the_search_index_is_no_heavier_than_a_photograph(site):
    assert (site / "search" / "search_index.json").stat().st_size < 1_700_000


def code_shown(browser):
    return browser.execute_script("return [...document.querySelectorAll('.tt-body')].map(e => e.offsetHeight > 0)")


def test_what_a_reader_writes_is_hidden_for_those_who_come_from_tito_and_the_choice_is_kept(browser, address):
    page = address + "chapters/activations/"
    show(browser, page, 1280)
    look(browser, "light")
    shown = code_shown(browser)
    assert len(shown) > 3 and all(shown)
    show(browser, page + "?write", 1280)
    look(browser, "light")
    assert not any(code_shown(browser))
    browser.execute_script("document.querySelector('.tt-reveal').click()")
    assert code_shown(browser) == [True] + [False] * (len(shown) - 1)
    show(browser, page, 1280)
    look(browser, "light")
    assert not any(code_shown(browser)), "the choice is remembered"
    browser.find_element("css selector", ".tt-switch input").click()
    assert all(code_shown(browser))
    show(browser, page, 1280)
    look(browser, "light")
    assert all(code_shown(browser)), "and so is the other one"


def test_appendices_are_folded_under_their_chapter(browser, address):
    show(browser, address + "chapters/losses/", 1280)
    look(browser, "light")
    folds = "return [...document.querySelectorAll('.tt-nav .tt-appendices')].filter(e => e.open).length"
    assert browser.execute_script(folds) == 0
    show(browser, address + "chapters/more_losses/", 1280)
    look(browser, "light")
    assert browser.execute_script(folds) == 1


@pytest.mark.parametrize("width", [1280, 400])
def test_a_page_can_be_read_without_eyes_and_without_a_mouse(browser, address, width):
    for page in [
        "",
        "learn/",
        "trainings/",
        "chapters/autograd/",
        "chapters/tensor/",
        "reference/tt_tensor.layers/",
        "benchmarks/",
    ]:
        show(browser, address + page, width)
        look(browser, "light")
        assert not browser.execute_script(UNNAMED), page
        browser.execute_script("dispatchEvent(new Event('resize'))")
        assert not browser.execute_script(UNREACHED), page


UNNAMED = """
const named = e => ["aria-label", "aria-labelledby", "alt"].some(name => e.getAttribute(name));
const seen = [...document.querySelectorAll("[role=dialog], svg[role=img], img")];
return seen.filter(e => !named(e)).map(e => e.outerHTML.slice(0, 99));
"""
UNREACHED = """
const scrolls = e => e.scrollWidth > e.clientWidth + 1 && /auto|scroll/.test(getComputedStyle(e).overflowX);
return [...document.querySelectorAll(".md-content *")].filter(e => e.checkVisibility() && scrolls(e) && e.tabIndex < 0)
  .map(e => e.outerHTML.slice(0, 99));
"""
