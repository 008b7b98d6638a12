"""Disk space of local jobs: what is deleted with a job, and its size."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from launch.local.errors import in_use, invalid
from launch.local.records import RUNNING, Record, Records
from launch.local.storage import is_local, local_path


@dataclass(frozen=True)
class JobOnDisk:
    """A job and its files.

    Artifacts at a place outside the client's folder, which a user has chosen, are kept, as those in S3 are.

    Attributes:
        root: the client's folder.
        models: the client's models, whose artifacts are kept.
        records: of the job's kind.
        name: the job's name.
    """

    root: Path
    models: Records
    records: Records
    name: str

    @property
    def kind(self) -> str:
        """The kind in one word: training, transform or tuning."""
        return self.records.kind.split("-")[-2]

    @property
    def status(self) -> str:
        title = "".join(word.title() for word in self.records.kind.split("-"))
        return self.records.read(self.name)[f"{title}Status"]

    @property
    def has_ended(self) -> bool:
        """Whether it has ended, so that it can be deleted."""
        return self.status not in RUNNING

    @property
    def arn(self) -> str:
        return self.records.arn(self.name)

    @property
    def places(self) -> list[Path]:
        """Folders that are deleted with the job: its own, its unpacked reports, its artifacts and its checkpoints."""
        found = [self.records.folder(self.name), self.root / "reports" / self.name, self._artifacts()]
        return [path for path in found if path is not None and path.is_dir()]

    def num_bytes(self) -> int:
        """Return the size of all files in :attr:`places`."""
        return sum(_size(place) for place in self.places)

    def delete(self) -> None:
        """Delete the job.

        Raises:
            ClientError: the job has not ended, or a model refers to its artifact.
        """
        if not self.has_ended:
            raise invalid(f"the {self.kind} job {self.name!r} is {self.status}, so it can't be deleted now")
        artifacts, models = self._artifacts(), self.models
        users = [one for one in models.names() if artifacts and _refers(models.read(one), artifacts)]
        if users:
            raise in_use(f"its artifact is used by model {users[0]}: remove that first")
        # Its record last: what is interrupted here is found again.
        for place in reversed(self.places):
            shutil.rmtree(place)

    def _artifacts(self) -> Path | None:
        output = self.records.read(self.name).get("OutputDataConfig", {}).get("S3OutputPath", "")
        folder = local_path(output, "S3OutputPath") if is_local(output) else None
        return folder / self.name if folder and folder.resolve().is_relative_to(self.root) else None


def _refers(model: Record, folder: Path) -> bool:
    url = model["PrimaryContainer"].get("ModelDataUrl", "")
    return is_local(url) and local_path(url, "ModelDataUrl").resolve().is_relative_to(folder.resolve())


def _size(folder: Path) -> int:
    files = (os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names)  # noqa: PTH118
    return sum(os.lstat(file).st_size for file in files)
