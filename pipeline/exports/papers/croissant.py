"""`croissant.json`: an export for machines and papers, by Croissant 1.1 and Croissant RAI 1.0.

The vocabulary is that of https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html and
https://docs.mlcommons.org/croissant/docs/croissant-rai-spec.html.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.dataset.dataset import StoredDataset
from pipeline.exports.coverage import Coverage
from pipeline.exports.formats.protocol import Format
from pipeline.exports.options import ExportOptions
from pipeline.exports.papers.credits import Creator, License
from pipeline.exports.papers.records import ExportContents, RecordField, RecordSet
from pipeline.spec.fields import carried_columns
from pipeline.spec.identity import JobRecord
from pipeline.version import DISTRIBUTION

CROISSANT_KEY = "croissant.json"
_CONFORMS_TO = ("http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0")
_OWN_WORDS = (
    "annotation arrayShape citeAs column containedIn equivalentProperty extract field fileProperty "
    "fileObject fileSet format includes isArray isLiveDataset jsonPath key md5 parentField path "
    "recordSet references regex repeated replace samplingRate separator source subField transform"
)
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    **{word: f"cr:{word}" for word in _OWN_WORDS.split()},
}


def croissant_json(
    dataset: StoredDataset,
    options: ExportOptions,
    chosen: Format,
    coverage: Coverage,
    tasks: Sequence[str],
    score: str,
) -> bytes:
    """Return the description of an export. It depends only on the dataset and the options."""
    record = dataset.record
    contents = ExportContents(
        options=options,
        carried=carried_columns(record.identity.carry),
        tasks=tasks,
        kinds=frozenset(shard.kind for shard in dataset.plan.shards),
    )
    records = chosen.records(contents)
    page = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": list(_CONFORMS_TO),
        "name": f"Grounded captions by Kosmos-2 ({record.fingerprint}): {chosen.title}",
        "description": _description(record, coverage),
        "inLanguage": "en",
        "keywords": ["grounded captions", "bounding boxes", "Kosmos-2"],
        "dateCreated": record.created_at[:10],
        **_credits(options),
        "distribution": [part for each in records for part in _files(each)],
        "recordSet": [_record_set(each) for each in records],
        **_rai(record, options, coverage, tasks, score),
    }
    return (json.dumps(page, indent=2, allow_nan=False) + "\n").encode()


def _description(record: JobRecord, coverage: Coverage) -> str:
    return (
        f"{coverage.annotations} captions of images with {coverage.boxes} boxes of their phrases, "
        f"made by the model {_model(record)}."
    )


def _credits(options: ExportOptions) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if options.license is not None:
        given = License.of(options.license)
        found["license"] = given.url or given.name
    if options.citation is not None:
        found["citeAs"] = options.citation
    if options.creator:
        found["creator"] = [
            {"@type": "Organization" if each.is_organization else "Person", "name": each.name}
            for each in map(Creator.of, options.creator)
        ]
    return found


def _files(records: RecordSet) -> Iterator[dict[str, Any]]:
    """Describe the files of a record set. Several sets may be in the same files."""
    inside = {}
    if records.archives is not None:
        archives = f"{records.name}-archives"
        yield {
            "@type": "cr:FileSet",
            "@id": archives,
            "name": archives,
            "encodingFormat": "application/x-tar",
            "includes": records.archives,
        }
        inside = {"containedIn": {"@id": archives}}
    yield {
        "@type": "cr:FileSet",
        "@id": _files_id(records),
        "name": _files_id(records),
        **inside,
        "encodingFormat": list(records.encodings),
        "includes": records.files,
    }


def _files_id(records: RecordSet) -> str:
    return f"{records.name}-files"


def _record_set(records: RecordSet) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": records.name,
        "name": records.name,
        "description": records.about,
        "field": [_field(each, records.name, _files_id(records)) for each in records.fields],
    }


def _field(field: RecordField, parent: str, files: str) -> dict[str, Any]:
    name = f"{parent}/{field.name}"
    found: dict[str, Any] = {"@type": "cr:Field", "@id": name, "name": field.name}
    if field.shape:
        found |= {"isArray": True, "arrayShape": ",".join(map(str, field.shape))}
    if field.parts:
        return found | {"subField": [_field(each, name, files) for each in field.parts]}
    extract = {
        "column": field.column,
        "jsonPath": field.json_path,
        "fileProperty": field.file_property,
    }
    source: dict[str, Any] = {
        "fileSet": {"@id": files},
        "extract": {name: value for name, value in extract.items() if value is not None},
    }
    if field.path is not None:
        source["transform"] = {"jsonPath": field.path}
    return found | {"dataType": field.type, "source": source}


def _rai(
    record: JobRecord,
    options: ExportOptions,
    coverage: Coverage,
    tasks: Sequence[str],
    score: str,
) -> dict[str, Any]:
    """Return what the run knows of its making. The rest is for the people who publish it."""
    identity = record.identity
    pixels = "are in the export" if options.images == "embed" else "are referenced, not copied"
    prompts = [f"{task.name}: {task.prompt!r}" for task in identity.tasks if task.name in tasks]
    derived = [f"{step.operation} {' '.join(step.parameters)}" for step in identity.derived]
    issues = [f"{name}: {count}" for name, count in coverage.issues.most_common()]
    return {
        "rai:dataCollection": "Existing images were annotated. This program collected none of "
        f"them; see their own documentation. The images {pixels}.",
        "rai:dataCollectionType": ["Secondary Data Analysis"],
        "rai:dataCollectionMissingData": "Rejected samples, which have no annotation: "
        f"{coverage.rejected}. Planned shards in the export: {coverage.shards_exported} of "
        f"{coverage.shards_planned}.",
        "rai:dataPreprocessingProtocol": [
            "Each image was turned upright by its EXIF tag, unless that was switched off, and "
            "resized to 224x224 pixels for the model. Boxes refer to the upright image.",
            "The words of the prompt were removed from the captions."
            if options.strip_prompt
            else "The captions begin with the words of the prompt.",
            *derived,
        ],
        "rai:dataAnnotationProtocol": [
            "A model made every caption, phrase and box, by greedy decoding. Prompts: "
            + "; ".join(prompts)
        ],
        "rai:dataAnnotationPlatform": [_platform(record)],
        "rai:dataAnnotationAnalysis": [
            f"Score of a box: {score}. Boxes by tenths of the score from 0 to 1: "
            f"{', '.join(map(str, coverage.scores))}.",
            "Annotations with quality flags: " + (", ".join(issues) or "none"),
        ],
        "rai:annotationsPerItem": f"one per task: {', '.join(tasks)}",
        "rai:machineAnnotationTools": [f"{_model(record)}, weights {record.model.weights_digest}"],
        "rai:dataLimitations": [
            "No person checked the annotations. Captions may be wrong, and boxes may be misplaced "
            "or missing.",
            "Corners of boxes lie on a grid of 32x32 cells of the image.",
            "Captions are English.",
        ],
        "rai:dataBiases": ["The annotations repeat biases of the model and of its training data."],
        "rai:dataUseCases": [
            "Training and evaluation of models for captions, phrase grounding and detection, with "
            "annotations of a model in place of those of people."
        ],
        "rai:personalSensitiveInformation": [
            "Not examined. Images and captions may show or describe people."
        ],
    }


def _platform(record: JobRecord) -> str:
    return f"{DISTRIBUTION} {record.software.get(DISTRIBUTION, '')}".strip()


def _model(record: JobRecord) -> str:
    commit = f" at {record.model.commit}" if record.model.commit else ""
    return f"{record.model.id}{commit}"
