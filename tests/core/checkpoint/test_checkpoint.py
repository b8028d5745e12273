import hashlib
import json
import pickle
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file

from kosmos2_core.checkpoint.files import SHAPES_DIRECTORY, locate_checkpoint
from kosmos2_core.checkpoint.load import dtypes_for, load_checkpoint
from kosmos2_core.checkpoint.weights import load_weights
from kosmos2_core.errors import CheckpointError
from tests.support.checkpoints import random_checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def directory(tmp_path):
    """A copy of `shapes` to spoil."""
    return shutil.copytree(SHAPES_DIRECTORY, tmp_path / "copy")


@pytest.fixture(scope="module")
def real_layout(tmp_path_factory):
    return random_checkpoint(tmp_path_factory.mktemp("real-layout"))


def edit_json(path, **changes):
    """`changes` replace top-level values; those of None are removed."""
    content = {**json.loads(path.read_text()), **changes} if path.exists() else changes
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def edit_image_processor(directory, **changes):
    path = directory / "processor_config.json"
    image_processor = json.loads(path.read_text())["image_processor"]
    edit_json(path, image_processor=image_processor | changes)


def edit_weights(directory, edit):
    path = directory / "model.safetensors"
    weights = load_file(path)
    edit(weights)
    save_file(weights, path, metadata={"format": "pt"})


# What loads


def test_shapes_loads_in_float32_on_the_cpu_although_stored_in_half_precision():
    stored = load_file(SHAPES_DIRECTORY / "model.safetensors")
    assert {weight.dtype for weight in stored.values()} == {torch.float16}
    checkpoint = load_checkpoint("shapes", device="cpu")
    assert checkpoint.dtype_name == "float32"
    assert {weight.dtype for weight in checkpoint.model.parameters()} == {torch.float32}
    assert not checkpoint.model.training


def test_provenance_names_the_weights():
    weights = (SHAPES_DIRECTORY / "model.safetensors").read_bytes()
    digest = hashlib.sha256(b"model.safetensors\0" + hashlib.sha256(weights).digest()).hexdigest()
    provenance = load_checkpoint("shapes", device="cpu").provenance
    assert (provenance.id, provenance.commit) == ("shapes", None)
    assert provenance.weights_digest == digest


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_dtype_is_the_one_asked_for(name):
    checkpoint = load_checkpoint("shapes", device="cpu", dtype=name)
    assert checkpoint.dtype_name == name
    assert next(checkpoint.model.parameters()).dtype == getattr(torch, name)


def test_auto_on_cuda_prefers_float16_and_falls_back_to_bfloat16(directory):
    preferred = dtypes_for("auto", torch.device("cuda"))
    vocabulary = load_checkpoint("shapes", device="cpu").vocabulary

    def chosen(name):
        model, dtype = load_weights(locate_checkpoint(name), preferred, vocabulary)
        assert {weight.dtype for weight in model.parameters()} == {dtype}
        return dtype

    assert chosen("shapes") == torch.float16

    def beyond_float16(weights):
        for name in weights:
            weights[name] = weights[name].float()
        weights["text_model.model.layer_norm.weight"] *= 1e5

    edit_weights(directory, beyond_float16)
    assert chosen(str(directory)) == torch.bfloat16


def test_a_directory_loads_by_its_path(directory):
    provenance = load_checkpoint(str(directory), device="cpu").provenance
    assert (provenance.id, provenance.commit) == (str(directory), None)
    assert provenance.weights_digest == locate_checkpoint("shapes").weights_digest()


def test_the_real_layout_loads_with_the_ids_of_the_real_model(real_layout):
    checkpoint = load_checkpoint(str(real_layout), device="cpu")
    assert list(checkpoint.vocabulary.tags) == list(range(64_002, 64_013))
    assert checkpoint.vocabulary.first_location == 64_013
    encode = checkpoint.tokenizer.encode
    # transformers, tests/models/kosmos2/test_processing_kosmos2.py
    ids = encode("<grounding> Two puppies sit in a field of grass.", add_special_tokens=False)
    assert ids == [64012, 1264, 17772, 1357, 12, 10, 770, 9, 4464, 4]


@pytest.mark.parametrize(
    ("generation", "top", "text", "asked", "size"),
    [
        pytest.param(4, 5, 6, 7, 7, id="flag"),
        pytest.param(4, 5, 6, 0, 0, id="flag of zero"),
        pytest.param(4, 5, 6, None, 4, id="generation config"),
        pytest.param(0, 5, 6, None, 0, id="generation config of zero"),
        pytest.param(None, 5, 6, None, 5, id="config"),
        pytest.param(None, None, 6, None, 6, id="text config"),
        pytest.param(None, None, None, None, 0, id="nothing said"),
    ],
)
def test_no_repeat_ngram_size_is_the_first_that_is_said(
    directory, generation, top, text, asked, size
):
    text_config = json.loads((directory / "config.json").read_text())["text_config"]
    if text is not None:
        text_config["no_repeat_ngram_size"] = text
    edit_json(directory / "config.json", no_repeat_ngram_size=top, text_config=text_config)
    edit_json(directory / "generation_config.json", no_repeat_ngram_size=generation)
    checkpoint = load_checkpoint(str(directory), device="cpu", no_repeat_ngram_size=asked)
    assert checkpoint.no_repeat_ngram_size == size


def test_no_repeat_ngram_size_of_the_real_layout_is_three_where_nothing_is_said(real_layout):
    assert load_checkpoint(str(real_layout), device="cpu").no_repeat_ngram_size == 3


def test_use_square_size_squashes_whatever_size_is_set(directory):
    edit_image_processor(directory, size={"shortest_edge": 224}, use_square_size=True)
    load_checkpoint(str(directory), device="cpu")


# What does not load


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def swap_processor_class(directory):
    edit_json(directory / "processor_config.json", processor_class="CLIPProcessor")


def set_nan(weights):
    weights["text_model.model.layers.0.ffn.fc1.weight"][0, 0] = torch.nan


def shrink_config(directory):
    config = json.loads((directory / "config.json").read_text())
    edit_json(directory / "config.json", text_config=config["text_config"] | {"vocab_size": 1000})


SPOILED = {
    "other model": (
        lambda d: edit_json(d / "config.json", model_type="clip"),
        "is a 'clip' model.*use microsoft/kosmos-2",
    ),
    "no config": (lambda d: (d / "config.json").unlink(), "no config.json"),
    "damaged config": (lambda d: truncate(d / "config.json"), "config.json is damaged.*fetch"),
    "config is a list": (
        lambda d: (d / "config.json").write_text("[1]"),
        "config.json is not a JSON object",
    ),
    "damaged generation config": (
        lambda d: truncate(d / "generation_config.json"),
        "generation_config.json is damaged.*fetch",
    ),
    "damaged tokenizer": (lambda d: truncate(d / "tokenizer.json"), "processor.*fetch"),
    "no tokenizer": (lambda d: (d / "tokenizer.json").unlink(), "processor.*fetch"),
    "no processor": (lambda d: (d / "processor_config.json").unlink(), "processor.*fetch"),
    "other processor": (swap_processor_class, "is a CLIPProcessor.*use the processor files"),
    "truncated weights": (lambda d: truncate(d / "model.safetensors"), "weights.*fetch"),
    "empty weights": (lambda d: (d / "model.safetensors").write_bytes(b""), "weights.*fetch"),
    "nan": (
        lambda d: edit_weights(d, set_nan),
        "layers.0.ffn.fc1.weight holds NaN or infinity as torch.float32; fetch",
    ),
    "incomplete": (
        lambda d: edit_weights(d, lambda w: w.pop("text_model.model.layers.0.ffn.fc1.weight")),
        "1 weights are missing, text_model.*fc1.weight.*fetch",
    ),
    "weights of another shape": (shrink_config, "weights do not load.*fetch"),
    "crop": (
        lambda d: edit_image_processor(d, use_square_size=False, do_center_crop=True),
        "Set use_square_size to true",
    ),
    "no squash": (
        lambda d: edit_image_processor(d, use_square_size=False, do_center_crop=False),
        "Set use_square_size to true",
    ),
    "no mean": (lambda d: edit_image_processor(d, image_mean=None), "image_mean.*use"),
    "n-gram size in words": (
        lambda d: edit_json(d / "generation_config.json", no_repeat_ngram_size="three"),
        "no_repeat_ngram_size is 'three'; it must be",
    ),
}


@pytest.mark.parametrize(("spoil", "said"), SPOILED.values(), ids=SPOILED.keys())
def test_a_spoiled_checkpoint_is_refused_by_name_with_a_remedy(directory, spoil, said):
    spoil(directory)
    with pytest.raises(CheckpointError, match=f"(?s){said}") as raised:
        load_checkpoint(str(directory), device="cpu")
    assert str(directory) in str(raised.value)


@pytest.mark.parametrize("name", ["nowhere", "./nowhere/at-all", "/no/such/directory", "a/b/c"])
def test_a_missing_checkpoint_is_refused_by_name(name):
    with pytest.raises(CheckpointError, match=f"no checkpoint at {name!r}: give a directory"):
        load_checkpoint(name)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"dtype": "int8"}, "no dtype 'int8'; use auto, float32"),
        ({"device": "gpu"}, "no device 'gpu'; use auto, cpu"),
    ],
)
def test_unknown_devices_and_dtypes_are_refused(arguments, said):
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint("shapes", **arguments)


# What never runs


class Touch:
    """A pickle that creates a file when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickle_is_refused_unopened(directory, tmp_path):
    (directory / "model.safetensors").unlink()
    (directory / "pytorch_model.bin").write_bytes(pickle.dumps(Touch(tmp_path / "opened")))
    with pytest.raises(CheckpointError, match=r"no \*.safetensors.*save it with safetensors"):
        load_checkpoint(str(directory))
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize("file", ["config.json", "processor_config.json", "tokenizer_config.json"])
def test_code_in_a_checkpoint_never_runs(directory, tmp_path, file):
    opened = tmp_path / "opened"
    (directory / "evil.py").write_text(f"open({str(opened)!r}, 'w')\nclass Evil: pass\n")
    classes = ["AutoConfig", "AutoModel", "AutoProcessor", "AutoImageProcessor"]
    auto_map = dict.fromkeys(classes, "evil.Evil")
    edit_json(directory / file, auto_map=auto_map | {"AutoTokenizer": ["evil.Evil", "evil.Evil"]})
    load_checkpoint(str(directory), device="cpu")
    assert not opened.exists()


# The hub


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty cache of the hub's client, which is told to stay offline."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.fixture
def cached_repository(hub_cache):
    """`owner/tiny` as `snapshot_download` leaves it behind."""
    repository = hub_cache / "models--owner--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    return shutil.copytree(SHAPES_DIRECTORY, repository / "snapshots" / COMMIT)


@pytest.mark.parametrize("name", ["owner/tiny", "owner/tiny@main", f"owner/tiny@{COMMIT}"])
def test_a_hub_id_is_resolved_to_a_commit(cached_repository, name):
    provenance = load_checkpoint(name, device="cpu").provenance
    assert (provenance.id, provenance.commit) == ("owner/tiny", COMMIT)


def test_a_revision_may_hold_slashes(cached_repository):
    reference = cached_repository.parents[1] / "refs" / "refs" / "pr" / "1"
    reference.parent.mkdir(parents=True)
    reference.write_text(COMMIT)
    assert locate_checkpoint("owner/tiny@refs/pr/1").commit == COMMIT


@pytest.mark.usefixtures("cached_repository")
@pytest.mark.parametrize("name", ["owner/other", "owner/tiny@v9", "owner/not a name"])
def test_a_hub_id_out_of_reach_is_refused_by_name(name):
    with pytest.raises(CheckpointError, match=f"cannot get {name} from the hub.*Check the name"):
        load_checkpoint(name)


@pytest.mark.timeout(60)
def test_a_hub_that_does_not_answer_is_given_up(hub_cache, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match="cannot get owner/tiny from the hub"):
        load_checkpoint("owner/tiny")
