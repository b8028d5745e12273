"""Perceptual hashes: images that look alike differ in few of 64 bits."""

import imagehash
import numpy as np
from PIL import Image

from kosmos2_core.images.decode import ExifPolicy, decode_image

BITS = 64
LOOKS_VERSION = "1"  # of `looks_of`: another result for the same image is another version


def looks_of(data: bytes, exif: ExifPolicy) -> int:
    """Return the perceptual hash of an image.

    Its bits are the signs of the lowest frequencies of the upright square that the model sees.
    Raises ImageError.
    """
    pixels = decode_image(data, exif=exif).pixels  # uint8 [3, 224, 224]
    found = imagehash.phash(Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))))
    return int.from_bytes(np.packbits(found.hash.ravel()).tobytes(), "big")
