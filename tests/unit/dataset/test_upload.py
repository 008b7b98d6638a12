"""The files of a folder that are uploaded."""

from pathlib import Path

from dataset.upload import walk


def test_links_to_folders_are_followed_unless_they_lead_back(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "train", tmp_path / "elsewhere"
    for path in (folder / "cat" / "1.jpg", elsewhere / "2.jpg"):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
    (folder / "dog").symlink_to(elsewhere)
    (folder / "cat" / "all").symlink_to(folder)
    # Each leads into the other.
    (elsewhere / "cats").symlink_to(folder / "cat")
    assert [file.key for file in walk(folder)] == [
        "cat/1.jpg",
        "dog/2.jpg",
        "dog/cats/1.jpg",
    ]
