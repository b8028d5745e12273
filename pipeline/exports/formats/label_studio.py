"""Label Studio: tasks with predictions to correct, and the labelling interface for them."""

from collections.abc import Sequence
from statistics import fmean
from xml.etree import ElementTree

from pipeline.exports.categories import Categories
from pipeline.exports.example import Example
from pipeline.exports.formats.protocol import Format, ImagesBeside, Setting, Writer
from pipeline.exports.papers.records import ExportContents, RecordSet, json_fields
from pipeline.exports.parts import JsonPart, Record
from pipeline.review.tasks import box_regions

_INTERFACE_KEY = "interface.xml"
_FIELDS = ("caption", "key", "task", "shard_id", "index", "uri", "member")


def _open(setting: Setting) -> Writer:
    categories, model = setting.categories, setting.model

    def new() -> JsonPart:
        return JsonPart(
            "tasks/{part}.json", lambda example: task(example, categories, model), is_lines=False
        )

    return ImagesBeside(setting, setting.parts(new))


def task(example: Example, categories: Categories, model: str) -> Record:
    """Return a task with boxes in percent; a box whose phrase has no class is left out."""
    result: list[Record] = []
    scores: list[float] = []
    for category_id, entity, box in categories.classified(example):
        result += box_regions(
            f"box{len(result) // 2}",
            box.xyxy,
            size=(example.width, example.height),
            label=categories.name_of(category_id),
            phrase=entity.phrase,
            score=box.score,
        )
        scores += [] if box.score is None else [box.score]
    prediction: Record = {"model_version": model, "result": result}
    if scores:
        prediction["score"] = fmean(scores)
    served = f"/data/local-files/?d=images/{example.image_name}"
    image = example.url() if example.image is None else served
    return {
        "data": {"image": image, **{name: getattr(example, name) for name in _FIELDS}},
        "predictions": [prediction],
    }


def interface(names: Sequence[str]) -> bytes:
    """Return the labelling configuration as XML."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Text", name="caption", value="$caption")
    ElementTree.SubElement(view, "Image", name="image", value="$image")
    labels = ElementTree.SubElement(view, "RectangleLabels", name="label", toName="image")
    for name in names or ["object"]:
        ElementTree.SubElement(labels, "Label", value=name)
    ElementTree.SubElement(
        view, "TextArea", name="phrase", toName="image", perRegion="true", editable="true"
    )
    ElementTree.indent(view)
    page: bytes = ElementTree.tostring(view, encoding="utf-8")
    return page


def _records(contents: ExportContents) -> list[RecordSet]:
    fields = json_fields("$[*].data", image=str, **dict.fromkeys(_FIELDS, str) | {"index": int})
    about = "Tasks. Their `predictions` hold the boxes."
    tasks = RecordSet(name="tasks", about=about, files="tasks/*.json", fields=fields)
    return [tasks, *contents.pixels("images/*")]


FORMAT = Format(
    title="Label Studio",
    open=_open,
    folders=("tasks", "images"),
    records=_records,
    files=(_INTERFACE_KEY,),
    common=lambda classes, _: {_INTERFACE_KEY: interface(classes)},
    has_classes=True,
    about=f"""\
`tasks/*.json` hold one task per image with a prediction: boxes in percent with their scores and
phrases. Give a project `{_INTERFACE_KEY}` as its labelling interface and import the tasks, in Label
Studio's pages or with label-studio-sdk:

```python
import json
from pathlib import Path

from label_studio_sdk import LabelStudio

studio = LabelStudio(base_url="http://localhost:8080", api_key="KEY")
interface = Path("DEST/{_INTERFACE_KEY}").read_text(encoding="utf-8")
project = studio.projects.create(title="Captions", label_config=interface)
for path in sorted(Path("DEST/tasks").iterdir()):
    tasks = json.loads(path.read_text(encoding="utf-8"))
    studio.projects.import_tasks(id=project.id, request=tasks)
```

One import takes at most 200 MB; if files are larger, export with a smaller `--file-size-mb`.

With `--images embed` the images are in `images/`. To serve them, start Label Studio with
`LOCAL_FILES_SERVING_ENABLED=true` and `LOCAL_FILES_DOCUMENT_ROOT=DEST`, and give the project that
folder as a local storage, which need not be synchronized; DEST must be an absolute path in both:

```python
studio.import_storage.local.create(project=project.id, path="DEST/images", title="Images")
```

Otherwise `image` is the sample's field `url`, else the file that holds the image. Left out:
spans, log-probabilities, phrases without a box.
""",
)
