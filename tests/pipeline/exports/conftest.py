import pytest

from pipeline.dataset.dataset import StoredDataset
from tests.support.export_dataset import write


@pytest.fixture(scope="session")
def job(tmp_path_factory: pytest.TempPathFactory) -> StoredDataset:
    return write(tmp_path_factory.mktemp("dataset"))
