"""The commands that measure a model on public benchmarks."""

from pathlib import Path
from typing import Literal

from jobs.options.places import check_file, check_folder, check_new_file
from pipeline.exit_codes import ExitCode

REAL_MODEL = "microsoft/kosmos-2-patch14-224"


def flickr30k(
    annotations: Path,
    images: Path,
    /,
    *,
    split: Literal["val", "test"] | None = None,
    model: str = REAL_MODEL,
    limit: int | None = None,
    json: Path | None = None,
) -> int:
    """Evaluate phrase grounding on Flickr30k Entities: R@1, R@5, R@10, any-box protocol.

    Beside them stand the published figures. Each phrase is asked for after the words of its caption
    that come before it. Boxes count in the order of generation.

    ```
    kosmos2 evaluate flickr30k final_flickr_separateGT_test.json flickr30k-images/ --split test
    ```

    Parameters
    ----------
    annotations
        File of MDETR's: final_flickr_separateGT_val.json or _test.json.
    images
        Folder of Flickr30k's pictures.
    split
        Which published figures to show.
    model
        Hub id, directory, or `shapes`.
    limit
        Only the first so many pictures.
    json
        Write the figures there, too.
    """
    from jobs.commands.evaluate import Files, evaluate_flickr30k

    check_file(annotations)
    check_folder(images)
    check_new_file(json)
    files = Files(annotations=annotations, images=images, limit=limit)
    evaluate_flickr30k(files, model=model, split=split, out=json)
    return ExitCode.DONE


def refcoco(
    annotations: Path,
    images: Path,
    /,
    *,
    dataset: Literal["refcoco", "refcoco+", "refcocog"] = "refcoco",
    split: Literal["val", "testA", "testB", "test"] | None = None,
    model: str = REAL_MODEL,
    limit: int | None = None,
    json: Path | None = None,
) -> int:
    """Evaluate referring expressions on RefCOCO, RefCOCO+ or RefCOCOg: accuracy at IoU 0.5.

    Beside it stands the published figure. The first box counts.

    ```
    kosmos2 evaluate refcoco finetune_refcoco+_testA.json coco/ --dataset refcoco+ --split testA
    ```

    Parameters
    ----------
    annotations
        File of MDETR's: finetune_refcoco_val.json and the like.
    images
        Folder of COCO's pictures of 2014, in it or in train2014/ and val2014/.
    dataset
        Of which dataset the file is.
    split
        Which published figure to show.
    model
        Hub id, directory, or `shapes`.
    limit
        Only the first so many pictures.
    json
        Write the figures there, too.
    """
    from jobs.commands.evaluate import Files, evaluate_refcoco

    check_file(annotations)
    check_folder(images)
    check_new_file(json)
    files = Files(annotations=annotations, images=images, limit=limit)
    evaluate_refcoco(files, model=model, dataset=dataset, split=split, out=json)
    return ExitCode.DONE
