"""House numbers in addresses, as a dozen languages write them: the street may stay, the number goes."""

import re
from collections.abc import Iterator

from bb3x_ray.data.pii.found import Found

# no house has a number that begins with 0: our replacements do, and a second look leaves them
_NUMBER = r"(?P<number>[1-9]\d{0,4}(?:\s?[-/]\s?\d{1,4})?(?:(?:[a-zA-Z]|\s[a-dA-D])(?![\w'’]))?)"
_CAP = r"[A-ZÀ-ÖØ-ÞŁŚŻĄĆĘŃÓŹČŠŽĐŐŰİĞŞ]"
_NAME = rf"{_CAP}[\w.'’-]*"

_ENGLISH = (
    r"street|str|st|road|rd|avenue|ave|av|lane|ln|drive|dr|boulevard|blvd|court|ct|crescent|cres|terrace|"
    r"place|pl|square|sq|parkway|pkwy|highway|hwy|gardens|gdns|grove|mews|circle|cir|trail|alley|walk|quay|"
    r"wharf|esplanade|close|way|row|hill|loop|turnpike|plaza|heights|vale|rise|cross|marg|nagar|"
    r"colony|layout|"
    r"main|chowk|bazaar|green|park|view"
)
_BEFORE = re.compile(
    rf"(?<![\w$€£#.:/-])#?{_NUMBER},?\s+(?P<name>(?:(?:[NSEW]|North|South|East|West|St|Saint|Old|New|"
    rf"Upper|Lower|"
    rf"the|of|de|la|el|\d{{1,3}}(?:st|nd|rd|th)|{_NAME})\.?\s+){{1,4}}?)(?P<kind>(?i:{_ENGLISH}))\b\.?"
)
_BEFORE_LOWER = re.compile(
    rf"(?<![\w$€£#.:/-])#?{_NUMBER},?\s+(?P<name>(?:[a-z][a-z'’-]+\s+|\d{{1,3}}(?:st|nd|rd|th)\s+){{1,3}}?)"
    r"(?P<kind>street|road|avenue|ave|lane|drive|boulevard|blvd|crescent|terrace|parkway|close|rd|st|"
    r"court|ct|"
    r"dr|ln|grove|gardens|square|place|way)\b",
    re.IGNORECASE,
)
# "5 people down the road", "a 2 hour drive", "4 lane highway": no address has these words before its kind
_NOT_A_STREET = frozenset(
    "a across after ago all along an and any around as at away bad before best big block blocks bloody "
    "bucks but by car cars cats children city day days dirt dogs dollar dollars door doors down driving "
    "each every few feet first for friends from fun girls good great guys had half has have he her hour "
    "hours houses hr hrs i if in into is it kids kilometers kilometres km km's lane lanes last left "
    "light long lot maybe men mile miles min mins minute minutes month months more most my near next "
    "night nights not of off on one or other our out over people percent person per players points "
    "pounds public right rounds scenic second seconds she short so some steps stories story straight "
    "than that the their them then there these they third this those time times to tracks up us walking "
    "was way ways we week weeks were when which while wide will with women wrong year years you your "
    "yards am pm each easy hard safe only possible sure which whichever many much crazy different "
    "better slow fast tough steep quick free safest fastest".split()
)
_FAMOUS = frozenset(
    "10 downing|11 downing|21 jump|221b baker|10 cloverfield|1600 pennsylvania|4 privet|42 wallaby|"
    "1313 mockingbird|124 conch|742 evergreen|12 grimmauld|1428 elm|30 rockefeller|84 charing cross".split(
        "|"
    )
)
_LIVES = re.compile(
    r"\b(?:at|address|adress|liv(?:e|es|ed|ing)|located|deliver\w*|send|ship\w*|house|home|place|apartment|apt|"
    r"flat|visit|moved?|moving|near|reside\w*|corner|staying|born|grew\s+up|come|meet)\b[\w\s,:'’]{0,24}$|[:(]\s*$",
    re.IGNORECASE,
)

# a text may begin with these and no other word of it speak of an address; "4 corners place mats" is none
_ONLY_STREETS = frozenset("street road avenue ave lane boulevard blvd crescent terrace parkway rd".split())
_YEAR = re.compile(r"19\d\d|20[0-3]\d")
_OF_TIME = re.compile(r"\b(?:in|since|from|by|until|of)\s+$", re.IGNORECASE)

_GERMANIC = re.compile(
    rf"(?<![\w-])(?P<name>{_CAP}[\w-]{{2,}}(?:straße|strasse|str\.|weg|platz|allee|gasse|damm|straat|"
    rf"gracht|laan|plein|"
    rf"kade|singel|steeg|gatan|gata|vägen|veien|vegen|(?<!bri)(?<!rene)gade|vej|katu|tie)|"
    rf"{_CAP}[\w-]+-(?:Straße|Strasse|Str\.|Weg|Platz|Allee|Gasse|Damm|Ring|Ufer)|"
    rf"(?:{_NAME}\s+){{1,2}}(?:Straße|Strasse|Str\.|Weg|Platz|Allee|Gasse|Damm|Ring|Ufer|[Gg]ate|"
    rf"[Vv]ei|[Pp]lads)|"
    rf"(?:(?<=[Ww]ohne )|(?<=[Aa]dresse )|(?<=[Aa]dresse: )|(?<=[Aa]nschrift: ))"
    rf"(?:Am|An der|An den|Im|In der|In den|Zum|Zur|Auf dem|Auf der|Unter den)\s+{_NAME}|"
    rf"(?i:[a-zäöü]{{3,}}(?:straße|strasse|straat|gracht|gatan)))\s+{_NUMBER}(?![\w:%€$£]|[.,]\d)"
)
_STREET_FIRST = re.compile(
    r"(?<!\w)(?P<name>"
    r"(?:(?i:calle|c/|avenida|avda\.?|paseo|plaza|carrera|cra\.?|rua|travessa|praça|alameda|largo)|Av\.|"
    r"Via|[Ii]n via|Viale|Piazza|Piazzale|Corso|Vicolo|Largo|Strada|Strada|Bulevardul|Str\.|"
    r"(?i:ul\.|ulica|ulicy|al\.|aleja|os\.|pl\.|ул\.|улица|улице|проспект|просп\.|пр\.|пер\.|вул\.|"
    r"вулиця|οδός|οδο[ςύ]))"
    rf"\s+(?:(?:de|del|da|do|das|dos|della|delle|dei|degli|di|d'|la|las|los|el|san|santa|im\.|św\.)\s*)*"
    rf"(?:[A-ZÀ-ÖØ-ÞŁŚŻĆŹČŠА-ЯЁІЇЄΑ-Ω][\w.'’-]*)(?:\s+(?:de|del|da|do|della|di|e|y|{_NAME}|"
    rf"[А-ЯЁ]\w+)){{0,4}}?)"
    rf",?\s+(?:(?i:n\.?[º°o]?\.?|nº|no\.|núm\.?|numero|número|nr\.?|д\.|дом|"
    rf"#)\s*)?{_NUMBER}(?![\w:%€$£]|[.,]\d)"
)
_FRENCH = re.compile(
    r"(?<![\w$€£#.:/-])(?P<number>[1-9]\d{0,3}(?:\s?[a-dA-D](?!\w)|\s?(?:bis|ter|quater))?),?\s+(?P<name>"
    r"(?i:rue|chemin|impasse|allée|quai|boulevard|bd\.?|avenue|av\.|ruelle|passage|faubourg|sentier)\s+"
    r"(?:(?i:de|du|des|la|le|les|l['’]|d['’])\s*)*\w[\w'’-]*|(?i:place|cours|route|square)\s+(?i:de|"
    r"du|des)\s+\w+)"
)


# quick looks that pass over what those two, which may begin at any letter, would take long for
_GERMANIC_HINTS = (
    "straße strasse str. weg platz allee gasse damm straat gracht laan plein kade singel steeg gatan gata "
    "vägen veien vegen gade vej katu tie ring ufer gate vei plads wohne adresse anschrift"
).split()
_FIRST_HINTS = (
    "calle c/ aven avda paseo plaza carrera cra rua travessa praça alameda largo av. via piazz corso vicolo "
    "strada bulevardul str. ul. ulic al. alej os. pl. ул просп пр. пер. вул οδ"
).split()


def find(text: str) -> Iterator[Found]:
    """The numbers of the houses."""
    for pattern in (_FRENCH, _BEFORE):
        for match in pattern.finditer(text):
            if not _is_ordinary(text, match):
                yield _found(match)
    for match in _BEFORE_LOWER.finditer(text):
        leads = not text[: match.start()].strip(" \"'(") and match["kind"].lower() in _ONLY_STREETS
        lives = _LIVES.search(text, max(0, match.start() - 48), match.start())
        if (leads or lives) and not _is_ordinary(text, match):
            yield _found(match)
    lower = text.lower()
    for pattern, hints in ((_GERMANIC, _GERMANIC_HINTS), (_STREET_FIRST, _FIRST_HINTS)):
        if any(hint in lower for hint in hints):
            yield from map(_found, pattern.finditer(text))


def _is_ordinary(text: str, match: re.Match[str]) -> bool:
    """Miles of road, lanes of highway, a film."""
    words = re.findall(r"[^\W\d_]+", match["name"].lower())
    if _YEAR.fullmatch(match["number"]) and not _LIVES.search(
        text, max(0, match.start() - 48), match.start()
    ):
        kind = match.groupdict().get("kind") or ""  # "a 1970 Plymouth road runner"
        if kind.islower() or _OF_TIME.search(text, max(0, match.start() - 8), match.start()):
            return True
    if not words and not re.search(r"\d", match["name"]):
        return True
    if f"{match['number'].lower()} {' '.join(words)}" in _FAMOUS:
        return True
    if match["name"].strip() == "The" and match["kind"].istitle():
        return False  # "14 The Green"
    return "kind" in match.re.groupindex and not _NOT_A_STREET.isdisjoint(words)


def _found(match: re.Match[str]) -> Found:
    street = " ".join(match["name"].lower().split())
    return Found("street_number", *match.span("number"), f"{match['number'].lower()} {street}")
