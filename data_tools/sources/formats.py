"""Which image files are read, by which library, and how large they may be: one list for files and for bytes."""

from __future__ import annotations

from data_tools.errors import UserError, describe

PILLOW_FORMATS = {
    "PNG": ("png", "apng"),
    "JPEG": ("jpg", "jpeg", "jpe", "jfif"),
    "BMP": ("bmp",),
    "GIF": ("gif",),
    "WEBP": ("webp",),
    "AVIF": ("avif",),
    "JPEG2000": ("jp2", "j2k", "j2c", "jpf", "jpx"),
    "PPM": ("pbm", "pgm", "ppm", "pnm"),
    "TGA": ("tga",),
}
"""Formats that Pillow is asked for, and no others: some of the rest start programs or read further files."""
BY_NAME_ALONE = frozenset(("TGA",))
"""Formats without a mark of their own, which almost any bytes pass for."""
TIFF_ENDINGS = frozenset((".tif", ".tiff", ".btf", ".tf8", ".lsm", ".stk"))
IMAGE_ENDINGS = TIFF_ENDINGS | {f".{ending}" for endings in PILLOW_FORMATS.values() for ending in endings}
UNREAD = {
    "telephones and desktops": "heic heif hif jxl jxr wdp exr ico icns pcx svg svgz eps ai psd psb xcf dds djvu",
    "cameras": "raw cr2 cr3 crw nef nrw arw srf sr2 dng orf rw2 raf pef srw 3fr iiq x3f rwl",
    "microscopes": "czi nd2 lif lof oib oif vsi ims ics ids mrc mhd mha nrrd dv zvi sld ndpi svs scn mrxs bif qptiff",
    "hospitals and telescopes": "dcm dicom nii fits fit fts",
}
UNREAD_ENDINGS = frozenset(f".{ending}" for endings in UNREAD.values() for ending in endings.split())
"""Endings of images that are not read: they are counted, so that nobody takes them for read."""

MAX_PIXELS = 2**27
"""134 million, and four times as many bytes: what a decoded image may take, whether it comes from a file or not."""


class UnfitError(ValueError):
    """A whole file of a kind that is not read: what it is, " - ", and what to make of it."""


def pillow_formats(name: str) -> tuple[str, ...]:
    """The formats that a file of this name may have."""
    ending = name.rpartition(".")[2].lower()
    return tuple(kind for kind, endings in PILLOW_FORMATS.items() if kind not in BY_NAME_ALONE or ending in endings)


def check_size(width: int, height: int, bytes_a_pixel: int = 1) -> None:
    """UnfitError, before anything is allocated, for an image without pixels or with too many."""
    if width < 1 or height < 1:
        raise UnfitError(f"{width} x {height} pixels - export it again")
    if width * height * max(bytes_a_pixel, 4) > 4 * MAX_PIXELS:
        raise UnfitError(
            f"is too large to be opened safely ({width} x {height} pixels of {bytes_a_pixel} bytes)"
            " - cut it into smaller images"
        )


def named(path: str, error: Exception) -> UserError:
    """What any failure to read a file is for a person: its name, the reason, the remedy."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, UnfitError):
        return UserError(f"{path}: {error}")
    if isinstance(error, OSError) and error.errno and error.filename:
        return UserError(describe(error))
    # The formats fail in many ways: OSError, SyntaxError, ValueError, struct.error, zlib.error, errors of each codec.
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"{path}: cannot be read ({reason}) - remove or fix it")
