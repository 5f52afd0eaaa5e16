"""Files that would take long to decode, known by their structure: a few bytes of each piece are read, none is decoded.

A scan of a progressive JPEG may cost a hundred bytes, and a pass over the whole picture. Pillow reads the chunks of a
PNG and the head of a JPEG one by one, in Python.
"""

import re

# Real files have about ten scans, and some dozens of segments, or of chunks beside those of pixels and animation.
# A chunk may unfold to a megabyte.
MOST_SCANS, MOST_SEGMENTS, MOST_CHUNKS, LONGEST_FILL = 100, 1000, 200, 64
SMALLEST_PIECE_OF_PIXELS = 1024
"""Bytes of file for each chunk of a PNG's pixels, on average; encoders make chunks of 4 KiB or more."""

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
PIXELS = (b"IDAT", b"fdAT", b"fcTL")
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
STANDALONE = (0x01, *range(0xD0, 0xD9))
"""Markers without a length: TEM, restarts, and the start of an image."""

# Between segments, decoders skip anything up to a marker; within a scan, restarts too.
MARKER = re.compile(rb"\xff[^\x00\xff]")
MARKER_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


def excess(file: bytes) -> tuple[str, int] | None:
    """The kind of piece of which a PNG or JPEG has too many, and how many it may have; None for any other file."""
    if file.startswith(PNG):
        return _excess_of_png(file)
    return _excess_of_jpeg(file) if file.startswith(JPEG) else None


def _excess_of_png(file: bytes) -> tuple[str, int] | None:
    most_pixels = MOST_SEGMENTS + len(file) // SMALLEST_PIECE_OF_PIXELS
    at, pixels, others = len(PNG), 0, 0
    while at + 8 <= len(file):
        length, name = int.from_bytes(file[at : at + 4]), file[at + 4 : at + 8]
        if name in PIXELS:
            pixels += 1
        else:
            others += 1
        if others > MOST_CHUNKS:
            return "chunks beside those of pixels", MOST_CHUNKS
        if pixels > most_pixels:
            return "chunks of pixels", most_pixels
        at += length + 12
    return None


def _excess_of_jpeg(file: bytes) -> tuple[str, int] | None:
    at, scans, pieces = len(JPEG), 0, 0
    while found := MARKER.search(file, at, at + LONGEST_FILL + 2):
        marker, at = file[found.end() - 1], found.end()
        pieces, scans = pieces + 1, scans + (marker == START_OF_SCAN)
        if scans > MOST_SCANS:
            return "scans", MOST_SCANS
        if pieces > MOST_SEGMENTS:
            return "segments", MOST_SEGMENTS
        if marker == END_OF_IMAGE:
            return None
        if marker not in STANDALONE:
            at += int.from_bytes(file[at : at + 2])
        if marker == START_OF_SCAN:
            next_marker = MARKER_AFTER_SCAN.search(file, at)
            at = next_marker.start() if next_marker else len(file)
    return ("bytes between segments", LONGEST_FILL) if len(file) - at > LONGEST_FILL else None
