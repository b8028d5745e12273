"""Image bytes → the square of RGB pixels that the model was trained on.

The reference is `CLIPImageProcessorPil` of transformers: Pillow's `convert("RGB")`, then Pillow's
bicubic resize with antialiasing to 224 x 224, aspect ratio not kept. As there, alpha is dropped,
an animation gives its first frame, CMYK is converted without a colour profile. Two differences
are meant: EXIF orientation is a policy, and grey deeper than 8 bits is scaled (`_shallow`).

Images are rasters, uint8 [height, width, 3], until the last step. There is no state here, and
decoders and resize release the GIL: call from as many threads as you like.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import simplejpeg
import torch
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile
from torch.nn.functional import interpolate

from kosmos2_core.annotation import Issue
from kosmos2_core.errors import (
    CorruptImage,
    EmptyImage,
    ImageTooLarge,
    TruncatedImage,
    UnknownFormat,
)
from kosmos2_core.grounding.grid import IMAGE_SIZE
from kosmos2_core.images.containers import contents
from kosmos2_core.images.exif import (
    EXIF_HEAD,
    TURNS,
    jpeg_orientation,
    orientation_of,
    valid_orientation,
    without_metadata,
)
from kosmos2_core.images.formats import (
    DECODED,
    EXTRAS,
    HEAD_BYTES,
    TEXT_BYTES,
    content_of,
    format_of,
)
from kosmos2_core.images.jpeg_scans import END_OF_IMAGE, has_all_scans, has_end
from kosmos2_core.images.tiff import ORIENTATION, is_camera_raw

MAX_PIXELS: Final = 1024**3 // 4 // 3
"""Width x height: Pillow's own limit `Image.MAX_IMAGE_PIXELS`, a quarter of a GiB as RGB."""

MAX_SIDE: Final = 65_535
"""Pixels; what JPEG can hold. The weights of a resize take 32 bytes for each pixel of a side."""

DECODER_ERRORS: Final = (
    OSError,
    SyntaxError,  # Pillow's word for a broken file
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    RuntimeError,
    MemoryError,  # sizes that a broken file claims; real ones are below max_pixels
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Warning,  # raised only where the caller turns warnings into errors
)
"""What Pillow's plugins let out for broken files: its `Image.open` lists some, fuzzing the rest."""

_PLUGINS: Final = {"HEIC": "HEIF"}  # Pillow's names where ours are others
_IS_CUT: Final = re.compile(
    "(?i)truncated|EOF|end of file|not enough image data"
)  # in Pillow's messages
_UPRIGHT: Final = ("TIFF", "HEIC")  # decoded so that nothing is left to be turned
_BLANKS: Final = b"\xef\xbb\xbf \t\r\n\0"  # what scripts and editors put before a file

Image.init()  # imports Pillow's plugins here, not in whichever thread comes first

ExifPolicy = Literal["apply", "ignore"]
Raster = npt.NDArray[np.uint8]

# Brightest value that a grey pixel may have, by kind of dtype: the first that holds the image.
_GREY_LEVELS: Final = {"u": (65535.0,), "i": (255.0, 65535.0), "f": (1.0, 255.0, 65535.0)}


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedImage:
    """What the model sees of one image, and how large the image is."""

    pixels: Raster  # [3, 224, 224], RGB, C-contiguous
    width: int  # pixels; upright under "apply", as stored under "ignore"
    height: int
    exif_orientation: int  # 1..8 as stored in the file; 1 where there is none or it is nonsense
    issues: tuple[Issue, ...] = ()  # of the file: what is wrong with it beside the pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class _DecodedRaster:
    raster: Raster
    exif_orientation: int
    turn: int  # orientation still to be applied: 1 where the decoder has done so
    is_end_missing: bool  # of the file; no pixel is


def decode_image(
    data: bytes, *, exif: ExifPolicy = "apply", max_pixels: int = MAX_PIXELS
) -> DecodedImage:
    """The pixels for the model, within 2/255 of the reference (99.9 % within 1/255).

    TIFF and HEIC are turned upright by their decoders, so for them `exif` changes nothing.

    Raises:
        ImageError: one of its subclasses, whatever the bytes; `ImageTooLarge` before decoding.
    """
    decoded = _read(data, max_pixels)
    turn = decoded.turn if exif == "apply" else 1
    height, width = _turned(decoded.raster, turn).shape[:2]
    return DecodedImage(
        pixels=_square(decoded.raster, turn),
        width=width,
        height=height,
        exif_orientation=decoded.exif_orientation,
        issues=(Issue.MISSING_END,) if decoded.is_end_missing else (),
    )


def square_pixels(image: Image.Image) -> Raster:
    """uint8 [3, 224, 224] from a Pillow image of any mode; EXIF is not looked at.

    Raises:
        ImageError: the image has no pixels, or was opened lazily and cannot be decoded.
    """
    if 0 in image.size:
        raise EmptyImage(f"{image.width}x{image.height} pixels")
    with _image_errors():
        raster = _rgb(image)
    return _square(raster, turn=1)


def upright_image(
    data: bytes, *, exif: ExifPolicy = "apply", max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """The image at full size as RGB; rules and errors of `decode_image`."""
    decoded = _read(data, max_pixels)
    turn = decoded.turn if exif == "apply" else 1
    return Image.fromarray(_turned(decoded.raster, turn))


def _read(data: bytes, max_pixels: int) -> _DecodedRaster:
    if not data:
        raise EmptyImage("no bytes")
    name = _format(data)
    return _read_jpeg(data, max_pixels) if name == "JPEG" else _read_other(data, name, max_pixels)


def _format(data: bytes) -> str:
    """Name the format that the bytes are to be opened as. Raises UnknownFormat, CorruptImage."""
    name = format_of(data[:HEAD_BYTES])
    if name == "TIFF" and is_camera_raw(data):
        name = "camera raw"
    if name is not None:
        if name in DECODED or (name == "HEIC" and _can_open_heic()):
            return name
        extra = f"install kosmos2-annotate[{EXTRAS[name]}], or " if name in EXTRAS else ""
        raise UnknownFormat(f"{name} is not decoded here: {extra}convert it to JPEG or PNG")
    head = data[:TEXT_BYTES]
    if content := content_of(head):
        raise UnknownFormat(content)
    later = head.lstrip(_BLANKS)
    if name := format_of(later[:HEAD_BYTES]):
        before = len(head) - len(later)
        raise CorruptImage(f"{name} data from byte {before} on: cut off what is before")
    raise UnknownFormat(f"none of {', '.join(DECODED)} by its first bytes: {head[:8].hex(' ')}")


def _can_open_heic() -> bool:
    """Return whether the extra is installed; Pillow then knows the format "HEIF"."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
    return True


def _read_jpeg(data: bytes, max_pixels: int) -> _DecodedRaster:
    """simplejpeg's pixels equal Pillow's in 60 % of the time; what it refuses, Pillow tries."""
    orientation = jpeg_orientation(data)
    is_end_missing = False
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        _check_size(width, height, max_pixels)
        if colours in ("CMYK", "YCCK"):
            raise ValueError("four inks: only Pillow inverts them without an Adobe marker too")
        raster: Raster = simplejpeg.decode_jpeg(data, "RGB")
    except (ValueError, KeyError):  # KeyError: a chroma subsampling that it does not know
        try:
            raster = _jpeg_raster(data, max_pixels)
            is_end_missing = not has_end(data)
        except TruncatedImage:
            if not _lacks_only_its_end(data):
                raise
            raster = _jpeg_raster(data + END_OF_IMAGE, max_pixels)
            is_end_missing = True
    return _DecodedRaster(
        raster=raster,
        exif_orientation=orientation,
        turn=orientation,
        is_end_missing=is_end_missing,
    )


def _jpeg_raster(data: bytes, max_pixels: int) -> Raster:
    """By Pillow, which reads EXIF on opening and refuses images where it is broken."""
    with _image_errors():
        return _rgb(_open(without_metadata(data), "JPEG", max_pixels))


def _lacks_only_its_end(data: bytes) -> bool:
    """Return whether all coefficients are there: libjpeg warns where it has to make some up."""
    if not has_all_scans(data):
        return False
    try:
        *_, colours, _ = simplejpeg.decode_jpeg_header(data)
        simplejpeg.decode_jpeg(
            data + END_OF_IMAGE, "CMYK" if colours in ("CMYK", "YCCK") else "RGB"
        )
    except (ValueError, KeyError):
        return False
    return True


def _read_other(data: bytes, name: str, max_pixels: int) -> _DecodedRaster:
    found = contents(data, name)
    with _image_errors(is_cut=found.is_cut):
        if found.size is not None:
            _check_size(*found.size, max_pixels)
        image = _open(found.image, name, max_pixels)
        stored = image.tag_v2.get(ORIENTATION) if isinstance(image, TiffImageFile) else None
        raster = _rgb(image)
        _check_size(raster.shape[1], raster.shape[0], max_pixels)
    if name in _UPRIGHT:
        orientation = valid_orientation(stored)
    else:
        exif = found.exif or image.info.get("exif", b"")  # AVIF: what its properties say, as EXIF
        xmp = found.xmp or image.info.get("xmp", b"")
        orientation = orientation_of(exif=exif.removeprefix(EXIF_HEAD), xmp=xmp)
    return _DecodedRaster(
        raster=raster,
        exif_orientation=orientation,
        turn=1 if name in _UPRIGHT else orientation,
        is_end_missing=found.is_cut,
    )


def _open(data: bytes, name: str, max_pixels: int) -> Image.Image:
    """Reads the header only."""
    try:
        image = Image.open(BytesIO(data), formats=(_PLUGINS.get(name, name),))
    except UnidentifiedImageError as error:
        raise UnidentifiedImageError(
            f"{name}: its header is broken, or of a kind that is not decoded"
        ) from error
    _check_size(image.width, image.height, max_pixels)
    return image


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels or max(width, height) > MAX_SIDE:
        raise ImageTooLarge(f"{width}x{height}: over {max_pixels} pixels or a side of {MAX_SIDE}")


@contextmanager
def _image_errors(*, is_cut: bool = False) -> Iterator[None]:
    """The one place where foreign exceptions become ours; `is_cut`: the data are known to be."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLarge(str(error)) from error
    except DECODER_ERRORS as error:
        is_ours = isinstance(error, UnidentifiedImageError)  # of `_open`
        message = str(error) if is_ours else f"{type(error).__name__}: {error}"
        if is_cut or isinstance(error, EOFError) or _IS_CUT.search(str(error)):
            raise TruncatedImage(message) from error
        raise CorruptImage(message) from error


def _rgb(image: Image.Image) -> Raster:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _shallow(np.asarray(image))
    image.load()
    if "transparency" in image.info:  # Pillow warns of it, or stumbles; alpha is dropped anyway
        image = image.copy()
        del image.info["transparency"]
    # A copy, because torch warns of arrays that it must not write to.
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _shallow(grey: npt.NDArray[np.generic]) -> Raster:
    """Grey [height, width] deeper than 8 bits, scaled; Pillow's convert clips it to white.

    The full scale of 16-bit grey is 65535. Mode I and F name no scale: it is the smallest of
    1 (F only), 255 (what convert takes it to be), 65535 and the image's own maximum that holds
    the image. Negative values and NaN are black.
    """
    values = grey.astype(np.float32)  # in place from here on: images may be large
    brightest = float(values.max(initial=0, where=np.isfinite(values)))
    levels = _GREY_LEVELS[grey.dtype.kind]
    full_scale = next((level for level in levels if brightest <= level), brightest)
    values /= full_scale
    np.nan_to_num(np.clip(values, 0, 1, out=values), copy=False)
    values *= 255
    shallow = np.rint(values, out=values).astype(np.uint8)
    return np.repeat(shallow[:, :, None], 3, axis=2)


def _square(raster: Raster, turn: int) -> Raster:
    """[H, W, 3] → [3, 224, 224], turned upright after the resize, where it costs nothing."""
    height, width = raster.shape[:2]
    is_sideways = TURNS[turn][0]
    upright = (width, height) if is_sideways else (height, width)
    # The raster of HWC bytes is channels_last to torch: its fast kernel, without a copy.
    pixels = torch.from_numpy(raster).permute(2, 0, 1).unsqueeze(0)  # [1, 3, H, W]
    if _is_vertical_first(*upright) != is_sideways:
        pixels = _bicubic(pixels, height=IMAGE_SIZE, width=width)
    pixels = _bicubic(pixels, height=IMAGE_SIZE, width=IMAGE_SIZE)
    square: Raster = pixels[0].permute(1, 2, 0).numpy()
    return np.ascontiguousarray(_turned(square, turn).transpose(2, 0, 1))


def _bicubic(pixels: torch.Tensor, *, height: int, width: int) -> torch.Tensor:
    """Horizontal pass first; a side that keeps its length has no pass."""
    return interpolate(pixels, size=(height, width), mode="bicubic", antialias=True)


def _is_vertical_first(height: int, width: int) -> bool:
    """Whether Pillow resizes the columns first; each pass rounds, so the order shows.

    Pillow 13 does where the height loses more than twice what the width loses (its pull request
    9549; the exact border is measured, by a test too). Older Pillows have other rules.
    """
    return height - IMAGE_SIZE > 2 * max(0, width - IMAGE_SIZE)


def _turned(raster: Raster, turn: int) -> Raster:
    """A view of [H, W, C] with EXIF orientation `turn` applied."""
    is_sideways, row_step, column_step = TURNS[turn]
    upright = raster.transpose(1, 0, 2) if is_sideways else raster
    return upright[::row_step, ::column_step]
