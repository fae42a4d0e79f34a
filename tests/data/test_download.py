"""Downloads against a server that misbehaves, and archives that mean harm."""
import errno
import gzip
import hashlib
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from course_lib.data import archives
from course_lib.data import download as module
from course_lib.data.archives import ArchiveError, unpack
from course_lib.data.download import DownloadError, download, file_checksum, has_checksum

QUIET = dict(progress=False, backoff=0.001, timeout=10)
BODY = bytes(range(256)) * 1200  # 307,200 bytes in which a shifted piece shows
posix_only = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX systems")


def sha1(data: bytes) -> str:
    return "sha1:" + hashlib.sha1(data).hexdigest()


class Served:
    """One file of the server, and how it misbehaves. `cuts` is used up, one entry an answer."""

    def __init__(self, body=BODY, *, etag='"1"', changed=None, ranges=True, honest=True, cuts=(), statuses=(),
                 chunked=False, length=True, redirect=None, delay=0.0, hang=False, range_from=None):
        self.__dict__.update({k: v for k, v in locals().items() if k != "self"})
        self.cuts, self.statuses, self.requests = list(cuts), list(statuses), []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.close_connection = True
        served = self.server.served.get(self.path)
        if served is None:
            return self.send_error(404)
        served.requests.append(dict(self.headers.items()))
        status = served.statuses.pop(0) if served.statuses else 200
        if served.redirect:
            status = 302
        asked = self.headers.get("Range") if served.ranges else None
        version = self.headers.get("If-Range")
        if asked and served.honest and version and version not in (served.etag, served.changed):
            asked = None
        start = int(asked[6:-1]) if asked else 0
        if status == 200 and asked:
            status = 416 if start >= len(served.body) else 206
        body = served.body[start:] if status in (200, 206) else b"sorry"
        self.send_response(status)
        if served.redirect:
            self.send_header("Location", served.redirect)
        for name, value in (("ETag", served.etag), ("Last-Modified", served.changed)):
            if value:
                self.send_header(name, value)
        if status == 206:
            told = start if served.range_from is None else served.range_from
            self.send_header("Content-Range", f"bytes {told}-{len(served.body) - 1}/{len(served.body)}")
        if served.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif served.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.send_body(served, body)

    def send_body(self, served, body):
        cut = served.cuts.pop(0) if served.cuts else None
        pieces = [body[:cut][i:i + 4096] for i in range(0, len(body[:cut]), 4096)]
        try:
            for piece in pieces:
                time.sleep(served.delay)
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if served.chunked else piece)
            if served.hang:
                self.server.let_go.wait(20)
            elif served.chunked and cut is None:
                self.wfile.write(b"0\r\n\r\n")
        except OSError:
            pass  # the client has gone

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass

    def add(self, name, served):
        self.served[name] = served
        return f"http://127.0.0.1:{self.server_port}{name}"


@pytest.fixture(scope="module")
def running_server():
    server = Server(("127.0.0.1", 0), Handler)
    server.served, server.let_go = {}, threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.let_go.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def server(running_server, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running_server.served.clear()
    return running_server


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def start_python(code: str, *args) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, args)], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)


FETCH = """
import sys
from course_lib.data.download import download
download(sys.argv[1], sys.argv[2], timeout=20, backoff=0.01)
"""


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


# ---------------------------------------------------------------- the plain cases

def test_fetches_into_a_new_folder_and_leaves_nothing_beside(server, tmp_path):
    url = server.add("/a.bin", Served())
    path = download(url, tmp_path / "new" / "deep" / "a.bin", checksum=sha1(BODY), progress=True)
    assert path.read_bytes() == BODY
    assert names(path.parent) == ["a.bin"]


@pytest.mark.parametrize("size", [0, 1, 4096, 1_000_001])
@pytest.mark.parametrize("how", ["length", "chunked", "neither"])
def test_every_size_and_way_of_sending(server, tmp_path, size, how):
    body = os.urandom(size)
    url = server.add("/a.bin", Served(body, chunked=how == "chunked", length=how == "length"))
    assert download(url, tmp_path / "a.bin", **QUIET).read_bytes() == body
    assert names(tmp_path) == ["a.bin"]


def test_finished_file_is_not_fetched_again(server, tmp_path):
    served = Served()
    url = server.add("/a.bin", served)
    for checksum in (sha1(BODY), sha1(BODY).upper(), None):
        download(url, tmp_path / "a.bin", checksum=checksum, **QUIET)
    assert len(served.requests) == 1


def test_finished_file_with_other_bytes_is_fetched_anew(server, tmp_path):
    url = server.add("/a.bin", Served())
    (tmp_path / "a.bin").write_bytes(BODY[:-1])
    assert download(url, tmp_path / "a.bin", checksum=sha1(BODY), **QUIET).read_bytes() == BODY


def test_wrong_bytes_do_not_stay_when_the_right_ones_cannot_be_had(server, tmp_path):
    (tmp_path / "a.bin").write_bytes(BODY[:-1])
    with pytest.raises(DownloadError, match="nothing at"):
        download(server.add("/a.bin", Served(statuses=[404])), tmp_path / "a.bin", checksum=sha1(BODY), **QUIET)
    assert not (tmp_path / "a.bin").exists()


def test_address_with_blanks_and_accents(server, tmp_path):
    url = server.add("/hot%20dog%C3%A9.bin", Served())
    assert download(url.replace("%20", " ").replace("%C3%A9", "é"), tmp_path / "a.bin", **QUIET).read_bytes() == BODY


def test_follows_a_redirect(server, tmp_path):
    target = server.add("/a.bin", Served(cuts=[1000]))
    url = server.add("/moved", Served(redirect=target))
    assert download(url, tmp_path / "a.bin", **QUIET).read_bytes() == BODY  # also when it goes on after a break


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/a"])
def test_a_redirect_cannot_lead_to_another_scheme(server, tmp_path, target):
    url = server.add("/moved", Served(redirect=target))
    with pytest.raises(DownloadError):
        download(url, tmp_path / "a.bin", **QUIET)
    assert not (tmp_path / "a.bin").exists()


# ---------------------------------------------------------------- broken connections

@pytest.mark.parametrize("chunked", [False, True])
def test_goes_on_where_the_connection_broke(server, tmp_path, chunked):
    served = Served(cuts=[100_000, 50_000], chunked=chunked)
    path = download(server.add("/a.bin", served), tmp_path / "a.bin", **QUIET)
    assert path.read_bytes() == BODY
    assert [r.get("Range") for r in served.requests] == [None, "bytes=100000-", "bytes=150000-"]
    assert [r.get("If-Range") for r in served.requests] == [None, '"1"', '"1"']


def test_no_limit_to_breaks_that_bring_something(server, tmp_path):
    served = Served(BODY[:10_000], cuts=[1000] * 20)
    path = download(server.add("/a.bin", served), tmp_path / "a.bin", retries=1, **QUIET)
    assert path.read_bytes() == BODY[:10_000] and len(served.requests) == 10


def test_gives_up_when_nothing_new_comes_and_a_later_call_goes_on(server, tmp_path):
    served = Served(cuts=[70_000, 0, 0, 0])
    url = server.add("/a.bin", served)
    with pytest.raises(DownloadError, match="broke.*0 of|broke.*70,000 of 307,200 bytes.*70.0 kB are kept"):
        download(url, tmp_path / "a.bin", retries=2, **QUIET)
    assert not (tmp_path / "a.bin").exists() and len(served.requests) == 3
    served.cuts.clear()
    assert download(url, tmp_path / "a.bin", **QUIET).read_bytes() == BODY
    assert served.requests[-1]["Range"] == "bytes=70000-"
    assert "a.bin.part" not in names(tmp_path) and "a.bin.part.json" not in names(tmp_path)


def test_a_server_without_ranges_sends_everything_again(server, tmp_path):
    served = Served(ranges=False, cuts=[100_000])
    assert download(server.add("/a.bin", served), tmp_path / "a.bin", **QUIET).read_bytes() == BODY


def test_a_server_without_ranges_that_always_breaks(server, tmp_path):
    served = Served(ranges=False, cuts=[100_000] * 50)
    with pytest.raises(DownloadError, match="100,000 of 307,200"):
        download(server.add("/a.bin", served), tmp_path / "a.bin", retries=3, **QUIET)
    assert len(served.requests) == 4 and not (tmp_path / "a.bin").exists()


def test_a_server_that_sends_the_wrong_piece(server, tmp_path):
    served = Served(cuts=[100_000], range_from=99_999)  # it says so itself: the first byte is another
    assert download(server.add("/a.bin", served), tmp_path / "a.bin", **QUIET).read_bytes() == BODY
    assert [r.get("Range") for r in served.requests] == [None, "bytes=100000-", None]


def test_a_kept_piece_that_is_longer_than_the_file(server, tmp_path):
    served = Served(BODY[:1000], etag=None)
    url = server.add("/a.bin", served)
    (tmp_path / "a.bin.part").write_bytes(b"x" * 5000)
    (tmp_path / "a.bin.part.json").write_text(f'{{"url": "{url}"}}', encoding="utf-8")
    path = download(url, tmp_path / "a.bin", checksum=sha1(BODY[:1000]), **QUIET)
    assert path.read_bytes() == BODY[:1000]
    assert [r.get("Range") for r in served.requests] == ["bytes=5000-", None]  # the first was answered with 416


def test_hang_is_ended_by_the_timeout(server, tmp_path):
    served = Served(cuts=[5000] * 9, hang=True)
    served.body = BODY[:4096]
    served.cuts = [1000, 0, 0, 0]
    begin = time.monotonic()
    with pytest.raises(DownloadError, match=r"sent nothing for 0\.2 seconds.*kept"):
        download(server.add("/a.bin", served), tmp_path / "a.bin", progress=False, timeout=0.2, retries=1, backoff=0.01)
    assert time.monotonic() - begin < 5
    assert (tmp_path / "a.bin.part").read_bytes() == BODY[:1000]  # what had come was written before the hang


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(0, 30_000), cuts=st.lists(st.integers(0, 20_000), max_size=4), ranges=st.booleans(),
       etag=st.booleans(), chunked=st.booleans())
def test_any_breaks_end_in_the_same_bytes(server, tmp_path_factory, size, cuts, ranges, etag, chunked):
    folder = tmp_path_factory.mktemp("any")
    body = BODY[:size]
    served = Served(body, cuts=cuts, ranges=ranges, etag='"1"' if etag else None, chunked=chunked)
    path = download(server.add("/any.bin", served), folder / "a.bin", checksum=sha1(body), retries=6, **QUIET)
    assert path.read_bytes() == body and names(folder) == ["a.bin"]


# ---------------------------------------------------------------- a file that changes meanwhile

NEW = bytes(reversed(BODY))


@pytest.mark.parametrize("marks", [dict(etag='"2"'), dict(etag=None, changed="Tue, 02 Jan 2024 00:00:00 GMT")])
@pytest.mark.parametrize("honest", [True, False])  # a server that honours If-Range, and one that does not
@pytest.mark.parametrize("checksum", [None, sha1(NEW)])
def test_a_changed_file_is_not_glued_to_the_old_half(server, tmp_path, marks, honest, checksum):
    old = dict(etag='"1"') if marks["etag"] else dict(etag=None, changed="Mon, 01 Jan 2024 00:00:00 GMT")
    url = server.add("/a.bin", Served(cuts=[100_000, 0], **old))
    with pytest.raises(DownloadError):
        download(url, tmp_path / "a.bin", retries=0, **QUIET)
    server.add("/a.bin", Served(NEW, honest=honest, **marks))
    assert download(url, tmp_path / "a.bin", checksum=checksum, **QUIET).read_bytes() == NEW


def test_without_version_marks_the_checksum_decides(server, tmp_path):
    url = server.add("/a.bin", Served(etag=None, cuts=[100_000]))
    with pytest.raises(DownloadError):
        download(url, tmp_path / "a.bin", retries=0, **QUIET)
    changed = Served(NEW, etag=None)
    server.add("/a.bin", changed)
    assert download(url, tmp_path / "a.bin", checksum=sha1(NEW), **QUIET).read_bytes() == NEW
    assert [r.get("Range") for r in changed.requests] == ["bytes=100000-", None]  # glued, found wrong, fetched whole


def test_without_version_marks_and_checksum_it_starts_again(server, tmp_path):
    served = Served(etag=None, cuts=[100_000])
    assert download(server.add("/a.bin", served), tmp_path / "a.bin", **QUIET).read_bytes() == BODY
    assert [r.get("Range") for r in served.requests] == [None, None]


def test_another_address_starts_again(server, tmp_path):
    with pytest.raises(DownloadError):
        download(server.add("/old.bin", Served(cuts=[100_000])), tmp_path / "a.bin", retries=0, **QUIET)
    served = Served(NEW)  # even with the same ETag
    assert download(server.add("/new.bin", served), tmp_path / "a.bin", **QUIET).read_bytes() == NEW
    assert served.requests[0].get("Range") is None


@pytest.mark.parametrize("note", ["", "{", "[]", '{"url": 5}', "\x00"])
def test_a_spoilt_note_only_costs_the_piece(server, tmp_path, note):
    (tmp_path / "a.bin.part").write_bytes(b"rubbish")
    (tmp_path / "a.bin.part.json").write_text(note, encoding="utf-8")
    assert download(server.add("/a.bin", Served()), tmp_path / "a.bin", **QUIET).read_bytes() == BODY


# ---------------------------------------------------------------- errors, in words

def test_wrong_content_names_everything_and_leaves_nothing(server, tmp_path):
    url = server.add("/a.bin", Served(NEW))
    with pytest.raises(DownloadError) as caught:
        download(url, tmp_path / "a.bin", checksum=sha1(BODY), **QUIET)
    for word in (url, sha1(BODY), sha1(NEW), "Try again", "deleted"):
        assert word in str(caught.value)
    assert [n for n in names(tmp_path) if not n.endswith(".lock")] == []


@pytest.mark.parametrize("status, words", [(404, "nothing at"), (410, "nothing at"), (403, "does not give out"),
                                           (400, "answers 400")])
def test_refusals_are_not_retried(server, tmp_path, status, words):
    served = Served(statuses=[status] * 9)
    url = server.add("/a.bin", served)
    with pytest.raises(DownloadError, match=words) as caught:
        download(url, tmp_path / "a.bin", **QUIET)
    assert url in str(caught.value) and len(served.requests) == 1
    assert not (tmp_path / "a.bin").exists() and not (tmp_path / "a.bin.part").exists()


@pytest.mark.parametrize("status", [500, 503, 429])
def test_trouble_at_the_server_is_retried(server, tmp_path, status):
    served = Served(statuses=[status, status])
    assert download(server.add("/a.bin", served), tmp_path / "a.bin", **QUIET).read_bytes() == BODY
    assert len(served.requests) == 3
    with pytest.raises(DownloadError, match=f"in trouble.*{status}.*later"):
        download(server.add("/b.bin", Served(statuses=[status] * 9)), tmp_path / "b.bin", **QUIET)


def test_an_answer_that_is_no_file(server, tmp_path):
    with pytest.raises(DownloadError, match="answers 203"):
        download(server.add("/a.bin", Served(statuses=[203])), tmp_path / "a.bin", **QUIET)


def test_no_network_says_which_address_and_what_needs_none(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")

    def no_names(host, *args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    monkeypatch.setattr(socket, "getaddrinfo", no_names)
    begin = time.monotonic()
    with pytest.raises(DownloadError) as caught:
        download("http://data.example.org/birds.tgz", tmp_path / "a.bin", progress=False)
    assert time.monotonic() - begin < 3  # the default pauses: a reader without a network hears soon
    for word in ("http://data.example.org/birds.tgz", "Name or service not known", "network", "dataset = elpv"):
        assert word in str(caught.value)


def test_nobody_listens(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/a"
        with pytest.raises(DownloadError, match="cannot be reached"):
            download(url, tmp_path / "a.bin", **QUIET)


def test_a_server_that_speaks_no_http(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        def answer():
            for _ in range(2):
                connection, _address = listening.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"SSH-2.0-OpenSSH\r\n")
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with pytest.raises(DownloadError, match="broke"):
            download(f"http://127.0.0.1:{listening.getsockname()[1]}/a", tmp_path / "a.bin", retries=1, **QUIET)
        thread.join(5)


def test_http_where_https_is_expected(server, tmp_path):
    url = server.add("/a.bin", Served()).replace("http://", "https://")
    with pytest.raises(DownloadError, match="cannot be reached"):
        download(url, tmp_path / "a.bin", **QUIET)


def test_certificates_are_explained_and_not_retried():
    import ssl
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "certificate has expired"
    wrapped = module.urllib.error.URLError(error)
    assert not module._worth_retrying(wrapped)
    assert "certificate has expired" in module._explain_network("https://x.org/a", wrapped, 1.0)


@pytest.mark.parametrize("url", ["ftp://example.org/a", "file:///etc/passwd", "data:,x", "a.zip", "C:/a.zip", "", "http://"])
def test_other_addresses_are_refused(tmp_path, url):
    with pytest.raises(ValueError, match="http://"):
        download(url, tmp_path / "a")
    assert names(tmp_path) == []


@pytest.mark.parametrize("checksum", ["", "sha1", "sha1:", "sha1:123", "crc32:12345678", "md5:" + "g" * 32, "0" * 40])
def test_a_checksum_that_is_none_is_refused_before_anything_else(tmp_path, checksum):
    with pytest.raises(ValueError, match="sha1"):
        download("http://127.0.0.1:9/a", tmp_path / "a", checksum=checksum)


def test_a_folder_in_the_way(tmp_path):
    with pytest.raises(DownloadError, match="is a folder"):
        download("http://127.0.0.1:9/a", tmp_path)


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DownloadError, match="data_dir"):
        download("http://127.0.0.1:9/a", tmp_path / "file" / "a.bin")


# ---------------------------------------------------------------- the disk

def test_disk_full_on_the_way(server, tmp_path, monkeypatch):
    class Full(io.FileIO):
        def write(self, data):
            if self.tell() >= 100_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data[:60_000])  # a raw write may take less than it is given

    def full_open(path, mode, **_):
        return Full(path, "a") if "a" in mode else open(path, mode)
    monkeypatch.setattr(module, "open", full_open, raising=False)
    url = server.add("/a.bin", Served())
    with pytest.raises(DownloadError, match=r"no room left.*free.*Make room, or set data_dir"):
        download(url, tmp_path / "a.bin", **QUIET)
    assert not (tmp_path / "a.bin").exists()
    monkeypatch.undo()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert download(url, tmp_path / "a.bin", **QUIET).read_bytes() == BODY  # it goes on once there is room


def test_too_little_room_is_known_before(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: namedtuple("usage", "free")(1000))
    with pytest.raises(DownloadError, match=r"no room left.*1\.0 kB free"):
        download(server.add("/a.bin", Served()), tmp_path / "a.bin", **QUIET)
    assert [n for n in names(tmp_path) if not n.endswith(".lock")] == []


@posix_only
def test_a_real_limit_of_the_system(server, tmp_path):
    code = ("import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))\n"
            "from course_lib.data.download import DownloadError, download\n"
            "try: download(sys.argv[1], sys.argv[2], progress=False)\n"
            "except DownloadError as error: print(error)\n")
    process = start_python(code, server.add("/a.bin", Served()), tmp_path / "a.bin")
    said = process.communicate(timeout=60)[0]
    assert "largest file" in said and "100 kB" in said and not (tmp_path / "a.bin").exists(), said


@pytest.mark.slow
@posix_only
@pytest.mark.parametrize("inside", ["a.bin", "deep/deeper/a.bin"])
@pytest.mark.parametrize("mode", [0o500, 0o000])  # a folder that may be looked into, and one that may not
def test_a_folder_that_may_not_be_written(server, tmp_path, mode, inside):
    code = ("import os, sys, filelock, tqdm.auto\n"
            "from course_lib.data.download import DownloadError, download\n"
            "if os.geteuid() == 0: os.setuid(65534)  # root may write everywhere\n"
            "try: download(sys.argv[1], sys.argv[2], progress=False)\n"
            "except DownloadError as error: print(error)\n")
    folder = tmp_path / "locked"
    folder.mkdir()
    if os.geteuid() == 0:
        for parent in tmp_path.parents:
            if parent.name.startswith(("pytest-", "popen-")):
                parent.chmod(0o755)
    tmp_path.chmod(0o755)
    folder.chmod(mode)
    said = start_python(code, server.add("/a.bin", Served()), folder / inside).communicate(timeout=60)[0]
    folder.chmod(0o700)
    assert "may not be read or written (Permission denied)" in said and "data_dir" in said, said
    assert names(folder) == []


# ---------------------------------------------------------------- killed, interrupted, twice at once

def stop_midway(server, tmp_path, stop):
    served = Served(delay=0.02)
    url = server.add("/a.bin", served)
    process = start_python(FETCH, url, tmp_path / "a.bin")
    part = tmp_path / "a.bin.part"
    wait_for(lambda: part.exists() and part.stat().st_size > 20_000)
    stop(process)
    said = process.communicate(timeout=20)[0]
    assert process.returncode != 0 and not (tmp_path / "a.bin").exists(), said
    size = part.stat().st_size
    assert 20_000 < size < len(BODY)
    served.delay = 0
    assert download(url, tmp_path / "a.bin", **QUIET).read_bytes() == BODY
    assert served.requests[-1]["Range"] == f"bytes={size}-"
    assert names(tmp_path) == ["a.bin"]
    return said


def test_kill_midway_and_go_on(server, tmp_path):
    stop_midway(server, tmp_path, lambda process: process.kill())


@posix_only
def test_ctrl_c_midway_and_go_on(server, tmp_path):
    said = stop_midway(server, tmp_path, lambda process: process.send_signal(signal.SIGINT))
    assert "KeyboardInterrupt" in said


def test_two_processes_fetch_once(server, tmp_path):
    served = Served(delay=0.01)
    url = server.add("/a.bin", served)
    processes = [start_python(FETCH, url, tmp_path / "a.bin") for _ in range(2)]
    said = [p.communicate(timeout=60)[0] for p in processes]
    assert [p.returncode for p in processes] == [0, 0], said
    assert len(served.requests) == 1 and (tmp_path / "a.bin").read_bytes() == BODY
    assert sum("Another process" in text for text in said) == 1


def test_threads_fetch_once(server, tmp_path):
    served = Served(delay=0.002)
    url = server.add("/a.bin", served)
    threads = [threading.Thread(target=download, args=(url, tmp_path / "a.bin"), kwargs=QUIET) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(served.requests) == 1 and (tmp_path / "a.bin").read_bytes() == BODY


# ---------------------------------------------------------------- archives

FILES = {"cats/1.jpg": b"cat" * 1000, "cats/2.jpg": b"", "dogs/deep/er/1.jpg": os.urandom(70_000), "read me.txt": b"hi"}


def make_zip(files=FILES, compression=zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def make_tar(files=FILES, mode="w:gz", members=(), format=tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=format) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for member in members:
            archive.addfile(member)
    return buffer.getvalue()


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*"))
            if p.is_file() and p.name != archives.MARK}


def refused(tmp_path: Path, data: bytes, match: str, name="evil.bin", **limits) -> None:
    """`data` is refused with these words, and nothing in `tmp_path` is any different afterwards."""
    (tmp_path / name).write_bytes(data)
    before = tree(tmp_path)
    with pytest.raises(ArchiveError, match=match) as caught:
        unpack(tmp_path / name, tmp_path / "out", progress=False, **limits)
    assert name in str(caught.value)
    (tmp_path / "out.lock").unlink(missing_ok=True)
    assert tree(tmp_path) == before and not (tmp_path / "out").exists() and not (tmp_path / "out.unpacking").exists()


@pytest.mark.parametrize("data", [
    make_zip(), make_zip(compression=zipfile.ZIP_STORED), make_tar(), make_tar(mode="w"),
    make_tar(format=tarfile.GNU_FORMAT), make_tar(format=tarfile.USTAR_FORMAT)],
    ids=["zip", "stored zip", "tar.gz", "tar", "gnu tar.gz", "ustar tar.gz"])
def test_unpacks_what_is_in_it(tmp_path, data):
    (tmp_path / "a").write_bytes(data)
    assert unpack(tmp_path / "a", tmp_path / "new" / "out") == tmp_path / "new" / "out"
    assert tree(tmp_path / "new" / "out") == FILES
    assert names(tmp_path / "new") == ["out"]


def test_an_archive_made_by_the_systems_tar(tmp_path):
    (tmp_path / "in" / "cats").mkdir(parents=True)
    (tmp_path / "in" / "cats" / "1.jpg").write_bytes(b"cat")
    (tmp_path / "in" / "cats" / ("long" * 50)).write_bytes(b"x")
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        archive.add(tmp_path / "in", arcname=".")  # './' itself and './cats' are members, as `tar czf a.tgz .` writes
    unpack(tmp_path / "a.tgz", tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "in")


def test_unpacking_twice_leaves_the_first(tmp_path):
    (tmp_path / "a.zip").write_bytes(make_zip())
    unpack(tmp_path / "a.zip", tmp_path / "out")
    (tmp_path / "out" / "cats" / "1.jpg").write_bytes(b"edited")
    unpack(tmp_path / "a.zip", tmp_path / "out")
    assert (tmp_path / "out" / "cats" / "1.jpg").read_bytes() == b"edited"


def test_an_empty_folder_is_filled_and_a_full_one_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(make_zip())
    (tmp_path / "out").mkdir()
    unpack(tmp_path / "a.zip", tmp_path / "out")
    assert tree(tmp_path / "out") == FILES
    (tmp_path / "b.zip").write_bytes(make_zip({"other": b"x"}))
    with pytest.raises(FileExistsError, match="out is there already.*did not come from b.zip"):
        unpack(tmp_path / "b.zip", tmp_path / "out")
    assert tree(tmp_path / "out") == FILES
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError, match="file is there already"):
        unpack(tmp_path / "a.zip", tmp_path / "file")


def test_no_archive(tmp_path):
    with pytest.raises(FileNotFoundError, match="download it first"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


BAD_NAMES = ["../x", "a/../../x", "/x", "//x", "C:/x", "c:x", "a\\..\\..\\x", "\\\\host\\x", "a:x", "NUL", "a/com1.txt",
             "a.", "a /x", "a\nb", "..", "a/.."]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names(tmp_path, name):
    refused(tmp_path, make_zip(FILES | {name: b"x"}), "the name|neither|damaged")
    outside = name.startswith("/") or ".." in name.split("/")
    refused(tmp_path, make_tar(FILES | {name: b"x"}), "points outside the folder" if outside else "the name")


def special(kind: bytes, target="") -> tarfile.TarInfo:
    member = tarfile.TarInfo("special")
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize("member", [
    special(tarfile.SYMTYPE, "/etc/passwd"), special(tarfile.SYMTYPE, "cats/1.jpg"), special(tarfile.SYMTYPE, ".."),
    special(tarfile.LNKTYPE, "/etc/passwd"), special(tarfile.LNKTYPE, "cats/1.jpg"), special(tarfile.CHRTYPE),
    special(tarfile.BLKTYPE), special(tarfile.FIFOTYPE)], ids=lambda m: f"{m.type!r} {m.linkname}")
def test_links_and_devices(tmp_path, member):
    for mode in ("w:gz", "w"):
        refused(tmp_path, make_tar(members=[member], mode=mode), "'special' is a link or a device")


def test_links_in_a_zip(tmp_path):
    for kind in (0o120777, 0o020666, 0o010666):  # a symbolic link, a device, a FIFO
        info = zipfile.ZipInfo("link")
        info.external_attr = kind << 16
        refused(tmp_path, make_zip({info: b"/etc/passwd"}), "'link' is a link or a device")


def test_a_file_written_through_a_link_of_the_same_archive(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    link = tarfile.TarInfo("door")
    link.type, link.linkname = tarfile.SYMTYPE, str(outside)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("door/x"))
    refused(tmp_path, buffer.getvalue(), "'door' is a link")
    assert names(outside) == []


@pytest.mark.parametrize("first, second", [("a", "a"), ("a", "A"), ("a", "./a"), ("a", "a/b"), ("a/b", "a"),
                                           ("A/x", "a/y"), ("\u00e9", "e\u0301")])
def test_names_in_each_others_way(tmp_path, first, second):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(first))
        archive.addfile(tarfile.TarInfo(second))
    refused(tmp_path, buffer.getvalue(), "one and the same")


ZEROS = {"zeros": bytes(3_000_000)}


BOMBS = {"zip": make_zip(ZEROS), "tar.gz": make_tar(ZEROS),
         "many": make_zip({str(i): bytes(10_000) for i in range(200)})}


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS.keys())
def test_more_than_max_bytes(tmp_path, data):
    assert len(data) < 100_000
    refused(tmp_path, data, "more than 1.0 MB.*max_bytes", max_bytes=1_000_000)
    (tmp_path / "good").write_bytes(data)
    unpack(tmp_path / "good", tmp_path / "out", max_bytes=3_000_000)  # exactly at the limit is allowed


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_zeros_that_shrink_a_thousandfold_are_refused_unless_one_asks_for_them(tmp_path, kind):
    make = {"zip": make_zip, "tar.gz": make_tar}[kind]
    data = make({"zeros": bytes(210_000_000)})
    assert len(data) < 1_000_000
    refused(tmp_path, data, "more than 200 MB.*max_bytes")
    (tmp_path / "good").write_bytes(data)
    assert (unpack(tmp_path / "good", tmp_path / "out", max_bytes=10**9) / "zeros").stat().st_size == 210_000_000
    shutil.rmtree(tmp_path / "out")


def test_what_hardly_shrinks_may_be_large(tmp_path, monkeypatch):
    """A hundred times the archive's size is allowed, and 20 GB at most."""
    limits = []

    def refuse(max_bytes, max_files):
        limits.append(max_bytes)
        raise OSError

    monkeypatch.setattr(archives, "_Inventory", refuse)
    for size in (1000, 5_000_000, 3 * 10**9):
        with open(tmp_path / "archive", "wb") as file:
            file.truncate(size)
        with pytest.raises(OSError):
            unpack(tmp_path / "archive", tmp_path / f"out {size}")
    assert limits == [2 * 10**8, 5 * 10**8, 20 * 10**9]


def test_a_zip_that_admits_its_size_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    def place(*_):
        raise AssertionError("it has begun to unpack")
    monkeypatch.setattr(archives._Inventory, "place", place)
    refused(tmp_path, make_zip({str(i): bytes(1000) for i in range(20)}), "more than 10.0 kB", max_bytes=10_000)


def test_a_zip_that_lies_about_its_size(tmp_path):
    data = make_zip(ZEROS)
    lie = data.replace((3_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    assert lie != data
    refused(tmp_path, lie, "damaged", max_bytes=1_000_000)


def test_a_gzip_bomb_behind_the_end_of_the_tar(tmp_path):
    data = gzip.compress(gzip.decompress(make_tar()) + bytes(3_000_000))
    refused(tmp_path, data, "more than 1.0 MB", max_bytes=1_000_000)


def test_a_sparse_file_counts_what_it_becomes(tmp_path):
    sparse = tarfile.TarInfo("sparse")
    sparse.size = 0
    sparse.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.size": str(10**12),
                          "GNU.sparse.map": f"{10**12},0", "GNU.sparse.realsize": str(10**12)}
    refused(tmp_path, make_tar(members=[sparse]), "more than 5.0 MB", max_bytes=5_000_000)


def test_a_header_of_absurd_length(tmp_path):
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 300_000_000
    data = gzip.compress(header.tobuf(format=tarfile.GNU_FORMAT) + bytes(30_000_000))
    refused(tmp_path, data, "absurd length")


def test_more_than_max_files(tmp_path):
    refused(tmp_path, make_zip({f"{i}": b"" for i in range(11)}), "more than 10 files", max_files=10)


def test_a_password(tmp_path):
    data = bytearray(make_zip({"a": b"x"}))
    data[6] |= 1  # in the local header and in the directory
    data[data.index(b"PK\1\2") + 8] |= 1
    refused(tmp_path, bytes(data), "password")


@pytest.mark.parametrize("data", [b"", b"x", b"<!DOCTYPE html>", b"PK\3\4", b"\x1f\x8b", bytes(1024), b"BZh91AY" * 99])
def test_no_archive_at_all(tmp_path, data):
    refused(tmp_path, data, "not unpacked")


TRUNCATABLE = {"zip": make_zip(), "tar.gz": make_tar(), "tar": make_tar(mode="w")}


@settings(max_examples=80, deadline=None)
@given(kind=st.sampled_from(sorted(TRUNCATABLE)), where=st.floats(0, 1, exclude_max=True))
@example(kind="tar", where=512 * 7 / len(TRUNCATABLE["tar"]))  # between two members: tarfile alone takes it for whole
def test_a_truncated_archive_is_whole_or_refused(tmp_path_factory, kind, where):
    folder = tmp_path_factory.mktemp("cut")
    data = TRUNCATABLE[kind]
    (folder / "a").write_bytes(data[:int(len(data) * where)])
    try:
        unpack(folder / "a", folder / "out", progress=False)
    except ArchiveError:
        assert not (folder / "out").exists() and not (folder / "out.unpacking").exists()
    else:
        assert kind == "tar" and tree(folder / "out") == FILES  # only the padding behind its end was missing


def test_a_tar_cut_between_members_is_refused(tmp_path):
    data = make_tar({"a": b"x" * 512, "b": b"y" * 512}, mode="w")
    for blocks in range(1, 4):
        refused(tmp_path, data[:512 * blocks], "damaged|starts")
    (tmp_path / "good").write_bytes(data[:512 * 5])  # with the first empty block it is whole
    unpack(tmp_path / "good", tmp_path / "out")


CHANGE = st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255))


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(sorted(TRUNCATABLE)), changes=st.lists(CHANGE, min_size=1, max_size=8))
def test_a_damaged_archive_never_surprises(tmp_path_factory, kind, changes):
    folder = tmp_path_factory.mktemp("damaged")
    data = bytearray(TRUNCATABLE[kind])
    for where, value in changes:  # most bytes are file contents, so aim at both ends, where the structure is
        data[int(len(data) * (where ** 4 if value % 2 else 1 - where ** 4) * 0.9999)] = value
    (folder / "a").write_bytes(data)
    try:
        unpack(folder / "a", folder / "out", progress=False, max_bytes=10_000_000)
    except DownloadError:
        assert not (folder / "out").exists() and not (folder / "out.unpacking").exists()
    (folder / "out.lock").unlink(missing_ok=True)
    assert set(names(folder)) <= {"a", "out"}


PART = st.one_of(st.sampled_from(["..", ".", "", "a", "b", "C:", "NUL", "a.", " ", "~", "\\", "..\\.."]),
                 st.text(max_size=6))


@settings(max_examples=200, deadline=None)
@given(parts=st.lists(PART, min_size=1, max_size=5), kind=st.sampled_from(["zip", "tar"]))
@example(parts=["", "etc", "x"], kind="tar")
@example(parts=["a", "..", "..", "x"], kind="zip")
@example(parts=["\ud800"], kind="tar")
def test_whatever_the_name_nothing_leaves_the_folder(tmp_path_factory, parts, kind):
    folder = tmp_path_factory.mktemp("names")
    name = "/".join(parts)
    try:
        data = make_zip({name: b"x"}) if kind == "zip" else make_tar({name: b"x"}, mode="w")
    except (UnicodeError, ValueError, IndexError):
        return  # such an archive cannot even be made
    (folder / "a").write_bytes(data)
    try:
        unpack(folder / "a", folder / "out", progress=False)
    except DownloadError:
        assert not (folder / "out").exists() and not (folder / "out.unpacking").exists()
    else:
        written = tree(folder / "out")
        assert len(written) <= 1 and all(".." not in Path(p).parts for p in written)
        assert not any(p.is_symlink() for p in (folder / "out").rglob("*"))
    (folder / "out.lock").unlink(missing_ok=True)
    assert set(names(folder)) <= {"a", "out"}


def test_disk_full_while_unpacking(tmp_path, monkeypatch):
    class Full(io.FileIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archives, "open", lambda path, mode, **_: Full(path, "x"), raising=False)
    (tmp_path / "a.zip").write_bytes(make_zip())
    with pytest.raises(DownloadError, match="no room left") as caught:
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert not isinstance(caught.value, ArchiveError)  # the archive is not to blame
    assert "out" not in names(tmp_path) and "out.unpacking" not in names(tmp_path)


@posix_only
@pytest.mark.parametrize("limit, size", [(100_000, 200_000), (100, 200)])  # the small one would fit into a buffer
def test_a_real_limit_while_unpacking(tmp_path, limit, size):
    (tmp_path / "a.zip").write_bytes(make_zip({"a": os.urandom(size)}))
    code = (f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
            "from course_lib.data.archives import unpack\nfrom course_lib.data.download import DownloadError\n"
            "try: unpack(sys.argv[1], sys.argv[2], progress=False)\n"
            "except DownloadError as error: print(type(error).__name__, error)\n")
    said = start_python(code, tmp_path / "a.zip", tmp_path / "out").communicate(timeout=60)[0]
    assert said.startswith("DownloadError") and "largest file" in said, said
    assert "out" not in names(tmp_path) and "out.unpacking" not in names(tmp_path)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_interrupted_while_unpacking(tmp_path, monkeypatch, error):
    (tmp_path / "a.zip").write_bytes(make_zip())
    real, calls = archives._Inventory.add_bytes, []

    def interrupt(self, count):
        calls.append(count)
        if len(calls) == 2:
            raise error
        real(self, count)
    monkeypatch.setattr(archives._Inventory, "add_bytes", interrupt)
    with pytest.raises(error):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert "out" not in names(tmp_path) and "out.unpacking" not in names(tmp_path)
    monkeypatch.undo()
    unpack(tmp_path / "a.zip", tmp_path / "out")
    assert tree(tmp_path / "out") == FILES


UNPACK = """
import sys, time
from course_lib.data import archives
real = archives._Inventory.place
def slowly(self, name, kind):
    time.sleep(float(sys.argv[3]))
    return real(self, name, kind)
archives._Inventory.place = slowly
archives.unpack(sys.argv[1], sys.argv[2])
"""


def test_kill_while_unpacking_and_again(tmp_path):
    files = {f"{i}.jpg": b"x" * 100 for i in range(200)}
    (tmp_path / "a.zip").write_bytes(make_zip(files))
    process = start_python(UNPACK, tmp_path / "a.zip", tmp_path / "out", 0.02)
    wait_for(lambda: (tmp_path / "out.unpacking" / "20.jpg").exists())
    process.kill()
    process.communicate(timeout=20)
    assert not (tmp_path / "out").exists() and (tmp_path / "out.unpacking").exists()
    unpack(tmp_path / "a.zip", tmp_path / "out")
    assert tree(tmp_path / "out") == files
    assert names(tmp_path) == ["a.zip", "out"]


def test_two_processes_unpack_once(tmp_path):
    files = {f"{i}.jpg": b"x" * 100 for i in range(30)}
    (tmp_path / "a.zip").write_bytes(make_zip(files))
    processes = [start_python(UNPACK, tmp_path / "a.zip", tmp_path / "out", 0.02) for _ in range(2)]
    said = [p.communicate(timeout=60)[0] for p in processes]
    assert [p.returncode for p in processes] == [0, 0], said
    assert tree(tmp_path / "out") == files and names(tmp_path) == ["a.zip", "out"]


def test_download_then_unpack(server, tmp_path):
    data = make_tar()
    url = server.add("/birds.tgz", Served(data, cuts=[len(data) // 2]))
    unpack(download(url, tmp_path / "birds.tgz", checksum=sha1(data), **QUIET), tmp_path / "birds")
    assert tree(tmp_path / "birds") == FILES


# ---------------------------------------------------------------- checksums, and the cost of importing

@given(data=st.binary(max_size=300), algorithm=st.sampled_from(["md5", "sha1", "sha256"]))
@settings(deadline=None)
def test_checksums_are_hashlibs(tmp_path_factory, data, algorithm):
    path = tmp_path_factory.mktemp("sum") / "a"
    path.write_bytes(data)
    text = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
    assert file_checksum(path, algorithm) == text and has_checksum(path, text)
    path.write_bytes(data + b"x")
    assert not has_checksum(path, text)


def test_unknown_algorithm(tmp_path):
    with pytest.raises(ValueError, match="crc32.*sha256"):
        file_checksum(tmp_path / "a", "crc32")


def test_importing_it_is_cheap():
    code = ("import sys, course_lib.data.download, course_lib.data.archives\n"
            "print([m for m in ('torch', 'numpy', 'PIL', 'tqdm') if m in sys.modules])")
    assert start_python(code).communicate(timeout=60)[0].strip() == "[]"
