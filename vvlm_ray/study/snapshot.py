"""A study on an object store as a local folder, for everything that reads records and draws: analyses, reports."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vvlm_ray.study.folder import StudyFolder, write_json
from vvlm_ray.study.records import read_all_records
from vvlm_ray.study.storage import is_local, put_tree


@contextlib.contextmanager
def local_study(root: Path) -> Iterator[Path]:
    """The folder itself where it is local (or no folder of a study); else a copy of what is read: the files beside the
    trials, their records, and the fits. What the block writes to `fits` and `report` is put into the study.
    """
    if is_local(root):
        yield root
        return
    folder = StudyFolder(root)
    with tempfile.TemporaryDirectory(prefix="vvlm-ray-") as scratch:
        copy = StudyFolder(Path(scratch) / root.name)
        copy.root.mkdir()
        for file in root.iterdir():
            if file.is_file():
                (copy.root / file.name).write_bytes(file.read_bytes())
        for trial_id, record in read_all_records(folder).items():
            write_json(copy.record(trial_id), record)
        if folder.fits.exists():
            folder.fits.fs.get(folder.fits.path, str(copy.fits), recursive=True)
        yield copy.root
        for name in ("fits", "report"):
            if (copy.root / name).exists():
                put_tree(copy.root / name, root / name)
