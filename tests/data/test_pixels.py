"""Pixels of every kind: the right grey, or a reason; and the three ways to a square."""
from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from pictures import folder_of, picture
from PIL import Image

from course_lib import recipes
from course_lib.core.checks import ArgumentError
from course_lib.data import BadImageError, get_items, items_from_folders, load_image, presize, presizing

RAMP = np.linspace(0, 1, 40, dtype=np.float64)[None].repeat(40, 0)


def png(pixels: np.ndarray, depth: int, transparent: tuple[int, ...] = ()) -> bytes:
    """A PNG file of 8 or 16 bits, grey (H, W) or RGB (H, W, 3), with a transparent colour."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], depth, 0 if pixels.ndim == 2 else 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2" if depth == 16 else "u1").tobytes() for row in pixels)
    shown = chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)) if transparent else b""
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + shown + chunk(b"IDAT", zlib.compress(rows))
            + chunk(b"IEND", b""))


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("colour", [(7,), (200,), (1, 2, 3), (200, 30, 90)])
def test_a_transparent_colour_becomes_white(tmp_path, depth, colour):  # python-pillow/Pillow#421
    full = 257 if depth == 16 else 1
    pixels = np.full((40, 40, *([3] if len(colour) == 3 else [])), 120 * full)
    pixels[20:] = np.array(colour if len(colour) == 3 else colour[0]) * full
    (tmp_path / "x.png").write_bytes(png(pixels, depth, tuple(value * full for value in colour)))
    below = load_image(tmp_path / "x.png", 40)
    assert (below[:20] == 120).all() and (below[20:] == 255).all()
    (tmp_path / "x.png").write_bytes(png(pixels, depth))  # without it, the colour is itself
    assert (load_image(tmp_path / "x.png", 40)[20:] == colour).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "PA", "LA", "RGBA"])
def test_transparency_of_every_mode(tmp_path, mode):
    grey = Image.new("L", (40, 40), 0)
    if mode in ("LA", "RGBA", "PA"):
        image = grey.convert(mode if mode != "PA" else "P").convert(mode)
        image.putalpha(Image.fromarray(np.repeat([[0], [255]], 20, 0).repeat(40, 1).astype(np.uint8)))
        image = image if mode != "PA" else image.convert("RGBA")
        image.save(tmp_path / "x.png")
    else:
        pixels = np.zeros((40, 40), np.uint8)
        pixels[20:] = 255
        Image.fromarray(pixels).convert(mode).save(tmp_path / "x.png", transparency=0)
        assert (load_image(tmp_path / "x.png", 40) == 255).all()
        return
    loaded = load_image(tmp_path / "x.png", 40)
    assert (loaded[:20] == 255).all() and (loaded[20:] == 0).all()


@pytest.mark.parametrize("mode", ["La", "RGBa", "HSV", "LAB", "YCbCr", "RGBX", "CMYK"])
def test_modes_that_no_file_has_or_few(mode):
    red = Image.new("RGB", (8, 8), (200, 60, 50))
    image = red.convert("LA").convert("La") if mode == "La" else (
        red.convert("RGBA").convert("RGBa") if mode == "RGBa" else red.convert(mode) if mode != "LAB" else None)
    if image is None:
        from PIL import ImageCms
        image = ImageCms.profileToProfile(red, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"),
                                          outputMode="LAB")
    expected = np.asarray(red.convert("L").convert("RGB") if mode == "La" else red).astype(int)
    assert np.abs(presizing.square_image(image, 8).astype(int) - expected).max() <= 3


@pytest.mark.parametrize("pixels, name", [
    ((RAMP * 65535).astype(np.uint16), "x.png"), ((RAMP * 65535).astype(np.uint16), "x.tif"),
    ((RAMP * 65535).astype(np.int32), "x.tif"), ((RAMP * 255).astype(np.uint8), "x.tif")])
def test_grey_of_many_bits(tmp_path, pixels, name):
    Image.fromarray(pixels).save(tmp_path / name)
    loaded = load_image(tmp_path / name, 40)
    assert np.abs(loaded[..., 0] - 255 * RAMP).max() <= 1 and (loaded == loaded[..., :1]).all()


def test_grey_of_twelve_bits_and_with_white_at_zero(tmp_path):
    """A TIFF file says how many bits it has, and whether 0 is black."""
    def tiff(bits: int, white_is_zero: bool, data: bytes) -> bytes:
        tags = ((256, 40), (257, 40), (258, bits), (259, 1), (262, int(not white_is_zero)), (273, 122 + 12), (277, 1),
                (278, 40), (279, len(data)))
        entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags)
        head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
        return head.ljust(134, b"\0") + data

    values = (RAMP * 4095).astype(int)
    packed = bytearray()
    for one, two in values.reshape(-1, 2):
        packed += bytes((one >> 4, (one & 15) << 4 | two >> 8, two & 255))
    (tmp_path / "x.tif").write_bytes(tiff(12, False, bytes(packed)))
    assert np.abs(load_image(tmp_path / "x.tif", 40)[..., 0] - 255 * RAMP).max() <= 1
    (tmp_path / "x.tif").write_bytes(tiff(16, True, (RAMP * 65535).astype("<u2").tobytes()))
    assert np.abs(load_image(tmp_path / "x.tif", 40)[..., 0] - 255 * (1 - RAMP)).max() <= 1


@pytest.mark.parametrize("pixels, message", [
    ((70_000 + RAMP * 2e9).astype(np.int32), "from 70,000 to 2,000,070,000, and nothing"),  # keras-team/keras#4486
    ((RAMP * 9 - 5).astype(np.int32), "from -5 to 4"), (RAMP.astype(np.float32), "floating-point"),
    ((RAMP * 255).astype(np.float32), "floating-point"), (np.full((40, 40), np.nan, np.float32), "floating-point"),
    ((RAMP * 4095).astype(np.uint16), "below 4,096 of 65,536, as when 12 bits are stored in 16.*multiply its pixels"),
    ((RAMP * 255).astype(np.uint16), "below 256 of 65,536"), ((RAMP * 1023).astype(np.int32), "below 1,024 of 65,536")])
def test_numbers_that_say_no_brightness(tmp_path, pixels, message):
    Image.fromarray(pixels).save(tmp_path / "x.tif")
    with pytest.raises(BadImageError, match=message):
        load_image(tmp_path / "x.tif", 40)
    if pixels.dtype == np.uint16:
        (tmp_path / "x.png").write_bytes(png(pixels[..., None].repeat(3, 2), 16))
        with pytest.raises(BadImageError, match="as when 12 bits are stored in 16"):
            load_image(tmp_path / "x.png", 40)
        data = png(np.stack([pixels, np.full_like(pixels, 65535)], 2).reshape(40, 80), 16)  # grey and opacity: kind 4
        head = data[16:29].replace(struct.pack(">I", 80), struct.pack(">I", 40), 1)[:9] + b"\4" + data[26:29]
        (tmp_path / "x.png").write_bytes(data[:16] + head + struct.pack(">I", zlib.crc32(b"IHDR" + head)) + data[33:])
        with pytest.raises(BadImageError, match="as when 12 bits are stored in 16"):
            load_image(tmp_path / "x.png", 40)


def test_what_is_black_stays_black(tmp_path):
    Image.fromarray(np.zeros((40, 40), np.uint16)).save(tmp_path / "x.png")
    assert not load_image(tmp_path / "x.png", 40).any()
    Image.fromarray(np.full((40, 40), 9, np.uint8)).save(tmp_path / "x.png")  # 8 bits may be dark
    assert (load_image(tmp_path / "x.png", 40) == 9).all()


@pytest.mark.parametrize("ending", [".gif", ".webp", ".png", ".tif"])
def test_of_several_pictures_the_first_counts(tmp_path, ending):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / f"x{ending}", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / f"x{ending}") as image:
        assert image.n_frames == 2
    assert np.abs(load_image(tmp_path / f"x{ending}", 20).astype(int) - (255, 0, 0)).max() <= 4


@pytest.mark.parametrize("size", [(1, 50), (50, 1), (1, 1), (2, 3000)])
@pytest.mark.parametrize("mode", presizing.RESIZE_MODES)
def test_very_thin(tmp_path, size, mode):
    Image.new("RGB", size, (200, 100, 50)).save(tmp_path / "x.png")
    loaded = load_image(tmp_path / "x.png", 24, mode)
    assert loaded.shape == (24, 24, 3) and (loaded == (200, 100, 50)).all(-1).any()
    if mode != "pad":
        assert (loaded == (200, 100, 50)).all()


def test_a_photograph_of_200_megapixels(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    picture(1, 40, 40).save(tmp_path / "x.jpg")
    with pytest.raises(BadImageError, match=r"decompression bomb\). Make it smaller; or.*MAX_IMAGE_PIXELS = 1600$"):
        load_image(tmp_path / "x.jpg", 16)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1600)
    assert load_image(tmp_path / "x.jpg", 16).shape == (16, 16, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow warns, in its own words
    root = folder_of(tmp_path / "in", {"a": 2})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(presize(items_from_folders(root), 16, tmp_path / "cache", progress=False)) == 2


def test_memory_that_runs_out_is_not_the_image_s_fault(tmp_path, monkeypatch):
    picture(1).save(tmp_path / "x.png")
    monkeypatch.setattr(presizing, "square_image", lambda *_: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(MemoryError):
        load_image(tmp_path / "x.png", 16)


@pytest.mark.parametrize("given, name", [((None, 16), "path"), (("x\0y", 16), "path"), ((3, 16), "path"),
                                         (("x", 0), "size"), (("x", 1.5), "size"), (("x", True), "size"),
                                         (("x", 16, "fit"), "resize_mode = 'fit'.*crop, squash, pad")])
def test_arguments_that_are_none(tmp_path, given, name):
    with pytest.raises(ArgumentError, match=name):
        load_image(*given)


def wide(tmp_path, turned: bool = False):
    """60 × 40: red, green and blue from left to right, each a third."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    for i in range(3):
        pixels[:, 20 * i:20 * i + 20, i] = 255
    image = Image.fromarray(pixels if not turned else pixels.transpose(1, 0, 2))
    image.save(tmp_path / "x.png")
    return tmp_path / "x.png"


@pytest.mark.parametrize("turned", [False, True])
def test_three_ways_to_a_square(tmp_path, turned):
    """Where red, green and blue are in the result, worked out by hand."""
    path = wide(tmp_path, turned)
    line = lambda mode: (lambda a: a[20] if not turned else a[:, 20])(load_image(path, 40, mode)).astype(int)
    crop, squash, pad = (line(mode) for mode in presizing.RESIZE_MODES)
    assert np.array_equal(crop[0], [255, 0, 0]) and np.array_equal(crop[-1], [0, 0, 255])  # 10 of the 20 are left
    share = lambda row, channel: (row[:, channel] > 128).mean()
    assert [round(share(crop, c), 2) for c in range(3)] == [0.25, 0.5, 0.25]
    assert all(abs(share(squash, c) - 1 / 3) < 0.03 for c in range(3))
    assert np.array_equal(share(squash, 0), share(pad, 0))  # the whole width is there
    across = load_image(path, 40, "pad")
    across = across[:, 20] if not turned else across[20]
    assert (across[:6] == presizing.PAD_COLOUR).all() and (across[-6:] == presizing.PAD_COLOUR).all()
    assert (across[8:32] == across[20]).all() and not (across[20] == presizing.PAD_COLOUR).all()
    assert np.array_equal(load_image(path, 40), load_image(path, 40, "crop"))


def test_each_way_has_its_own_cache(tmp_path):
    items = items_from_folders(folder_of(tmp_path / "in", {"a": 3, "b": 3}))  # 40 × 30
    found = {mode: presize(items, 24, tmp_path / "cache", resize_mode=mode, progress=False)
             for mode in presizing.RESIZE_MODES}
    assert len({presized.folder for presized in found.values()}) == 3
    for mode, presized in found.items():
        assert all(np.array_equal(presized.images[i], load_image(items.path(i), 24, mode)) for i in range(6))
    assert presize(items, 24, tmp_path / "cache").folder == found["crop"].folder
    with pytest.raises(ArgumentError, match="resize_mode = 'stretch'"):
        presize(items, 24, tmp_path / "cache", resize_mode="stretch")


def test_square_images_are_the_same_in_every_way(tmp_path):
    """The solar cells are square, so recorded figures stay what they are."""
    items = get_items("elpv", announce=False).subset(range(0, 2624, 656))
    found = [presize(items, 96, tmp_path / "cache", resize_mode=mode, progress=False).images.tobytes()
             for mode in presizing.RESIZE_MODES]
    assert found[0] == found[1] == found[2]
    with Image.open(items.path(1)) as image:
        plain = np.asarray(image.resize((96, 96), Image.Resampling.BICUBIC, (0, 0, 300, 300), 3.0).convert("RGB"))
    assert plain.tobytes() == found[0][96 * 96 * 3:2 * 96 * 96 * 3]


def test_recipes_know_the_same_ways():
    assert recipes.RESIZE_MODES == presizing.RESIZE_MODES
    assert {recipe.resize_mode for recipe in recipes.RECIPES.values()} == {"crop"}
    assert recipes.changed_recipe(recipes.RECIPES["test"], resize_mode="pad").resize_mode == "pad"
    with pytest.raises(ArgumentError, match="resize_mode = 'padd'.*Did you mean 'pad'"):
        recipes.changed_recipe(recipes.RECIPES["test"], resize_mode="padd")


def test_a_picture_in_memory():
    data = io.BytesIO()
    picture(3, 60, 40).save(data, "PNG")
    with Image.open(data) as image:
        assert np.array_equal(presizing.square_image(image, 20), presizing.square_image(picture(3, 60, 40), 20))
