"""What the aspects of a MusicCaps clip say of its tempo, moods, genres, instruments and voices.

Musicians wrote the aspects freely (13,219 different ones in 5,521 rows): a vocabulary recognises
most of them, and the rest is left alone. Where aspects contradict each other or the caption, there
is a reason instead of an answer.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

MOST = {"moods": 4, "genres": 3, "instruments": 8}  # named in one answer


@dataclass(frozen=True)
class Finding:
    """What is known about one topic.

    Attributes:
        words: Ready for a sentence, in the order of the aspects; empty when nothing is known.
        reason: Why nothing is.
    """

    words: tuple[str, ...] = ()
    reason: str = ""


UNNAMED = Finding(reason="no aspect names it")
CONFLICT = Finding(reason="aspects contradict each other")
AGAINST_CAPTION = Finding(reason="the caption says otherwise")


def _vocabulary(text: str) -> dict[str, str]:
    """From each spelling to its word; `word = spelling | spelling` or `word`, ended by `;`."""
    words: dict[str, str] = {}
    for entry in " ".join(text.split()).strip("; ").split(";"):
        word, _, spellings = (part.strip() for part in entry.partition("="))
        words |= dict.fromkeys(
            [word, *(s.strip() for s in spellings.split("|") if s.strip())], word
        )
    return words


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


TEMPOS = _vocabulary("""
    slow = slow tempo| slower tempo| low tempo| slightly slow tempo| sow tempo| slow song|
    slow paced; slow to medium = slow to medium tempo| slower to medium tempo| slow-medium tempo;
    medium = medium tempo| moderate tempo| mid tempo| mid-tempo| normal tempo| memdium tempo|
    memdiumm tempo| moderate tempo song; medium to fast = medium to uptempo| medium uptempo|
    medium/uptempo| mediumto uptempo| mideum to uptempo| medium fast tempo| medium to fast tempo|
    medium-fast tempo| medium fats tempo| almost fast tempo| medium fast; fast = fast tempo|
    uptempo| up tempo| faster tempo| high tempo| quick tempo| very fast tempo| rapid tempo|
    fats tempo| fast paced| fast-paced| fast song| fast tempo song| uptempo song;
    changing tempo = tempo changes| various tempos| varying tempos| variables tempos;
    rising tempo = tempo increases| increasing tempos| accelerated tempo
""")
_CAPTION_TEMPO = re.compile(
    r"\b(slow|medium|moderate|mid|up|fast|quick)(?:er)?[- ]?tempo"
    r"|\btempo (?:of \w+ \w+ )?is (?:a |very )?(slow|medium|moderate|fast)\b(?! (?:to|fast))"
)
_PACES = {"moderate": "medium", "mid": "medium", "up": "fast", "quick": "fast"}

# A bright mood contradicts a dark one, and a calm one a wild one.
BRIGHT = _words("""
    happy joyful cheerful fun playful upbeat uplifting festive jolly merry jovial cheery
    lighthearted positive sunny optimistic euphoric celebratory triumphant hopeful carefree funny
    humorous comedic victorious perky
""")
DARK = _words("""
    sad melancholic sombre gloomy depressing tragic mournful grim bleak dark sinister scary eerie
    spooky ominous creepy menacing dangerous frightening terrifying disturbing unsettling sorrowful
    lonely threatening horrifying
""")
CALM = _words("""
    calm calming relaxing relaxed soothing peaceful serene tranquil gentle meditative chill sleepy
    comforting
""")
WILD = _words("""
    energetic exciting intense aggressive thrilling vigorous manic chaotic violent angry furious
    frantic wild boisterous electrifying fiery
""")
OTHER = _words("""
    emotional passionate romantic sentimental soulful nostalgic hypnotic mysterious dramatic epic
    inspiring motivational heartfelt spirited youthful vivacious enthusiastic suspenseful tense
    psychedelic trippy ethereal mystical spiritual devotional sensual seductive reflective pensive
    contemplative rebellious heroic majestic solemn serious whimsical quirky magical enchanting
    haunting poignant dreamy mellow easygoing lively animated vibrant buoyant powerful
    tender intimate warm wistful inspirational enigmatic mesmerising celestial longing adventurous
    prayerful touching weird introspective
""")
_MOOD_NOUNS = _vocabulary("""
    suspenseful = suspense; tense = tension; nostalgic = nostalgia; sad = sadness;
    melancholic = melancholy; mysterious = mystery; lonely = loneliness; tranquil = tranquility;
    festive = festivities; lighthearted = light-hearted; easygoing = easy going
""")
_MOOD_FRAME = re.compile(r" (?:mood|feel|feeling|vibes?|atmosphere|energy|music|song|tune)$")

GENRES = _vocabulary("""
    rock and roll = rock&roll| rock & roll| rock n roll| rock-n-roll; hip-hop = hip hop| hiphop;
    R&B = r&b| rnb; EDM = edm; electronic dance music = electronic dance;
    drum and bass = drum & bass| drum&bass| drum n bass;
    Western classical music = western classical; Indian classical music = indian classical|
    hindustani classical; Carnatic music = carnatic; Latin music = latin; Latin pop = latin pop;
    Latin dance music = latin dance; Latin jazz = latin jazz; Arabic music = arabic;
    Middle Eastern music = middle eastern; Celtic music = celtic; K-pop = k-pop| kpop;
    J-pop = j-pop; regional Mexican music = regional mexican; Bollywood music = bollywood;
    Christmas music = christmas; Christian music = christian; Afrobeat = afrobeat| afrobeats;
    children's music = children’s song| children's song| children song| kids song| kids music|
    children’s music| children's songs| children’s songs; classical music = classical;
    dance music = dance; world music = world; devotional music = devotional;
    meditation music = meditation; video game music = video game; electronic music = electronic|
    electronica; ambient music = ambient; traditional music = traditional;
    baroque music = baroque; experimental music = experimental; folk = folkmusic;
    new age music = new age; goth rock = gothic rock; chamber music = chamber;
    orchestral music = orchestral; alternative rock; trance; big band music = big band; electro;
    rock; pop; jazz; blues; metal; heavy metal; hard rock; soft rock; pop rock; indie rock;
    punk rock; classic rock; progressive rock; blues rock; folk rock; country rock; funk rock;
    psychedelic rock; southern rock; surf rock; punk; pop punk; death metal; speed metal;
    alternative metal; progressive metal; nu-metal; country; country pop; bluegrass;
    country blues; indie pop; synth pop; electro pop; dance pop; disco pop; teen pop; soul;
    neo soul; funk; gospel; reggae; reggaeton; dub; dubstep; ska; dancehall; techno; house;
    deep house; hardstyle; disco; trap; rap; breakbeat; swing; smooth jazz; jazz fusion;
    bossa nova; salsa; samba; tango; bachata; flamenco; polka; opera; grunge;
    easy listening music = easy listening; chiptune; folk pop; rocksteady; ragtime
""")
_GENRE_FRAME = re.compile(r" (?:music|songs?|hits?|genre|tunes?|track)$")

# A plural needs no entry. What `-` stands for is no instrument.
_INSTRUMENTS = _vocabulary("""
    - = drum & bass| drum and bass| drum n bass| air guitar| car horn| computer keyboard|
    string bending| guitar string| bass voice| bass singer| bass drop| vocal drum|
    vocal percussion| vocal turn table| synth choir| synth vocal| synth pop| synth rock|
    brass bell| shell trumpet| french harp| mouth harp| jaw harp| mouth organ|
    string instrument| lute family| drum sticks| bass player| bass note;
    synth bass = synthesizer bass| synthesiser bass| bass synth; synth pads = synth pad|
    synthesizer pad; synthesizer = synth| synthesiser| synthesized| synthesised| synth lead|
    synth strings| synth keys| synth brass| synth pluck| synth bell| synth piano| synth flute|
    synth organ| synth horn| synth drum; electric guitar = e-guitar| distorted guitar|
    distortion guitar| distorted electric guitar| overdriven guitar;
    acoustic guitar = acoustic rhythm guitar; bass guitar; guitar; bass = bassline;
    electric bass = e-bass| electric bass guitar; double bass = upright bass| string bass|
    acoustic bass| contrabass; steel guitar = pedal steel guitar; slide guitar; bass drum;
    sub-bass = sub bass; bass clarinet; electric piano = e-piano; piano; organ; keyboard;
    harpsichord = cembalo; accordion = accordeon| acordion; harmonium;
    string section = strings section| string orchestra; string quartet; strings; violin; viola;
    viola da gamba; cello = celli; fiddle; autoharp = auto harp; harp; banjo; mandolin;
    ukulele = ukelele| ukele;
    sitar = zitar; oud; lute; zither; dulcimer; guzheng; koto; erhu; sarangi; veena; tanpura;
    qanun; dobro; bansuri = bansuri flute; pan flute; flute = bass flute; clarinet; oboe; bassoon;
    saxophone = sax; trumpet; trombone; tuba; French horn = french horn; horns = horn section;
    brass = brass section| brass instrument| brass ensemble| brass band; woodwinds = woodwind|
    wood wind; harmonica; bagpipes = bagpipe; didgeridoo; recorder; theremin;
    steel drums = steel drum| steeldrum| steel pan; drum machine = digital drum machine;
    acoustic drums = acoustic drum| acoustic drumming;
    electronic drums = electronic drum| electronic drumming;
    digital drums = digital drum| digital drumming; snare drum = snare; kick drum = kick;
    bongos = bongo| bongo drum; drums = drum| drumming| drum kit| drum set; congas = conga;
    djembe; tabla; dhol; dholak; cajon; timpani = timpanis; timbales = timbale; toms = tom;
    tambourine; shaker; maracas = maraca; cowbell; triangle; hi-hats = hi hat| hihat| hi-hat;
    cymbals = cymbal; percussion; singing bowls = singing bowl; bells = bell; chimes = chime;
    xylophone; marimba; vibraphone; glockenspiel; music box; gongs = gong; castanets;
    turntables = turntable| turn table; orchestra
""")
_INSTRUMENT = re.compile(
    rf"\b({'|'.join(re.escape(s) for s in sorted(_INSTRUMENTS, key=len, reverse=True))})s?\b(?!-)"
)
_UNLIKE = {"bass guitar", "steel drums"}  # where there is one, there may be a guitar or drums, too
_NOT_PLAYED = re.compile(
    r"\bno\b|without|\blike\b|-like|imitat|mimick|simulat|effect|noise|sample|\bamp\b|amplifier"
    r"|tuning|tuner|church bell|tapping"
)
_DRUMS = _words("""
    drums percussion toms bongos congas djembe tabla cajon timpani timbales shaker tambourine
    maracas cymbals hi-hats dhol dholak
""")

_NO_VOICE = frozenset(
    _vocabulary("""
    no voices; no voice; no singer; no singers; no vocals; no vocal melody; instrumental;
    instrumental music; instrumental song
""")
)
_VOICE = re.compile(
    r"(?:.* )?(?P<who>male|female) (?:lead )?(?P<what>singers?|vocalists?|vocals?|rappers?|narrator"
    r"|choir|voices?(?: (?:singing|rapping|speaking|talking|screaming|chanting))?)"
)
_BACKING = re.compile(
    r"(?:.*? )??((?:fe)?male )?"
    r"(?:(?:backing|background|backup) (?:vocal|voice|singer)s?|vocal backup)"
)
_USES_VOICE = re.compile(
    r"\b(?:sing(?:s|ers?|ing(?! bowl))?|sung|vocal\w*|voices?|choirs?|chant\w*|rap(?:s|per|ping)?"
    r"|yodel\w*)\b"
)
_DENIES_VOICE = re.compile(
    r"\b(?:no|any|without)(?: \w+)? (?:voices?|singers?|vocals?|singing|vocalists?)\b"
)


def _plain(aspects: Iterable[str]) -> list[str]:
    """In lower case, with single spaces, without repetition."""
    return list(dict.fromkeys(" ".join(aspect.lower().split()) for aspect in aspects))


def find_tempo(aspects: Iterable[str], caption: str) -> Finding:
    """One word, or none when aspects or the caption disagree."""
    found = list(dict.fromkeys(TEMPOS[a] for a in _plain(aspects) if a in TEMPOS))
    if len(found) != 1:
        return CONFLICT if found else UNNAMED
    for words in _CAPTION_TEMPO.findall(caption.lower()):
        pace = "".join(words)
        if _PACES.get(pace, pace) not in found[0].split():
            return AGAINST_CAPTION
    return Finding(tuple(found))


def find_moods(aspects: Iterable[str]) -> Finding:
    """Adjectives."""
    found: dict[str, str] = {}
    for aspect in _plain(aspects):
        mood = _MOOD_FRAME.sub("", aspect)
        mood = _MOOD_NOUNS.get(mood, mood)
        if any(mood in group for group in (BRIGHT, DARK, CALM, WILD, OTHER)):
            found.setdefault(mood[:4], mood)  # calm and calming are one
    moods = set(found.values())
    if (moods & BRIGHT and moods & DARK) or (moods & CALM and moods & WILD):
        return CONFLICT
    return Finding(tuple(found.values())[: MOST["moods"]]) if found else UNNAMED


def find_genres(aspects: Iterable[str]) -> Finding:
    """Nouns, without `rock` where there is `hard rock`."""
    found: dict[str, None] = {}
    for aspect in _plain(aspects):
        for part in (aspect, *aspect.split("/")):
            genre = GENRES.get(part) or GENRES.get(_GENRE_FRAME.sub("", part))
            found |= {genre: None} if genre else {}
    genres = [g for g in found if not any(o.endswith(f" {g}") for o in found)]
    return Finding(tuple(genres[: MOST["genres"]])) if genres else UNNAMED


def find_instruments(aspects: Iterable[str]) -> Finding:
    """Names without article, without `guitar` where there is `acoustic guitar`."""
    plain = _plain(aspects)
    played = [aspect for aspect in plain if not _NOT_PLAYED.search(aspect)]
    found = dict.fromkeys(_INSTRUMENTS[m[1]] for a in played for m in _INSTRUMENT.finditer(a))
    found.pop("-", None)
    if {"bass guitar", "electric bass"} & set(found):
        found.pop("bass", None)
    names = [n for n in found if not any(o.endswith(f" {n}") for o in set(found) - _UNLIKE)]
    drumless = any(aspect.startswith(("no percus", "no drum")) for aspect in plain)
    alone = any(aspect.startswith(("no instrument", "no accomp", "acapella")) for aspect in plain)
    if names and (
        alone
        or (drumless and any(_DRUMS & set(name.split()) for name in names))
        or ("single instrument" in plain and len(names) > 1)
    ):
        return CONFLICT
    return Finding(tuple(names[: MOST["instruments"]])) if names else UNNAMED


def find_voices(aspects: Iterable[str], caption: str) -> Finding:
    """Who is heard, with articles; `no …` or `instrumental` where nobody is."""
    plain, caption = _plain(aspects), caption.lower()
    silent = [aspect for aspect in plain if aspect in _NO_VOICE]
    voiced = [
        aspect for aspect in plain if not aspect.startswith("no ") and aspect not in _NO_VOICE
    ]
    if silent:
        if any(map(_USES_VOICE.search, voiced)):
            return CONFLICT
        if _USES_VOICE.search(_DENIES_VOICE.sub("", caption)):
            return AGAINST_CAPTION
        denied = next((aspect for aspect in silent if aspect.startswith("no ")), "instrumental")
        return Finding(("no singer" if "singer" in denied else denied,))
    found = _voices(voiced)
    named = set(re.findall(r"\b(?:fe)?male\b", caption))
    if named and not set(re.findall(r"\b(?:fe)?male\b", " ".join(found))) <= named:
        return AGAINST_CAPTION
    return Finding(found) if found else UNNAMED


def _voices(aspects: Iterable[str]) -> tuple[str, ...]:
    """The most telling description for each sex and use of the voice."""
    best: dict[tuple[str, str], str] = {}
    for aspect in aspects:
        if re.search(r"sample|effect|like|laugh|chipmunk|\band\b", aspect):
            continue
        if backing := _BACKING.fullmatch(aspect):
            who = backing[1] or ""
            best[who, "backing"] = f"{who}backing vocals"
        elif aspect in ("choir", "children's choir"):
            best["", "choir"] = f"a {aspect}"
        elif match := _VOICE.fullmatch(aspect):
            who, what = match["who"], match["what"]
            spoken = re.search(r"rap|narr|choir|speak|talk|scream|chant", what)
            use = spoken[0] if spoken else "song"
            plural = what.split()[0].endswith("s")
            words = f"{who} vocals" if what == "vocal" else f"{'' if plural else 'a '}{who} {what}"
            best[who, use] = max(best.get((who, use), ""), words, key=len)
    if any(who and use == "backing" for who, use in best):
        best.pop(("", "backing"), None)
    return tuple(best.values())
