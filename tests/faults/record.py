"""A pipeline that writes down what it was given: a line of SOP Instance UID and digest for each file of its input.

Run as `python -I -S record.py INPUT DIRECTORY`; the record is `DIRECTORY/JOB_ID.PID`, there in full or not at all.
"""

import hashlib
import os
import sys


def record(source: str, directory: str) -> None:
    lines = []
    for place, _, names in os.walk(source):
        for name in names:
            with open(os.path.join(place, name), "rb") as file:
                data = file.read()
            offset = 144 + int.from_bytes(data[140:144], "little")
            lines.append(f"{name.removesuffix('.dcm')} {hashlib.sha256(data[offset:]).hexdigest()}\n")
    path = os.path.join(directory, f"{os.environ['JOB_ID']}.{os.getpid()}")
    with open(f"{path}.new", "w", encoding="ascii") as file:
        file.writelines(lines)
    os.rename(f"{path}.new", path)


if __name__ == "__main__":
    record(sys.argv[1], sys.argv[2])
