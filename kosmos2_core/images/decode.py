"""Decode image bytes to the square of RGB pixels that the model was trained on.

The reference is `CLIPImageProcessorPil` of transformers: Pillow's `convert("RGB")`, then Pillow's
bicubic resize with antialiasing to 224 x 224, aspect ratio not kept. As in the reference, alpha is
dropped, an animation gives its first frame, and CMYK is converted without a colour profile. There
are two intended differences: EXIF orientation is a policy, and grey deeper than 8 bits is scaled
(`_shallow`).

Images are rasters, uint8 [height, width, 3], until the last step. The functions have no state, and
decoders and resize release the GIL, so calls from many threads are safe and run in parallel.
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
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

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
    Raster,
    jpeg_orientation,
    orientation_of,
    turned,
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
"""Limit of width x height, equal to Pillow's `Image.MAX_IMAGE_PIXELS`: 0.25 GiB as RGB."""

MAX_SIDE: Final = 65_535
"""Limit of each side in pixels, as in JPEG. The weights of a resize take 32 bytes per pixel."""

DECODER_ERRORS: Final = (
    OSError,
    SyntaxError,  # Pillow raises it for broken files
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
"""Exceptions of Pillow's plugins for broken files: some from `Image.open`, the rest by fuzzing."""

_PLUGINS: Final = {"HEIC": "HEIF"}  # our names -> Pillow's, where they differ
# In Pillow's messages.
_IS_CUT: Final = re.compile("(?i)truncated|EOF|end of file|not enough image data")
_UPRIGHT: Final = ("TIFF", "HEIC")  # the decoder applies the orientation
_BLANKS: Final = b"\xef\xbb\xbf \t\r\n\0"  # scripts and editors write these before a file

Image.init()  # imports Pillow's plugins before any thread decodes

ExifPolicy = Literal["apply", "ignore"]
DecodeMode = Literal["exact", "fast"]

# Of a JPEG that is decoded fast. The JPEG library has quick code for these.
_SCALES: Final = (8, 4, 2)
_LEAST_SIDE: Final = 2 * IMAGE_SIZE  # the resize then still averages

# Converted at a time. A whole image would be in memory several times over, and take longer.
_STRIP_PIXELS: Final = 1 << 20

# Possible full scales of grey, by kind of dtype. The first one that holds the image is used.
_GREY_LEVELS: Final = {"u": (65535.0,), "i": (255.0, 65535.0), "f": (1.0, 255.0, 65535.0)}


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedImage:
    """One image as the model's input, with the size of the original.

    Attributes:
        pixels: uint8 [3, 224, 224], RGB, C-contiguous. The aspect ratio is not kept.
        width: Width of the original in pixels; upright with `exif="apply"`, else as stored.
        height: Height of the original in pixels, likewise.
        exif_orientation: 1..8 as stored in the file; 1 if there is none or it is not valid.
        issues: Issues of the file apart from its pixels, such as a missing end marker.

    Example:
        >>> from pathlib import Path
        >>> decoded = decode_image(Path("photo.jpg").read_bytes())
        >>> decoded.pixels.shape, decoded.pixels.dtype
        ((3, 224, 224), dtype('uint8'))
        >>> decoded.width, decoded.height
        (640, 480)
    """

    pixels: Raster
    width: int
    height: int
    exif_orientation: int
    issues: tuple[Issue, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedRaster:
    """The pixels of an image file before the resize; made by `read_raster`.

    Attributes:
        raster: uint8 [H, W, 3], RGB, C-contiguous. It may be scaled down with `decode="fast"`.
        width: Width of the image as stored, in pixels.
        height: Height of the image as stored, in pixels.
        exif_orientation: 1..8 as stored in the file; 1 if there is none or it is not valid.
        turn: The orientation that is not applied yet; 1 if there is none.
        is_end_missing: The file lacks its end, but no pixel.
    """

    raster: Raster
    width: int
    height: int
    exif_orientation: int
    turn: int
    is_end_missing: bool


def decode_image(
    data: bytes,
    *,
    exif: ExifPolicy = "apply",
    decode: DecodeMode = "exact",
    max_pixels: int = MAX_PIXELS,
) -> DecodedImage:
    """Decode an image file to the pixels that the model takes.

    JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, AVIF and JPEG 2000 are decoded; HEIC with the extra
    `heif`. The first frame of an animation is used. The pixels are within 2/255 of those of
    transformers' `CLIPImageProcessorPil`, 99.9 % of them within 1/255.

    Args:
        data: The whole image file.
        exif: "apply" turns the image upright by its EXIF orientation, "ignore" does not. TIFF and
            HEIC are turned upright in both cases, by their decoders.
        decode: "fast" decodes a large JPEG at 1/2, 1/4 or 1/8 of its size, never below 448 pixels
            per side. The pixels then differ by some levels from those of "exact".
        max_pixels: Limit of width x height.

    Returns:
        Pixels as uint8 [3, 224, 224], and the size of the original.

    Raises:
        ImageError: The image cannot be decoded; a subclass says why. `ImageTooLarge` is raised
            before decoding.

    Example:
        >>> from pathlib import Path
        >>> data = Path("photo.jpg").read_bytes()
        >>> decode_image(data).pixels.shape
        (3, 224, 224)
        >>> decode_image(data, max_pixels=1000)
        Traceback (most recent call last):
        kosmos2_core.errors.ImageTooLarge: the image has 640x480 pixels; ...
    """
    return to_square(read_raster(data, decode=decode, max_pixels=max_pixels), exif=exif)


def read_raster(
    data: bytes, *, decode: DecodeMode = "exact", max_pixels: int = MAX_PIXELS
) -> DecodedRaster:
    """Do the first part of `decode_image`: decode the file, but do not resize it.

    Raises:
        ImageError: As in `decode_image`.
    """
    if not data:
        raise EmptyImage("the image has no bytes; copy or download its file again")
    name = _format(data)
    if name == "JPEG":
        return _read_jpeg(data, max_pixels, decode)
    return _read_other(data, name, max_pixels)


def to_square(decoded: DecodedRaster, *, exif: ExifPolicy = "apply") -> DecodedImage:
    """Do the second part of `decode_image`: resize the pixels, and turn them upright."""
    turn = decoded.turn if exif == "apply" else 1
    is_sideways = TURNS[turn][0]
    return DecodedImage(
        pixels=_resized(decoded.raster, turn),
        width=decoded.height if is_sideways else decoded.width,
        height=decoded.width if is_sideways else decoded.height,
        exif_orientation=decoded.exif_orientation,
        issues=(Issue.MISSING_END,) if decoded.is_end_missing else (),
    )


def square_pixels(image: Image.Image) -> Raster:
    """Convert a Pillow image of any mode to uint8 [3, 224, 224]. EXIF is ignored.

    Raises:
        ImageError: The image has no pixels, or was opened lazily and cannot be decoded.
    """
    if 0 in image.size:
        raise EmptyImage(
            f"the image has {image.width}x{image.height} pixels; replace it by one with pixels"
        )
    with _image_errors():
        raster = _rgb(image)
    return _resized(raster, turn=1)


def _resized(raster: Raster, turn: int) -> Raster:
    # It imports torch, which takes a second or two. Who shows or copies images needs none of it.
    from kosmos2_core.images.resize import resize_to_square

    return resize_to_square(raster, turn)


def upright_image(
    data: bytes, *, exif: ExifPolicy = "apply", max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Decode an image at full size as RGB, with the rules and errors of `decode_image`."""
    decoded = read_raster(data, max_pixels=max_pixels)
    turn = decoded.turn if exif == "apply" else 1
    return Image.fromarray(turned(decoded.raster, turn))


def _format(data: bytes) -> str:
    """Return the name of the format to decode. Raises UnknownFormat, CorruptImage."""
    name = format_of(data[:HEAD_BYTES])
    if name == "TIFF" and is_camera_raw(data):
        name = "camera raw"
    if name is not None:
        if name in DECODED or (name == "HEIC" and _can_open_heic()):
            return name
        extra = f"install kosmos2-annotate[{EXTRAS[name]}], or " if name in EXTRAS else ""
        raise UnknownFormat(f"{name} is not supported: {extra}convert it to JPEG or PNG")
    head = data[:TEXT_BYTES]
    if content := content_of(head):
        raise UnknownFormat(content)
    later = head.lstrip(_BLANKS)
    if name := format_of(later[:HEAD_BYTES]):
        before = len(head) - len(later)
        raise CorruptImage(
            f"the {name} data begin at byte {before}; remove the bytes before them from the file"
        )
    raise UnknownFormat(
        f"the first bytes ({head[:8].hex(' ')}) match no known format: convert the image to JPEG "
        "or PNG"
    )


def _can_open_heic() -> bool:
    """Return whether the extra `heif` is installed. If so, add the format "HEIF" to Pillow."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
    return True


def _read_jpeg(data: bytes, max_pixels: int, decode: DecodeMode) -> DecodedRaster:
    """Decode with simplejpeg (the pixels of Pillow in 60 % of the time), else with Pillow."""
    orientation = jpeg_orientation(data)
    is_end_missing = False
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        _check_size(width, height, max_pixels)
        if colours in ("CMYK", "YCCK"):
            # Only Pillow inverts CMYK without an Adobe marker, too.
            raise ValueError("CMYK is decoded by Pillow")
        scale = _scale(width, height) if decode == "fast" else 1
        raster: Raster = simplejpeg.decode_jpeg(
            data, "RGB", min_width=-(-width // scale), min_height=-(-height // scale)
        )
    except (ValueError, KeyError):  # KeyError: simplejpeg does not know the chroma subsampling
        try:
            raster = _jpeg_raster(data, max_pixels)
            is_end_missing = not has_end(data)
        except TruncatedImage:
            if not _lacks_only_its_end(data):
                raise
            raster = _jpeg_raster(data + END_OF_IMAGE, max_pixels)
            is_end_missing = True
        height, width = raster.shape[:2]
    return DecodedRaster(
        raster=raster,
        width=width,
        height=height,
        exif_orientation=orientation,
        turn=orientation,
        is_end_missing=is_end_missing,
    )


def _scale(width: int, height: int) -> int:
    """Return the largest divisor of both sides that leaves them `_LEAST_SIDE` pixels."""
    return next((scale for scale in _SCALES if min(width, height) >= scale * _LEAST_SIDE), 1)


def _jpeg_raster(data: bytes, max_pixels: int) -> Raster:
    """Decode with Pillow, without EXIF: Pillow fails on opening if that is broken."""
    with _image_errors():
        return _rgb(_open(without_metadata(data), "JPEG", max_pixels))


def _lacks_only_its_end(data: bytes) -> bool:
    """Return whether all coefficients are present. libjpeg warns if it has to invent some."""
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


def _read_other(data: bytes, name: str, max_pixels: int) -> DecodedRaster:
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
        # Of AVIF, Pillow gives the properties as EXIF.
        exif = found.exif or image.info.get("exif", b"")
        xmp = found.xmp or image.info.get("xmp", b"")
        orientation = orientation_of(exif=exif.removeprefix(EXIF_HEAD), xmp=xmp)
    return DecodedRaster(
        raster=raster,
        width=raster.shape[1],
        height=raster.shape[0],
        exif_orientation=orientation,
        turn=1 if name in _UPRIGHT else orientation,
        is_end_missing=found.is_cut,
    )


def _open(data: bytes, name: str, max_pixels: int) -> Image.Image:
    """Open an image; this reads the header only."""
    try:
        image = Image.open(BytesIO(data), formats=(_PLUGINS.get(name, name),))
    except UnidentifiedImageError as error:
        raise UnidentifiedImageError(
            f"the {name} header is broken, or of a kind that is not supported"
        ) from error
    _check_size(image.width, image.height, max_pixels)
    return image


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels or max(width, height) > MAX_SIDE:
        raise ImageTooLarge(
            f"the image has {width}x{height} pixels; the limits are {max_pixels} pixels and a side "
            f"of {MAX_SIDE}. Scale the image down"
        )


@contextmanager
def _image_errors(*, is_cut: bool = False) -> Iterator[None]:
    """Convert exceptions of the decoders to ImageError. `is_cut`: the file is known to be cut."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLarge(f"{error} Scale the image down") from error
    except DECODER_ERRORS as error:
        is_ours = isinstance(error, UnidentifiedImageError)  # of `_open`
        reason = str(error) if is_ours else f"{type(error).__name__}: {error}"
        if is_cut or isinstance(error, EOFError) or _IS_CUT.search(str(error)):
            raise TruncatedImage(
                f"the image data end too soon ({reason}); copy or download the file again"
            ) from error
        raise CorruptImage(
            f"the image data are broken ({reason}); copy the file again, or save the image again"
        ) from error


def _rgb(image: Image.Image) -> Raster:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _shallow(np.asarray(image))
    image.load()
    raster = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        strip.info.pop("transparency", None)  # Pillow warns or fails; alpha is dropped anyway
        raster[top : top + rows] = np.asarray(strip.convert("RGB"))
    return raster


def _shallow(grey: npt.NDArray[np.generic]) -> Raster:
    """Scale grey [height, width] deeper than 8 bits; Pillow's `convert` clips it to white.

    The full scale of 16-bit grey is 65535. Modes I and F have no defined scale: the smallest of
    1 (F only), 255 (as in `convert`), 65535 and the image's maximum that holds the image is used.
    Negative values and NaN are black.
    """
    values = grey.astype(np.float32)  # changed in place below: images may be large
    brightest = float(values.max(initial=0, where=np.isfinite(values)))
    levels = _GREY_LEVELS[grey.dtype.kind]
    full_scale = next((level for level in levels if brightest <= level), brightest)
    values /= full_scale
    np.nan_to_num(np.clip(values, 0, 1, out=values), copy=False)
    values *= 255
    shallow = np.rint(values, out=values).astype(np.uint8)
    return np.repeat(shallow[:, :, None], 3, axis=2)
