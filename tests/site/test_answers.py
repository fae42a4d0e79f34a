"""Pages that answer back without a kernel: in a browser, and what they are made of."""

import importlib.util
import json
import math
import re
import shutil
import sys
from html import unescape
from pathlib import Path

import pytest
from served import DESK, PHONE, TOO_WIDE, findings, open_page

ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted(path.stem for path in (ROOT / "nbs").glob("[0-9][0-9]_*.ipynb") if path.name[:2] != "00")
CAN_BUILD = bool(shutil.which("quarto")) or importlib.util.find_spec("smalldocs") is not None
sys.path.insert(0, str(ROOT / "website"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900),  # on a busy machine
              pytest.mark.skipif(not CAN_BUILD, reason="The site needs Quarto, or smalldocs, which needs Python 3.11.")]
DAY = 86_400_000


def watched(browser, address, told, **options):
    """A page whose errors and whose questions to other hosts are added to `told`."""
    page = open_page(browser, **{"viewport": DESK, **options})
    page.on("console", lambda message: message.type == "error" and told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith((address, "data:", "blob:"))
            else told.append(f"asked {request.url}"))
    return page


def kept(page, id):
    return page.evaluate("id => (JSON.parse(localStorage.getItem('course-answers')) || {})[id]", id)


def plain(html):
    return " ".join(unescape(re.sub(r"<[^>]+>", "", html)).split())


# ---- Quizzes and labs

def without_marks(text):
    """What is read of a question: `words` in backticks are code, and *words* between stars are emphasised."""
    return re.sub(r"`([^`]+)`|(?<!\w)\*(\w[^*`]*)\*(?!\w)", r"\1\2", text)


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_page_holds_the_notebook_s_quiz_and_lab_and_can_be_read_without_a_script(lesson, site):
    from course_lib.teach import quiz
    from course_lib.teach.practice import load_labs

    number, text = lesson[:2], (site / f"{lesson}.html").read_text(encoding="utf-8")
    [lab] = load_labs(number)
    asked = [(q.text, q.choices, q.right) for q in quiz(number).questions]
    asked.append(("Which of these is the cause?", [(c.text, c.why) for c in lab.causes],
                  [c.right for c in lab.causes].index(True)))
    found = {id: (int(right), plain(words), [plain(li) for li in re.findall("<li>(.*?)</li>", choices, re.S)],
                  [plain(li) for li in re.findall("<li>(.*?)</li>", answers, re.S)])
             for id, right, words, choices, answers in re.findall(
                 r"<div class='question' id='([\w-]+)' data-right='(\d)'><p>(.*?)</p>"
                 r"<ol type='a' class='choices'>(.*?)</ol><details><summary>Answers</summary>"
                 r"<ol type='a' class='answers'>(.*?)</ol></details></div>", text, re.S)}
    names = [f"quiz-{number}-{k}" for k in range(1, 6)] + [f"lab-{number}"]
    assert sorted(found) == sorted(names)
    for k, (name, (words, choices, right)) in enumerate(zip(names, asked, strict=True), start=1):
        code = lambda line: " ".join(without_marks(line).split())
        before = f"{k}. " if name.startswith("quiz") else ""
        assert found[name] == (right, before + code(words), [code(choice) for choice, _ in choices],
                               [("Right. " if j == right else "No. ") + code(says)
                                for j, (_, says) in enumerate(choices)])


def test_without_a_script_the_answers_unfold(browser, address):
    page = open_page(browser, viewport=DESK, java_script_enabled=False)
    page.goto(address + "04_lr_finder.html#quiz-04-2")
    one = page.locator("#quiz-04-2")
    assert one.locator("button").count() == 0 and one.locator(".choices li").count() >= 3
    assert not one.locator(".answers").is_visible()
    one.locator("summary").click()
    assert one.locator(".answers").is_visible() and "Right." in one.inner_text()
    page.context.close()


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_a_choice_is_answered_with_the_keyboard_and_survives_a_reload(size, browser, address):
    from course_lib.teach import quiz

    told = []
    page = watched(browser, address, told, viewport=size)
    page.goto(address + "04_lr_finder.html#quiz-04-3")
    question, one = quiz("04").questions[2], page.locator("#quiz-04-3")
    in_view = "([one, high]) => { const y = one.getBoundingClientRect().y; return y >= 0 && y < high; }"
    page.wait_for_function(in_view, arg=[one.element_handle(), size["height"]])  # the link leads to the question
    wrong = (question.right + 1) % len(question.choices)
    buttons = one.locator(".choices button")
    buttons.nth(wrong).focus()
    page.keyboard.press("Enter")
    said = one.get_by_role("status")
    assert said.inner_text() == f"No. {question.choices[wrong][1].replace('`', '')}"
    assert buttons.nth(wrong).get_attribute("aria-pressed") == "true"
    for _ in range((question.right - wrong) % len(question.choices)) if question.right > wrong else ():
        page.keyboard.press("Tab")
    for _ in range(wrong - question.right if question.right < wrong else 0):
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    assert said.inner_text() == f"Right. {question.choices[question.right][1].replace('`', '')}"
    assert [one.get_attribute("aria-pressed") for one in buttons.all()].count("true") == 1
    page.reload()
    assert said.inner_text().startswith("Right. ")
    assert page.locator(".quiz-count").inner_text().startswith("1 of 5 answered, 1 right.")
    assert page.evaluate(TOO_WIDE) == []
    page.get_by_role("button", name="Start again").click()
    assert said.inner_text() == "" and page.locator(".quiz-count").inner_text().startswith("0 of 5 answered")
    page.reload()
    assert said.inner_text() == ""
    page.context.close()
    assert told == []


@pytest.mark.parametrize("stored", ["5", "null", "not JSON", '{"quiz-04-1": {"chosen": 99}}'])
def test_what_another_program_left_in_the_browser_does_no_harm(stored, browser, address):
    told = []
    page = watched(browser, address, told)
    page.add_init_script(f"if (!localStorage.length) localStorage.setItem('course-answers', {json.dumps(stored)})")
    page.goto(address + "04_lr_finder.html")
    page.locator("#quiz-04-2 .choices button").nth(0).click()
    assert page.locator("#quiz-04-2 .said").inner_text().split()[0] in ("Right.", "No.")
    page.reload()
    assert page.locator("#quiz-04-1 .said").inner_text() == ""
    page.context.close()
    assert told == []


def test_a_lab_says_what_the_curves_show(browser, address):
    from course_lib.teach.practice import load_labs

    told, [lab] = [], load_labs("05")
    page = watched(browser, address, told)
    page.goto(address + "05_transfer_learning.html")
    for k, cause in enumerate(lab.causes):
        page.locator("#lab-05 .choices button").nth(k).click()
        assert page.locator("#lab-05 .said").inner_text() == (
            f"{'Right.' if cause.right else 'No.'} {without_marks(cause.why)}")
    page.context.close()
    assert told == []


# ---- Questions that come back

def test_questions_come_back_after_a_day_or_a_week_and_the_home_page_says_so(browser, address):
    from course_lib.teach import quiz

    told, right = [], [question.right for question in quiz("02").questions]
    page = watched(browser, address, told)
    page.goto(address + "index.html")
    assert not page.locator(".course-due").is_visible()
    page.goto(address + "02_model.html")
    page.locator("#quiz-02-1 .choices button").nth(right[0]).click()  # right: a week
    page.locator("#quiz-02-2 .choices button").nth((right[1] + 1) % 3).click()  # wrong, then right: a day
    page.locator("#quiz-02-2 .choices button").nth(right[1]).click()
    now = page.evaluate("Date.now()")
    assert kept(page, "quiz-02-1")["due"] == pytest.approx(now + 7 * DAY, abs=60_000)
    assert kept(page, "quiz-02-2")["due"] == pytest.approx(now + DAY, abs=60_000)
    page.goto(address + "pages/review.html")
    assert page.locator(".question:visible").count() == 0
    assert "Nothing is due today" in page.locator(".review-says").inner_text()
    page.clock.set_fixed_time((now + 8 * DAY) / 1000)
    page.reload()
    assert [one.get_attribute("id") for one in page.locator(".question:visible").all()] == ["quiz-02-1", "quiz-02-2"]
    assert "2 questions to answer again today" in page.locator(".review-says").inner_text()
    assert page.locator("#quiz-02-1 .said").inner_text() == ""  # nothing is given away
    page.goto(address + "index.html")
    assert page.locator(".course-due").inner_text().startswith("2 questions of earlier lessons are due")
    assert page.locator(".course-due").bounding_box()["y"] < 400  # near the title
    page.locator(".course-due a").click()
    page.locator("#quiz-02-1 .choices button").nth(right[0]).click()
    page.locator("#quiz-02-2 .choices button").nth((right[1] + 1) % 3).click()
    assert page.locator(".review-says").inner_text().startswith("All answered for today")
    assert kept(page, "quiz-02-1")["due"] == now + 8 * DAY + 21 * DAY
    assert kept(page, "quiz-02-2")["due"] == now + 8 * DAY + DAY
    page.get_by_role("button", name="Show all questions").click()
    assert page.locator(".question:visible").count() == 55
    page.context.close()
    assert told == []


def test_all_questions_can_be_read_on_one_page_without_a_script(browser, address):
    page = open_page(browser, viewport=PHONE, java_script_enabled=False)
    page.goto(address + "pages/review.html")
    assert page.locator(".question:visible").count() == 55 and page.locator("button:visible").count() == page.locator(
        "header button:visible, nav button:visible").count()
    page.context.close()


# ---- For every reader

def test_axe_finds_nothing_where_a_page_answers(browser, address):
    """All rules at a desk and on a phone, which has the same colours; those about colours in both themes."""
    found = []
    for scheme, size in (("light", DESK), ("dark", DESK), ("light", PHONE)):
        page = open_page(browser, viewport=size, color_scheme=scheme)
        for name in ("04_lr_finder.html", "pages/review.html#quiz-01-1", "pages/explorers.html", "pages/try.html"):
            page.goto(address + name)
            where = {"pages/explorers.html": ".explorer", "pages/try.html": ".try"}.get(name, ".quiz")
            for k in range(2 if where == ".quiz" else 0):  # a right answer and a wrong one, in their colours
                page.locator(".quiz .question").nth(k).locator(".choices button").nth(0).click()
            page.wait_for_timeout(100)
            for rules in (["colours"] if size == DESK else []) + (["others"] if scheme == "light" else []):
                found += [(name, scheme, *one) for one in findings(page, rules, where, "moderate")]
        page.context.close()
    assert found == []


def test_pages_for_quarto_hold_what_answers_as_raw_html_and_no_widget(staged):
    """Quarto prefers a widget to its HTML, and loads scripts of other hosts for outputs of text/html."""
    cells = json.loads((staged / "04_lr_finder.ipynb").read_text(encoding="utf-8"))["cells"]
    outputs = [output["data"] for cell in cells for output in cell.get("outputs", []) if "data" in output]
    answers = [data for data in outputs if "class='question'" in "".join(data.get("text/markdown", ""))]
    assert len(answers) == 2 and all(data.keys() == {"text/markdown"} for data in answers)
    assert all("".join(data["text/markdown"]).startswith("```{=html}\n<div class='quiz'") for data in answers)


# ---- Explorers

def recorded(name):
    return json.loads((ROOT / "website" / "recorded" / f"{name}.json").read_text(encoding="utf-8"))


def explorer(page, name):
    return page.locator(f"[data-explorer={name}]")


def move(slider, value):
    slider.evaluate("(one, to) => { one.value = to; one.dispatchEvent(new Event('input', { bubbles: true })); }", value)


def test_explorers_are_small_scripts_that_stand_in_their_lessons(site, tmp_path):
    import explorers as making

    for name, (_, number, _) in making.EXPLORERS.items():
        script = site / "website" / "static" / f"explore-{name}.js"
        assert script.stat().st_size < 150_000
        assert not re.search(r"\b(import|fetch|XMLHttpRequest)\b|https?://(?!www\.w3\.org/2000/svg)", script.read_text(
            encoding="utf-8")), name
        [lesson] = site.glob(f"{number}_*.html")
        for page, up in ((lesson, ""), (site / "pages" / "explorers.html", "../")):
            text = page.read_text(encoding="utf-8")
            assert text.count(f'data-explorer="{name}"') == 1
            assert f'<script src="{up}website/static/explore-{name}.js" defer></script>' in text
    config = (ROOT / "_quarto.yml").read_text(encoding="utf-8")
    assert "website/static/**" in config  # Quarto copies what no link of a page leads to only if it is told to


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_the_rate_moves_and_the_nearest_training_is_shown(size, browser, address):
    told, data = [], recorded("lr")
    page = watched(browser, address, told, viewport=size)
    for place in ("04_lr_finder.html", "pages/explorers.html"):
        page.goto(address + place)
        box = explorer(page, "lr")
        slider = box.locator("input[type=range]")
        for exponent in (-6.0, -3.0, 0.0):
            move(slider, exponent)
            nearest = min(data["runs"], key=lambda run: abs(math.log(run["lr"]) - exponent * math.log(10)))
            assert box.get_by_role("status").nth(1).inner_text() == nearest["title"].replace("\n", ": ")
        before = box.locator("svg").first.inner_html()
        slider.focus()
        page.keyboard.press("ArrowLeft")
        assert box.locator("svg").first.inner_html() != before  # with the keyboard, too
        assert slider.get_attribute("aria-valuetext") == box.locator("output").inner_text() == "9.5e-01"
        assert page.evaluate(TOO_WIDE) == []
    page.goto(address + "04_lr_finder.html")
    cell = page.locator(".cell", has=explorer(page, "lr"))
    assert cell.locator("img").count() == 1 and not cell.locator("img").is_visible()  # one of the two is enough
    callout = page.locator(".callout", has_text="A slider over")
    assert "On this page you move over what was recorded" in callout.inner_text()
    page.context.close()
    assert told == []


def test_the_recorded_rates_are_those_of_the_widget():
    """The same numbers and words: a run of the recorded ones, read by what the notebook's widget uses."""
    from course_lib.lr_finder.explorer import LRRun, _run_title, lr_explorer_data
    from course_lib.lr_finder.finder import LRSweep

    data = recorded("lr")
    assert len(data["runs"]) == 15 and all(run["curve"][-1][0] == 240 for run in data["runs"])
    run = LRRun(1e-3, tuple(1 / (i + 1) for i in range(240)), {"valid_loss": 0.25, "train_loss": 1.0, "seconds": 2.0})
    made = lr_explorer_data(LRSweep(tuple(data["lrs"]), tuple(data["losses"]), tuple(data["smoothed"]), 100), [run])
    assert made["runs"][0]["title"] == _run_title(run) == "trained at 1.0e-03\nvalid loss 0.25"
    assert made["runs"][0].keys() == data["runs"][0].keys() and made.keys() == data.keys()
    assert data["lrs"][0] < data["lr"] < data["lrs"][-1] and made["lrs"] == data["lrs"]


def test_the_cheapest_threshold_is_that_of_the_lesson_and_the_figures_add_up(browser, address):
    import torch

    from course_lib.interpret import best_threshold

    told, data = [], recorded("costs")
    risk, ill = torch.tensor(data["risk"], dtype=torch.float64), torch.tensor(data["defective"]).bool()
    page = watched(browser, address, told)
    page.goto(address + "06_interpretation.html")
    box = explorer(page, "costs")
    miss, threshold = box.locator("input[type=range]").all()
    for price in (1, 10, 30):
        move(miss, price)
        box.get_by_role("button").click()
        alarm = risk >= best_threshold(risk, ill, miss=price)
        misses, false_alarms = int((~alarm & ill).sum()), int((alarm & ~ill).sum())
        cells = [int(text) for text in box.locator("td").all_inner_texts()]
        assert cells == [int(ill.sum()) - misses, misses, false_alarms, int((~alarm & ~ill).sum())]
        cost = 100 * (price * misses + false_alarms) / len(risk)
        said = box.locator(".ex-said").inner_text()
        assert f"cost {cost:.0f} per 100 cells" in said and f"on these images: {cost:.0f}, from" in said
    move(threshold, 0.5)
    recall = 100 * (ill & (risk >= 0.5)).sum() / ill.sum()
    assert f"recall {recall:.0f} %" in box.locator(".ex-said").inner_text()
    page.context.close()
    assert told == []


def test_the_recorded_risks_are_those_of_the_lesson_s_saved_run():
    """After a lesson was recorded anew: python website/explorers.py."""
    data = recorded("costs")
    lesson = json.loads((ROOT / "nbs" / "06_interpretation.ipynb").read_text(encoding="utf-8"))
    shown = "".join("".join(output.get("data", {}).get("text/markdown", "")) for cell in lesson["cells"]
                    for output in cell.get("outputs", []))
    for words, threshold in (("alarm from ½ on", 1 / 2), ("from 1/11 on", 1 / 11)):
        misses, false = re.search(rf"^\| {words} \| (\d+) \| (\d+) \|", shown, re.M).groups()
        pairs = list(zip(data["risk"], data["defective"], strict=True))
        assert sum(ill and risk < threshold for risk, ill in pairs) == int(misses), words
        assert sum(not ill and risk >= threshold for risk, ill in pairs) == int(false), words


def test_tricks_and_strengths_change_the_picture_and_the_targets(browser, address):
    from course_lib.tricks.named import BATCH_TRICKS

    told, data = [], recorded("tricks")
    assert list(data["tricks"]) == list(BATCH_TRICKS)
    page = watched(browser, address, told)
    page.goto(address + "10_tricks.html")
    box = explorer(page, "tricks")
    for name, trick in data["tricks"].items():
        box.locator("select").select_option(name)
        for k, step in enumerate(trick["steps"]):
            move(box.locator("input[type=range]"), k)
            assert box.locator("img").nth(1).get_attribute("src") == step["picture"]
            assert box.locator("figcaption").nth(1).locator("span").all_text_contents() == step["targets"]
    assert box.locator("img").evaluate_all("all => all.every(one => one.naturalWidth > 200)")
    page.context.close()
    assert told == []


def test_each_layer_has_its_map(browser, address):
    told, data = [], recorded("cam")
    page = watched(browser, address, told)
    page.goto(address + "06_interpretation.html")
    box, seen = explorer(page, "cam"), set()
    layer = box.locator("input[type=range]").first
    for k, size in enumerate(data["layers"]):
        move(layer, k)
        page.wait_for_function("([one, words]) => one.textContent.includes(words)", arg=[
            box.locator(".ex-said").element_handle(), f"{size['rows']} × {size['columns']} places"])
        seen.add(box.locator("canvas").evaluate("one => one.toDataURL()"))
    assert len(seen) == len(data["layers"]) == 5
    box.locator("select").select_option(index=2)
    page.wait_for_function("one => one.textContent.startsWith('Is ')", arg=box.locator(".ex-said").element_handle())
    said = box.locator(".ex-said").inner_text()
    assert data["pictures"][2]["is"] != data["pictures"][2]["said"] and data["pictures"][2]["said"] in said
    page.context.close()
    assert told == []


# ---- A photograph is named, and a head trained

def pytorch_probabilities(picture):
    """What the course's network says in PyTorch of a square picture, PIL or uint8 (h, w, 3)."""
    import numpy as np
    import timm
    import torch

    from course_lib.models.sources import lite_weights, load_in_order

    network = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    load_in_order(network, lite_weights("efficientnet_lite0"))
    x = torch.tensor(np.asarray(picture.convert("RGB"))).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        return network(x).softmax(1)[0]


def canvas_of(page, place):
    """The pixels that the network was given."""
    import base64
    import io

    from PIL import Image

    address = page.locator(place).first.evaluate("one => one.toDataURL('image/png')")
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


def wait_for(page, place, words, seconds=180):
    page.wait_for_function("([one, words]) => one.textContent.includes(words)", timeout=1000 * seconds,
                           arg=[page.locator(place).element_handle(), words])


NAMED, TRAINED = "[data-try=name] .try-said", "[data-try=train] .try-said >> nth=0"


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_a_photograph_is_named_as_pytorch_names_it_and_nothing_is_loaded_before(size, browser, address, tmp_path):
    from sklearn.datasets import load_sample_image
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    told, asked = [], []
    page = watched(browser, address, told, viewport=size)
    page.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
    page.goto(address + "pages/try.html")
    page.wait_for_timeout(300)
    assert "try.js" in asked and "try-lite0.js" not in asked
    page.get_by_role("button", name="Use an example").click()
    wait_for(page, NAMED, "Most likely: bell cote")
    assert asked.count("try-lite0.js") == 1
    from PIL import Image

    Image.fromarray(load_sample_image("flower.jpg")).save(tmp_path / "flower.png")
    page.locator("[data-try=name] input[type=file]").set_input_files(tmp_path / "flower.png")
    wait_for(page, NAMED, "Most likely: daisy")
    assert asked.count("try-lite0.js") == 1
    expected = pytorch_probabilities(canvas_of(page, "[data-try=name] canvas"))
    row = "[data-try=name] .try-bars li span:nth-of-type"
    names, shown = (page.locator(f"{row}({k})").all_text_contents() for k in (1, 2))
    assert len(names) == 5 and names[0] == _IMAGENET_CATEGORIES[int(expected.argmax())]
    for name, words in zip(names, shown, strict=True):
        assert float(words.split()[0]) / 100 == pytest.approx(
            max(expected[k].item() for k, one in enumerate(_IMAGENET_CATEGORIES) if one == name), abs=0.05)
    assert page.evaluate(TOO_WIDE) == []
    (tmp_path / "notes.png").write_text("no picture", encoding="utf-8")
    page.locator("[data-try=name] input[type=file]").set_input_files(tmp_path / "notes.png")
    wait_for(page, NAMED, "notes.png is no picture that this browser can read")
    page.context.close()
    assert told == []


def test_a_head_is_trained_on_the_features_and_asked_and_names_what_it_has_not_seen(browser, address, tmp_path):
    from course_lib.data import get_items

    told = []
    page = watched(browser, address, told)
    page.goto(address + "pages/try.html")
    train = page.get_by_role("button", name="Train the head")
    assert train.is_disabled() and "at least two photographs" in page.locator(TRAINED).inner_text()
    page.get_by_role("button", name="Use twenty solar cells").click()
    wait_for(page, TRAINED, "functional: 10, defective: 10.")
    train.click()
    wait_for(page, TRAINED, "rightly")
    said = page.locator(TRAINED).inner_text()
    first, last = map(float, re.search(r"fell from (\d\.\d+) to (\d\.\d+)", said).groups())
    right = int(re.search(r"name (\d+) of 20", said)[1])
    assert first == pytest.approx(math.log(2), abs=0.006) and last < 0.1  # it begins knowing nothing
    assert right > 10 and "always the commonest class: 10 of 20" in said
    assert "falls from 0.69" in page.locator("[data-try=train] svg").get_attribute("aria-label")
    root = get_items("elpv", ROOT / "data", announce=False).root
    listed = (ROOT / "course_lib" / "data" / "splits" / "elpv-valid.csv").read_text(encoding="utf-8").splitlines()
    [unseen] = [line.split(",")[0] for line in listed if line.endswith(",mono defective")][:1]
    page.locator("[data-try=train] > div input[type=file]").last.set_input_files(root / unseen)
    wait_for(page, "[data-try=train] .try-said >> nth=1", "Most likely: ")
    numbers = page.locator("[data-try=train] .try-number").all_text_contents()
    assert sum(float(one.split()[0]) for one in numbers) == pytest.approx(100, abs=1.1)
    page.context.close()
    assert told == []


def test_the_camera_gives_photographs_to_a_class_and_is_closed(browser, address):
    """A camera that is a drawn canvas."""
    told = []
    page = watched(browser, address, told)
    page.add_init_script("""
        const drawn = Object.assign(document.createElement("canvas"), { width: 320, height: 240 });
        setInterval(() => { const c = drawn.getContext("2d"); c.fillStyle = "teal"; c.fillRect(0, 0, 320, 240); }, 50);
        navigator.mediaDevices.getUserMedia = async () => (window.stream = drawn.captureStream(20));
    """)
    page.goto(address + "pages/try.html")
    box = page.locator("fieldset").first
    box.get_by_label("Its name").fill("teal things")
    box.get_by_role("button", name="Use the camera").click()
    box.get_by_role("button", name="Take a photograph").click()
    wait_for(page, TRAINED, "teal things: 1")
    assert box.locator(".try-thumbs canvas").count() == 1
    box.get_by_role("button", name="Close the camera").click()
    assert page.evaluate("window.stream.getTracks().every(track => track.readyState === 'ended')")
    page.context.close()
    assert told == []


def test_a_photograph_is_named_where_the_page_was_opened_as_a_file(site, browser):
    page = open_page(browser, viewport=DESK)
    page.goto((site / "pages" / "try.html").as_uri())
    page.get_by_role("button", name="Use an example").click()
    wait_for(page, NAMED, "Most likely: bell cote")
    page.context.close()


def test_the_network_for_the_browser_keeps_what_pytorch_says():
    """Its weights as bytes, put back into the network: on photographs it says the same, and features hardly change."""
    import numpy as np
    import timm
    import torch
    from sklearn.datasets import load_sample_images
    from tryit import packed_network

    from course_lib.models.sources import lite_weights, load_in_order

    layers, data = packed_network()
    assert len(data) < 5_500_000 and len(layers) == 50
    exact = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    load_in_order(exact, lite_weights("efficientnet_lite0"))
    small = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    load_in_order(small, lite_weights("efficientnet_lite0"))
    convolutions = [m for m in small.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    norms, at = [m for m in small.modules() if isinstance(m, torch.nn.BatchNorm2d)], 0

    def take(kind, count):
        nonlocal at
        values = np.frombuffer(data, kind, count, at).astype(np.float32)
        at += count * np.dtype(kind).itemsize
        return torch.from_numpy(values)

    with torch.no_grad():
        for layer, module in zip(layers, convolutions, strict=True):
            outputs, count = layer["outputs"], module.weight.numel()
            bias = take("<f4", outputs)
            scale = torch.ones(outputs) if layer["exact"] else take("<f4", outputs)
            weights = take("<f4" if layer["exact"] else "i1", count).view(outputs, -1) * scale[:, None]
            module.weight.copy_(weights.view_as(module.weight))
            if isinstance(module, torch.nn.Linear):
                module.bias.copy_(bias)
            else:  # what follows only adds the bias that was folded
                norm = norms.pop(0)
                for parameter, value in ((norm.running_mean, 0), (norm.running_var, 1 - norm.eps), (norm.weight, 1)):
                    parameter.fill_(value)
                norm.bias.copy_(bias)
    assert at == len(data) and norms == []
    crops = [image[r:r + 224, c:c + 224] for image in load_sample_images().images for r in (0, 90, 200)
             for c in (0, 140, 280, 410)]
    x = torch.tensor(np.stack(crops)).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        features = [net.forward_features(x).mean((2, 3)) for net in (exact, small)]
        names = [net(x).argmax(1) for net in (exact, small)]
    assert torch.cosine_similarity(*features).min() > 0.995
    assert (names[0] == names[1]).double().mean() > 0.9


def test_the_page_of_curves_asks_and_tells_and_folds_the_figures(site):
    from answers import PUZZLES

    from course_lib.teach.curves import FAULTS, draw_puzzle
    from course_lib.teach.predict import FIGURES

    text = (site / "pages" / "curves.html").read_text(encoding="utf-8")
    for seed in PUZZLES:
        for letter, run in zip("ABCD", draw_puzzle(seed).runs, strict=True):
            asked = re.split(rf"id=.curves-{seed}-{letter}\b", text)[1].split("</details>")[0]
            right = int(re.search(r"data-right=.(\d)", asked)[1])
            assert re.findall(r"<li>(.*?)</li>", asked)[right] == FAULTS[run.kind].text
            assert asked.count("<b>Right.</b>") == 1 and asked.count("<b>No.</b>") == 5
    assert all(re.search(rf"id=.predict-{one.id.replace('.', '-')}\b", text) for one in FIGURES)
    assert text.count('<summary>The figure</summary>') == len(FIGURES)
