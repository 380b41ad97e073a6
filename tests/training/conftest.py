import pytest
from workbench import Workbench


@pytest.fixture
def bench(tiny_backbone, tiny_llava_json):
    return Workbench(tiny_backbone.folder, tiny_llava_json)
