"""The page that names photographs: what it answers, whom it answers, and what hostile files get."""

import http.client
import importlib.util
import io
import json
import re
import socket
import struct
import threading
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tiny import CLASSES, photograph, tiny_model

from course_lib.app.predict import load_classifier, predict_images
from course_lib.app.show import MEGABYTES, answer, make_server, serve_app


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return load_classifier(tiny_model(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def port(classifier):
    server = make_server(classifier, port=0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def encoded(number: int = 1, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(photograph(number)).save(file, kind, **options)
    return file.getvalue()


def asked(port: int, body: bytes = b"", method: str = "POST", path: str = "/ask", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, body, headers)
    got = connection.getresponse()
    text = got.read().decode()
    connection.close()
    return got, json.loads(text) if "json" in got.getheader("Content-Type") else text


def test_a_photograph_gets_what_predict_says_of_it(classifier, port, tmp_path):
    (tmp_path / "a.png").write_bytes(encoded())
    got, said = asked(port, encoded())
    (expected,) = predict_images(classifier, tmp_path / "a.png", top=3)
    assert got.status == 200 and said["picture"].startswith("data:image/jpeg;base64,")
    best = int(np.argmax(said["probabilities"]))
    assert CLASSES[best] == expected.label
    assert said["probabilities"][best] == pytest.approx(expected.probability, abs=1e-5)
    assert sum(said["probabilities"]) == pytest.approx(1, abs=1e-5)
    assert np.shape(said["evidence"]) == (2, 2) and np.max(said["evidence"]) > 0
    assert (said["distance"] > classifier.familiar.limit) == expected.unfamiliar
    assert not list(tmp_path.glob("*.part")) and [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_what_it_has_not_seen_is_told(classifier):
    for limit, told in ((-1.0, True), (2.0, False)):
        (said,) = predict_images(replace(classifier, familiar=classifier.familiar._replace(limit=limit)), photograph(1))
        assert said.unfamiliar == told == ("perhaps none of the classes" in str(said))


def test_the_page_loads_from_itself_alone(port):
    got, text = asked(port, method="GET", path="/")
    policy = got.getheader("Content-Security-Policy")
    assert "default-src 'none'" in policy and "http" not in policy and "//" not in text
    for path in ("/app.js", "/page.css", "/about.json?x"):
        assert asked(port, method="GET", path=path)[0].status == 200
    about = asked(port, method="GET", path="/about.json")[1]
    assert about["classes"] == list(CLASSES) and about["server"] and about["calibrated"]
    for path in ("/../app.js", "/etc/passwd", "/%2e%2e/", "/ask"):
        assert asked(port, method="GET", path=path)[0].status == 404


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, data: bytes = b"", depth: int = 8, colour: int = 2) -> bytes:
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b""))


def hostile_files() -> dict[str, bytes]:
    """Fifty files and more that are no photograph, damaged, or made to do harm."""
    jpeg, png, webp, gif, tiff, bmp = (encoded(2, kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"))
    found = {"empty": b"", "one byte": b"\xff", "zeros": bytes(1000), "text": b"hello",
             "html": b"<script>alert(1)</script>",
             "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
             "pdf": b"%PDF-1.7\n" * 20,
             "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch /tmp/owned) (w) file\n",
             "pickle": b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93.", "zip": b"PK\x03\x04" + bytes(60),
             "elf": b"\x7fELF" + bytes(60), "exe": b"MZ" + bytes(90), "gzip": b"\x1f\x8b" + bytes(60),
             "json": b'{"a": 1}', "jpeg head": b"\xff\xd8\xff\xe0", "jpeg ends": b"\xff\xd8\xff\xd9",
             "gif head": b"GIF89a", "gif huge": b"GIF89a\xff\xff\xff\xff\x00\x00\x00;",
             "webp head": b"RIFF\x00\x00\x00\x00WEBP",
             "bmp huge": b"BM" + bytes(16) + struct.pack("<ii", 2**30, 2**30) + bytes(40),
             "bmp negative": b"BM" + bytes(12) + struct.pack("<Iii", 40, -5, -5) + bytes(40),
             "tiff loop": b"II*\x00\x08\x00\x00\x00\x01\x00" + bytes(12) + b"\x08\x00\x00\x00",
             "tiff far": b"II*\x00\xff\xff\xff\x7f", "tiff none": b"MM\x00*\x00\x00\x00\x08\x00\x00",
             "png bomb": png_of(60000, 60000, bytes(1000)), "png wide": png_of(2**31 - 1, 1),
             "png 49 MP, no data": png_of(7000, 7000, bytes(10)), "png zero": png_of(0, 0),
             "png depth": png_of(9, 9, depth=3),
             "png 51 MP": png_of(7200, 7200), "png no pixels": png_of(50, 50),
             "png text bomb": png[:33] + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(90_000_000))) + png[33:],
             "png crc": png[:40] + b"\0\0\0\0" + png[44:], "ppm": b"P6 99999 99999 255\n", "xpm": b"/* XPM */\nstatic",
             "fits": b"SIMPLE  =                    T" + bytes(2850), "psd": b"8BPS" + bytes(40),
             "ico": b"\0\0\1\0\1\0" + bytes(16),
             "icns": b"icns" + struct.pack(">I", 2**31), "j2k": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40),
             "dds": b"DDS " + bytes(124),
             "mpeg": b"\x00\x00\x01\xba" + bytes(60), "sgi": b"\x01\xda" + bytes(510),
             "pcx": b"\x0a\x05\x01\x08" + bytes(124)}
    for name, whole in (("jpeg", jpeg), ("png", png), ("webp", webp), ("gif", gif), ("tiff", tiff), ("bmp", bmp)):
        found[f"{name} cut early"] = whole[:30]
        found[f"{name} cut in the middle"] = whole[:len(whole) // 2]
    return found


def test_hostile_files_get_a_sentence(port):
    files = hostile_files()
    assert len(files) >= 50
    for name, data in files.items():
        got, said = asked(port, data)
        assert got.status == 422 and list(said) == ["problem"], (name, got.status, str(said)[:200])
        assert said["problem"].startswith("This ") and said["problem"][-1] == ".", (name, said)
        assert len(said["problem"]) < 200, (name, said)
        assert "Error" not in said["problem"] and "0x" not in said["problem"], (name, said)
    assert asked(port, encoded())[0].status == 200  # and it still works


def test_every_format_that_it_says_it_reads_is_read(classifier):
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        assert sum(answer(classifier, encoded(3, kind))["probabilities"]) == pytest.approx(1, abs=1e-5)
    for image in (Image.new("L", (1, 1)), Image.new("RGBA", (3, 500)), Image.new("P", (40, 40)),
                  Image.new("I;16", (9, 9), 9000)):
        file = io.BytesIO()
        image.save(file, "PNG")
        assert answer(classifier, file.getvalue())["picture"]


def test_only_its_own_page_may_ask(port):
    own = f"127.0.0.1:{port}"
    for headers in ({"Host": "evil.example"}, {"Host": f"evil.example:{port}"}, {"Origin": "https://evil.example"},
                    {"Host": own, "Origin": "null"}, {"Host": ""}):
        assert asked(port, encoded(), **headers)[0].status == 403, headers
        if "Host" in headers and "Origin" not in headers:
            assert asked(port, method="GET", path="/", **headers)[0].status == 403
    assert asked(port, encoded(), Origin=f"http://{own}")[0].status == 200
    assert asked(port, encoded(), Host=f"localhost:{port}")[0].status == 200


def raw(port: int, text: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 10) as line:
        line.sendall(text)
        line.shutdown(socket.SHUT_WR)
        return line.makefile("rb").read()


def test_what_is_too_large_is_refused_before_it_is_read(port):
    start = f"POST /ask HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n".encode()
    said = raw(port, start + f"Content-Length: {int(MEGABYTES * 1e6) + 1}\r\n\r\n".encode())
    assert b" 413 " in said and b"at most 20 MB" in said
    for length in (b"", b"Content-Length: -5\r\n", b"Content-Length: x\r\n", "Content-Length: \u0665\r\n".encode()):
        assert b" 411 " in raw(port, start + length + b"\r\n"), length
    assert b"did not arrive as a whole" in raw(port, start + b"Content-Length: 500\r\n\r\nshort")
    assert b" 501 " in raw(port, b"PUT / HTTP/1.1\r\n\r\n")


def test_a_port_in_use_and_a_page_without_a_model(classifier, port, tmp_path, monkeypatch):
    with pytest.raises(OSError, match=rf"Port {port} is in use.*--port"):
        make_server(classifier, port=port)
    first, second = make_server(classifier), make_server(classifier)
    assert 8800 <= first.server_port < second.server_port < 8820 and first.server_address[0] == "127.0.0.1"
    first.server_close()
    second.server_close()
    with pytest.raises(OSError, match="is no name of this computer|cannot be listened on"):
        make_server(classifier, "no.such.host.invalid", 0)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="course train"):
        serve_app()
    with pytest.raises(FileNotFoundError, match="There is no model"):
        serve_app("nowhere")


@pytest.fixture(scope="module")
def browser():
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parents[1] / "site"))
    from served import find_browser

    if not find_browser() or importlib.util.find_spec("playwright") is None:
        pytest.skip("Chromium and playwright are needed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        yield one
        one.close()


@pytest.mark.slow
@pytest.mark.parametrize("look", [{"width": 375, "scheme": "dark"}, {"width": 1280, "scheme": "light"}])
def test_in_a_browser_a_photograph_is_uploaded_and_named(browser, port, classifier, tmp_path, look):
    page = browser.new_context(viewport={"width": look["width"], "height": 800}, color_scheme=look["scheme"]).new_page()
    trouble: list = []
    page.on("pageerror", lambda error: trouble.append(error))
    page.on("console", lambda message: message.type == "error" and trouble.append(message.text))
    asked_for: list[str] = []
    page.on("request", lambda request: asked_for.append(request.url))
    page.goto(f"http://127.0.0.1:{port}/")
    page.wait_for_selector("body[data-ready=yes]")
    (tmp_path / "a.png").write_bytes(encoded())
    page.set_input_files("#file", tmp_path / "a.png")
    page.wait_for_selector("#result:not([hidden])")
    (expected,) = predict_images(classifier, tmp_path / "a.png")
    assert page.inner_text(".bars li:first-child b") == expected.label
    assert page.locator("#result canvas").count() == 2 and page.locator(".bars li").count() == 3
    assert page.evaluate("typeof window.name") == "string"  # onnxruntime-web asks for it
    assert page.evaluate("document.documentElement.scrollWidth") <= look["width"]
    assert not trouble and all(url.startswith((f"http://127.0.0.1:{port}/", "data:", "blob:")) for url in asked_for)
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    (tmp_path / "b.png").write_bytes(b"nothing")
    page.set_input_files("#file", tmp_path / "b.png")
    page.locator("#said", has_text=re.compile("^This is no photograph")).wait_for()
    assert page.locator("#result").is_hidden()
