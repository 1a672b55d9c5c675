"""Bodies that are JSON by its grammar, and that some parser or other refuses or changes.

Each has the event's type, its tenant and a word that makes it unique beside what is strange about it.
"""

from collections.abc import Callable

EVENT_TYPE = "strange.real"

Make = Callable[[str, str], bytes]


def holding(member: str, *, before: str = "", after: str = "") -> Make:
    """A body with this member beside the usual ones."""

    def make(tenant: str, word: str) -> bytes:
        usual = f'"type":"{EVENT_TYPE}","tenant":"{tenant}","word":"{word}"'
        return f"{before}{{{usual},{member}}}{after}".encode()

    return make


def nested(levels: int) -> Make:
    return holding('"deep":' + "[" * levels + "]" * levels)


def nested_objects(levels: int) -> Make:
    return holding('"deep":' + '{"a":' * levels + "1" + "}" * levels)


KINDS: dict[str, Make] = {
    "half of a surrogate pair, high": holding(r'"e":"\ud83d"'),
    "half of a surrogate pair, low": holding(r'"e":"\ude00 x"'),
    "halves in the wrong order": holding(r'"e":"\ude00\ud83d"'),
    "half of a surrogate pair as a name": holding(r'"\ud83d":1'),
    "a whole surrogate pair": holding(r'"e":"\ud83d\ude00"'),
    "a number beyond a double": holding('"n":1e400'),
    "a negative number beyond a double": holding('"n":-1e400'),
    "a number too small for a double": holding('"n":1e-400'),
    "an integer of 64 bits and one": holding('"n":18446744073709551616'),
    "a negative integer beyond 64 bits": holding('"n":-9223372036854775809'),
    "an integer of 100 digits": holding('"n":' + "9" * 100),
    "a fraction of 40 digits": holding('"n":0.' + "1234567890" * 4),
    "negative zero": holding('"n":-0'),
    "an exponent with a plus": holding('"n":1E+2'),
    "lists 127 deep": nested(126),
    "lists 128 deep": nested(127),
    "lists 200 deep": nested(200),
    "lists 500 deep": nested(500),
    "objects 500 deep": nested_objects(500),
    "a byte order mark": holding('"n":1', before="\ufeff"),
    "blanks and line ends around": holding('"n":1', before=" \t\r\n", after="\r\n \n"),
    "equal names, the last counts": holding(f'"type":"{EVENT_TYPE}"', before="", after=""),
    "an empty name": holding('"":1'),
    "a name with a slash and a tilde": holding('"a/b~c":1'),
    "an escaped NUL": holding(r'"z":"\u0000"'),
    "an escaped slash": holding(r'"u":"https:\/\/example.com\/"'),
    "every short escape": holding(r'"s":"\"\\\/\b\f\n\r\t"'),
    "an escaped letter in a name": holding(r'"\u0061\u0062":1'),
    "line separators of Unicode": holding('"s":"a\u2028b\u2029c"'),
    "DEL and C1 controls": holding('"s":"a\x7fb\x85c"'),
    "characters beyond the basic plane": holding('"s":"😀𝄞"'),
    "combining characters": holding('"s":"e\u0301 \u202eabc"'),
    "a noncharacter": holding('"s":"\uffff\ufffe"'),
    "an empty list and an empty object": holding('"l":[],"o":{}'),
    "percent and plus signs, as in a form": holding('"note":"1+1=2 & 100%25"'),
    "a text of 100,000 characters": holding('"s":"' + "x" * 100_000 + '"'),
    "a list of 10,000 numbers": holding('"l":[' + ",".join(map(str, range(10_000))) + "]"),
}
