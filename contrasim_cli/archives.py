"""Zip archives of unknown origin (.npz, .pt): looked at before anything is made of them.

torch checks no checksums, and both torch and NumPy unpack whatever an archive says that it holds.
"""

import zipfile

from contrasim_cli.snapshot import Snapshot

BLOCK = 1 << 20
MOST_PACKED = 1100  # times smaller than what it was made of is nothing that deflate makes, which comes to 1032 at best
ENTRY = b"PK\x01\x02"  # with which every entry of an archive's list begins
PROGRAM = "constants.pkl"  # by which torch knows TorchScript, which it runs; no tensor's name
FOLDER = 0x10  # in a member's attributes; torch reads nothing then, and takes what lies in memory


class UnsafeArchiveError(ValueError):
    """An archive that is damaged, or made to do harm."""


def check_stored(file: Snapshot) -> None:
    """Refuse an archive that is packed, as those of torch never are, that is a program, or that fails a checksum.

    Raises:
        UnsafeArchiveError, and whatever zipfile trips over: the archive is damaged, or made to do harm.
    """
    with zipfile.ZipFile(file.reader()) as archive:
        members = _members(file, archive)
        for info in members:
            if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
                raise UnsafeArchiveError(f"{info.filename} is packed")
            if info.filename.endswith(PROGRAM):
                raise UnsafeArchiveError("it is a TorchScript program")
            if info.external_attr & FOLDER:
                raise UnsafeArchiveError(f"{info.filename} is said to be a folder")
            verify(archive, info)


def check_packed(file: Snapshot, archive: zipfile.ZipFile) -> None:
    """Refuse an archive that lacks members, or claims to unpack to more than can be.

    What it does unpack to may be much larger than the file, and is held against the memory there is by whoever unpacks it.

    Raises:
        UnsafeArchiveError: a member is packed to less than deflate can pack anything, or there are more than fit into the
            file, or fewer than it lists.
    """
    for info in _members(file, archive):
        if info.compress_type == zipfile.ZIP_DEFLATED and info.file_size > MOST_PACKED * max(info.compress_size, 1):
            raise UnsafeArchiveError(
                f"{info.filename} claims to unpack from {info.compress_size} to {info.file_size} bytes, which cannot be"
            )


def verify(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    """Read a member to its end, where its checksum is compared; torch can be told to write none."""
    if info.CRC == 0 and info.file_size:
        return
    with archive.open(info) as stream:
        while stream.read(BLOCK):
            pass


def _members(file: Snapshot, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """What the archive lists, where that can be.

    Members that lie over each other can be any number of times the file, and one whose comment is said to be long hides
    those behind it.
    """
    members = archive.infolist()
    if sum(info.compress_size for info in members) > file.size:
        raise UnsafeArchiveError("its members are together larger than the file")
    stream = file.reader()
    stream.seek(archive.start_dir)
    if stream.read().count(ENTRY) != len(members):
        raise UnsafeArchiveError("its list of members is damaged")
    return members
