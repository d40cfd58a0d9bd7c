# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""Images of every kind become RGB, the right way up, or are refused with a remedy."""

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile, features

from trl_r1v2.images.processing import MAX_PIXELS, RowError, is_remote, load_image
from trl_r1v2.images.rows import rgb_image


def png_bytes(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A valid PNG header for a picture of any size, with hardly any data behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def pixel(image: Image.Image, x: int = 0, y: int = 0) -> tuple[int, ...]:
    assert image.mode == "RGB"
    return image.getpixel((x, y))


def test_transparency_lies_over_white():
    assert pixel(load_image(Image.new("RGBA", (4, 4), (200, 0, 0, 0)))) == (255, 255, 255)
    assert pixel(load_image(Image.new("RGBA", (4, 4), (200, 0, 100, 255)))) == (200, 0, 100)
    half = pixel(load_image(Image.new("RGBA", (4, 4), (200, 0, 100, 128))))
    assert half == pytest.approx([200 * 128 / 255 + 255 * 127 / 255, 127, 100 * 128 / 255 + 127], abs=1)
    assert pixel(load_image(Image.new("LA", (4, 4), (10, 0)))) == (255, 255, 255)


def test_palettes_grey_and_print_colours():
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    assert [pixel(load_image(palette), x) for x in (0, 1)] == [(10, 20, 30), (40, 50, 60)]
    transparent = load_image(png_bytes(palette, transparency=1))
    assert [pixel(transparent, x) for x in (0, 1)] == [(10, 20, 30), (255, 255, 255)]
    assert pixel(load_image(Image.new("L", (2, 2), 77))) == (77, 77, 77)
    assert pixel(load_image(Image.new("1", (2, 2), 1))) == (255, 255, 255)
    assert pixel(load_image(Image.new("CMYK", (2, 2), (0, 0, 0, 255)))) == (0, 0, 0)


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (65535, 255), (32896, 128), (257, 1), (256, 0)])
@pytest.mark.parametrize(("mode", "order"), [("I;16", "<u2"), ("I;16B", ">u2")])
def test_sixteen_bit_grey_is_scaled(mode, order, value, expected):
    grey = Image.frombytes(mode, (3, 2), np.full((2, 3), value, dtype=order).tobytes())
    tiff = io.BytesIO()
    grey.save(tiff, "TIFF")
    assert Image.open(tiff).mode == mode
    sources = [grey, tiff.getvalue(), png_bytes(Image.fromarray(np.full((2, 3), value, dtype=np.uint16)))]
    for image in map(load_image, sources):
        assert image.size == (3, 2) and pixel(image, 2, 1) == (expected,) * 3


def test_exif_orientation_is_applied():
    picture = Image.new("RGB", (6, 2), "black")
    picture.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned = load_image(png_bytes(picture, exif=exif))
    assert turned.size == (2, 6) and pixel(turned, 1, 0) == (255, 0, 0)


def test_sources(tmp_path):
    picture = Image.new("RGB", (5, 4), (1, 2, 3))
    picture.save(tmp_path / "a.png")
    data = png_bytes(picture)
    sources = [picture, tmp_path / "a.png", str(tmp_path / "a.png"), data]
    sources += [{"bytes": data, "path": None}, {"bytes": None, "path": str(tmp_path / "a.png")}]
    assert {(load_image(source).size, pixel(load_image(source))) for source in sources} == {((5, 4), (1, 2, 3))}
    frames = [Image.new("RGB", (3, 3), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "b.gif", save_all=True, append_images=frames[1:])
    assert pixel(load_image(tmp_path / "b.gif")) == (255, 0, 0)


def test_broken_images_are_refused(tmp_path):
    with pytest.raises(RowError, match="does not exist"):
        load_image(tmp_path / "none.png")
    with pytest.raises(RowError, match="no image that Pillow reads"):
        load_image(b"<html>not found</html>")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    with pytest.raises(RowError, match="cannot be decoded"):
        load_image(png_bytes(noise)[:2000])
    with pytest.raises(RowError, match="mode 'F'"):
        load_image(Image.new("F", (2, 2)))


def encoded(format: str) -> bytes:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    noise.save(buffer, format)
    return buffer.getvalue()


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_no_decoders_error_escapes(monkeypatch):
    """Damage behind a sound header ends in errors of any type, by the decoder."""
    good, dds = encoded("AVIF"), encoded("DDS")
    data = good.index(b"mdat") + 4
    for damaged in (good[:data] + bytes(len(good) - data), dds[:80] + b"\4\0\0\0DX99" + dds[88:]):
        with pytest.raises(RowError, match="the image of .* bytes"):
            load_image(damaged)
    assert load_image(good).size == load_image(dds).size == (50, 40)
    for error in (RuntimeError("x"), NotImplementedError("x"), TypeError("x"), KeyError("x"), RecursionError("x")):

        def failing(*arguments, error=error, **options):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(Image.Image, "convert", failing)
            with pytest.raises(RowError, match="cannot be decoded"):
                load_image(dds)
        with monkeypatch.context() as patch:
            patch.setattr(Image, "open", failing)
            with pytest.raises(RowError, match="no image that Pillow reads"):
                load_image(b"data")


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("place", ["open", "load"])
def test_what_is_no_fault_of_the_file_is_not_blamed_on_it(monkeypatch, place, error):
    def failing(*arguments, **options):
        raise error

    monkeypatch.setattr(*((Image, "open") if place == "open" else (ImageFile.ImageFile, "load")), failing)
    with pytest.raises(error):
        load_image(encoded("PNG"))


@pytest.mark.parametrize(("width", "height"), [(10_000, 9_000), (60_000, 60_000), (2**31 - 1, 2)])
@pytest.mark.filterwarnings("error")
def test_decompression_bombs_are_refused_unopened(width, height, tmp_path):
    (tmp_path / "bomb.png").write_bytes(bomb(width, height))
    with pytest.raises(RowError, match="pixels"):
        load_image(tmp_path / "bomb.png")
    assert width * height > MAX_PIXELS


def test_pixel_limit_is_the_callers():
    with pytest.raises(RowError, match=r"10x10 = 100 pixels; at most 99 are decoded"):
        load_image(Image.new("RGB", (10, 10)), max_pixels=99)
    assert load_image(Image.new("RGB", (10, 10)), max_pixels=100).size == (10, 10)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "the image is None. Give a PIL image"),
        ({"bytes": None, "path": None}, "neither `bytes` nor `path`"),
        ({}, "neither `bytes` nor `path`"),
        ({"bytes": 3}, "of type 'int'"),
        (np.zeros((4, 4, 3), dtype=np.uint8), "of type 'ndarray'"),
        (7, "of type 'int'"),
        ("", "does not exist|Is a directory"),  # by Pillow's version
    ],
)
def test_images_of_other_types_are_refused(source, message):
    with pytest.raises(RowError, match=message):
        load_image(source)


def as_text(image: Image.Image) -> str:
    return base64.b64encode(png_bytes(image)).decode()


def test_pictures_in_text(tmp_path):
    """Base64 text (in lines, too), data URLs and `file://` give the pixels of the file."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 7, 3), dtype=np.uint8))
    path = tmp_path / "a picture, 100 %.png"
    picture.save(path)
    text = as_text(picture)
    sources = [path.as_uri(), text, "\n".join(text[i : i + 76] for i in range(0, len(text), 76))]
    sources += [f"data:image/png;base64,{text}", {"bytes": None, "path": path.as_uri()}]
    for source in sources:
        assert load_image(source).tobytes() == picture.tobytes()
        assert rgb_image(source, "image 0").tobytes() == picture.tobytes()
    smallest = base64.b64encode(b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\1\0\1\0\0\2\2D\1\0;").decode()
    assert len(smallest) == 48 and load_image(smallest).size == (1, 1)


def test_a_path_that_is_base64_stays_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "a" * 64
    Image.new("RGB", (3, 2)).save(tmp_path / name, "PNG")
    assert load_image(name).size == (3, 2)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (base64.b64encode(b"no picture at all " * 400).decode(), "the image of 7,200 bytes in text is no image"),
        ("data:image/png;base64," + "A" * 9001, "9,001 characters that are no base64"),
        ("data:image/svg+xml," + "%3Csvg" * 900, "begins 'data:image/svg[+]xml' and is not in base64"),
        ("/data/" + "x/" * 3000 + "a.png", "…'"),
    ],
)
def test_long_text_is_refused_without_being_printed(source, message):
    for read in (load_image, lambda text: rgb_image(text, "image 0")):
        with pytest.raises(ValueError, match=message) as caught:
            read(source)
        assert len(str(caught.value)) < 600


@pytest.mark.parametrize("address", ["https://example.com/a.png", "s3://bucket/a.png", "hf://datasets/a/b.png"])
def test_addresses_are_left_to_the_processor(address):
    assert is_remote(address) and rgb_image(address, "image 0") is address
    with pytest.raises(RowError, match="is an address, and nothing is fetched"):
        load_image(address)


def test_text_that_names_no_file_is_refused_with_its_place():
    with pytest.raises(ValueError, match="image 3 of the row cannot be read .image 'none.png' does not exist"):
        rgb_image("none.png", "image 3 of the row")
