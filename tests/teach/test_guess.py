"""The reader labels pictures: answers are counted, a picture can be answered anew, and a page needs no kernel."""

import io
from datetime import datetime

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from course_lib.core.plots import show_images
from course_lib.data import load_image
from course_lib.teach import GuessByEye, upload_button

CLASSES = ["functional", "defective"]


def guess(labels=("functional", "defective", "defective")):
    pictures = [np.full((8, 8, 3), 60 * number, np.uint8) for number in range(len(labels))]
    return GuessByEye(pictures, labels, CLASSES)


def test_answers_are_counted_and_may_be_changed():
    eye = guess()
    assert eye.num_wrong() is None and eye.progress() == "0 of 3 labelled."
    for index, label in enumerate(["defective", "defective", "functional"]):
        eye.answer(index, label)
    assert eye.num_wrong() == 2
    assert eye.progress() == "All 3 labelled, 2 wrongly: 1 is functional, 3 is defective."
    eye.answer(0, "functional")
    eye.answer(2, "defective")
    assert eye.num_wrong() == 0 and eye.progress() == "All 3 labelled, 0 wrongly."


def test_buttons_begin_with_no_answer_and_each_click_counts():
    eye = guess()
    boxes, said = eye.widget().children
    buttons = [box.children[2] for box in boxes.children]
    assert [button.value for button in buttons] == [None] * 3 and eye.answers == [None] * 3
    for button in buttons:
        button.value = "defective"
    assert said.value == "All 3 labelled, 1 wrongly: 1 is functional." and eye.num_wrong() == 1


def test_a_page_without_a_kernel_has_pictures_and_folded_answers():
    eye = guess()
    shown = eye._repr_mimebundle_()
    assert set(shown) == {"text/html", "text/plain"}  # a widget would be dead there
    assert shown["text/html"].count("data:image/jpeg;base64,") == 3
    before, answers = shown["text/html"].split("<details>")
    assert "1 functional, 2 defective, 3 defective" in answers and "functional" not in before


def test_what_cannot_be_meant():
    with pytest.raises(ValueError, match="0 pictures and 0 labels"):
        GuessByEye([], [], CLASSES)
    with pytest.raises(ValueError, match="1 pictures and 2 labels"):
        GuessByEye([np.zeros((8, 8, 3), np.uint8)], CLASSES, CLASSES)
    with pytest.raises(ValueError, match="label = 'broken'"):
        guess(["broken"])
    with pytest.raises(ValueError, match="label = 'crack'"):
        guess().answer(0, "crack")


# ---- A picture of the reader's

def upload(box, name, content):
    """What the browser does: the button's value is the file."""
    box.children[0].value = [{"name": name, "type": "", "size": len(content), "content": memoryview(content),
                              "last_modified": datetime.now()}]


def png(value=90):
    file = io.BytesIO()
    Image.new("RGB", (50, 40), (value,) * 3).save(file, "png")
    return file.getvalue()


def test_an_uploaded_picture_is_read_as_every_other_one_and_a_refused_file_loses_nothing(monkeypatch):
    monkeypatch.setattr("course_lib.teach.guess.is_interactive", lambda: True)
    seen = []

    def answer(path):
        seen.append(load_image(path, 32))
        return show_images(seen[-1:], [path.name])

    box = upload_button(answer)
    _, said, shown = box.children
    assert shown.layout.display == "none" and not said.value  # nothing before there is something
    upload(box, "my <cat>.png", png(90))
    assert (seen[0] == 90).all() and seen[0].shape == (32, 32, 3) and said.value == "my &lt;cat&gt;.png"
    first = bytes(shown.value)
    assert first.startswith(b"\x89PNG") and shown.layout.display != "none" and not plt.get_fignums()
    for content, words in ((b"no picture", "not an image in a format"), (b"", "the file is empty"),
                           (png()[:60], "cannot be used")):
        upload(box, "C:\\photos\\notes.png", content)
        assert said.value.startswith("notes.png cannot be used: ") and words in said.value and "tmp" not in said.value
        assert bytes(shown.value) == first and len(seen) == 1
    upload(box, "../dog.png", png(200))
    assert (seen[1] == 200).all() and bytes(shown.value) != first and said.value == "dog.png"


def test_without_a_kernel_there_is_no_button():
    assert upload_button(lambda path: None) is None
