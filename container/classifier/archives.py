"""A tar of a stranger's → files in a folder, and nowhere else.

Not by tarfile's own filter, which Python has from 3.11.4 on; Debian 12 has 3.11.2.
"""

import shutil
import tarfile
from pathlib import Path


def unpack_tar(archive: Path, folder: Path) -> None:
    """Unpack the files and folders of a tar.

    Raises:
        tarfile.TarError: this is no tar, a member leads out of the folder, or one is neither file nor folder.
        OSError: it is not there, or the folder can't be written.
    """
    root = folder.resolve()
    with tarfile.open(archive) as packed:
        for member in packed:
            target = (root / member.name).resolve()
            if not target.is_relative_to(root):
                raise tarfile.ExtractError(f"{member.name} leads out of the folder")
            source = packed.extractfile(member) if member.isfile() else None
            if source is not None:
                target.parent.mkdir(parents=True, exist_ok=True)
                with source, target.open("wb") as file:
                    shutil.copyfileobj(source, file)
            elif member.isdir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                raise tarfile.ExtractError(f"{member.name} is neither a file nor a folder")
