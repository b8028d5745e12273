"""The formats by the name that `--format` takes."""

from pipeline.exports.formats import (
    boxes,
    coco,
    fiftyone,
    grit,
    hf,
    label_studio,
    odvg,
    sidecar,
    voc,
    webdataset,
    yolo,
)
from pipeline.exports.formats.protocol import Format
from pipeline.exports.options import FormatName

EXPORT_FORMATS: dict[FormatName, Format] = {
    "hf": hf.FORMAT,
    "boxes": boxes.FORMAT,
    "coco": coco.FORMAT,
    "grit": grit.FORMAT,
    "webdataset": webdataset.FORMAT,
    "label-studio": label_studio.FORMAT,
    "fiftyone": fiftyone.FORMAT,
    "yolo": yolo.FORMAT,
    "odvg": odvg.FORMAT,
    "voc": voc.FORMAT,
    "sidecar": sidecar.FORMAT,
}
