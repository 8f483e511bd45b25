"""What a C-STORE response's status means for the object: it is there, it never will be, or not now.

| status | meaning (PS3.4 §B.2.3, PS3.7 annex C) | outcome |
|---|---|---|
| 0000 | success | delivered |
| Bxxx, 0001, 0107, 0116 | warning: it was stored, perhaps with changes | delivered |
| A9xx | the dataset does not match its SOP class | refused |
| 0106, 0111, 0112, 0115, 0117 to 0122, 0124, 0211, 0212 | the object, or we, will never be welcome so | refused |
| A7xx, 0213 | out of resources | failed |
| Cxxx | cannot understand | failed |
| 0110 | processing failure | failed |
| anything else | | failed |

Cxxx and 0110 should be permanent by their words, but archives answer so when their database is away, too. Trying them
again costs a few repetitions, and giving up at once could cost a result.
"""

from actors.exporter.sender import Outcome

_WARNINGS = frozenset((0x0001, 0x0107, 0x0116))
_PERMANENT = {
    0x0106: "an attribute's value is invalid",
    0x0111: "it has an object with this UID",
    0x0112: "no such object",
    0x0115: "an argument's value is invalid",
    0x0117: "the SOP Instance UID is invalid",
    0x0118: "no such SOP class",
    0x0119: "the object is not of this SOP class",
    0x0120: "an attribute is missing",
    0x0121: "an attribute's value is missing",
    0x0122: "the SOP class is not supported",
    0x0124: "not authorized",
    0x0211: "it does not store objects",
    0x0212: "it does not understand the request",
}
_TRANSIENT = {0x0110: "processing failure", 0x0213: "out of resources"}


def outcome_of(status: int) -> tuple[Outcome, str]:
    """What became of an object, and why it was not stored: a sentence, "" when it was.

    Args:
        status: of the response, 0000,0900.
    """
    if status == 0 or status >> 12 == 0xB or status in _WARNINGS:
        return Outcome.DELIVERED, ""
    outcome = Outcome.REFUSED if status >> 8 == 0xA9 or status in _PERMANENT else Outcome.FAILED
    return outcome, f"the destination answered 0x{status:04X}: {_words(status)}"


def _words(status: int) -> str:
    if status >> 8 == 0xA7:
        return "out of resources"
    if status >> 8 == 0xA9:
        return "the dataset does not match its SOP class"
    if status >> 12 == 0xC:
        return "it cannot understand the object, or has a trouble of its own"
    return _PERMANENT.get(status) or _TRANSIENT.get(status) or "a failure without further words in DICOM"
