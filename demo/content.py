"""Every word a visitor reads; no layout, no logic but filling in numbers and names."""

from musilingo_core.times import clock

TITLE = "MusiLingo"
TAGLINE = "Drop a song. Talk about it."

# The song
SONG_LABEL = "Your song"
SONG_DROP = "Drop a song here, click to choose one, or record with the microphone"
SONG_REMOVE = "Remove the song"
SONG_NONE = "No song yet"
SONG_FORMATS = "WAV, FLAC, MP3, OGG, Opus or M4A; up to {minutes} minutes and {megabytes:,} MB"
SONG_WAITING = "Your song is kept and will be heard as soon as the model is ready"
SONG_IN_LINE = "Your song will be heard in a moment"
SONG_PUT_OFF = "Too many visitors are waiting; your song is kept and heard with your next question"
SONG_KEPT = "Your song is kept and heard with your next question."
SONG_FAULT = "A fault in the program kept this song from being heard; please try another file"
LISTENING = "Listening: {percent} %"
HEARD = "heard 0:00–{heard} of {duration}"
FILE_TOO_BIG = "“{name}” has {size} MB and the limit is {limit} MB; please choose a smaller file."
EXAMPLES_TITLE = "Or try one of these"

# The conversation
CHAT_LABEL = "Conversation"
EMPTY_TITLE = "Ask anything about the song"
EMPTY_TEXT = "Add a song, then ask. Each question may build on the one before."
QUESTION_LABEL = "Your question"
EDIT_LABEL = "Change this question"
QUESTION_HINT = "Ask about the song …"
SEND = "Send"
STOP = "Stop"
NEW_CONVERSATION = "New conversation"
SUGGESTIONS_TITLE = "Questions to start with"
SUGGESTIONS = (
    "Describe this song.",
    "Which instruments do you hear?",
    "What mood does it have?",
    "Is it slow or fast?",
    "Is there a singer?",
    "What happens at 0:30?",
)

# Notices
NO_SONG = "Add a song first: drop a file, record one, or try an example. Your question stays here."
NO_QUESTION = "Type a question first, or choose one below."
QUESTION_TOO_LONG = "This question has {length:,} characters; please keep it under {limit:,}."
ASKED_EARLY = (
    "Add a song: drop a file, record one, or try an example. The answer comes right after."
)
STILL_LOADING = "The model is still getting ready; the answer comes right after"
NOT_LOADED = "The model could not be loaded, so there is no answer yet. Your question stays here."
THINKING = "Thinking"
STILL_LISTENING = "Still listening to the song; the answer comes right after"
IN_LINE = "Others are before you; yours is{place} in line and starts by itself …"
QUEUE_FULL = "Too many visitors are waiting at the moment; please send your question again later."
NEW_SONG = "New song, new conversation. The earlier one has ended."
SONG_REMOVED = "The song was removed and the conversation about it has ended."
CLEARED = "New conversation about the same song."
SONG_GONE = "The page was restarted and no longer has this song; add it again to go on."
STOPPED = "Stopped."
EMPTY_ANSWER = "The model had nothing to say to that. Try again, or ask in other words."
ANSWER_FAULT = "The answer ended because of a fault in the program; please ask again."
DROPPED_TURNS = (
    "The conversation has grown long: the oldest turn no longer fits and was left out.",
    "The conversation has grown long: the {count} oldest turns no longer fit and were left out.",
)

# Starting up
LOADING = "Getting the model ready"
LOADING_LINE = "{message} … {percent} %"
LOADING_LINE_UNKNOWN = "{message} …"
LOADING_NOTE = "You can add your song and type already; nothing is lost."
LOADING_FAILED = "The model could not be loaded"
LOADING_BROKE = (
    "Loading stopped because of a fault in the program; the server's log has the details."
)
TRY_AGAIN = "Try again"

# How answers are chosen
SAMPLING_TITLE = "How answers are chosen"
TEMPERATURE = ("Temperature", "0 always takes the likeliest word; higher varies more")
TOP_P = ("Top-p", "Only the likeliest words that together reach this share")
TOP_K = ("Top-k", "Only this many of the likeliest words; 0 is no limit")
REPETITION_PENALTY = ("Repetition penalty", "Above 1, words already used become less likely")
MAX_NEW_TOKENS = ("Longest answer", "In tokens; a token is about three quarters of a word")
SEED = ("Seed", "The same seed gives the same answer; leave empty for chance")
SEED_OUT_OF_RANGE = "The seed must be a whole number from 0 to {highest:,}, or empty."

# The foot
CAVEAT = "Answers come from a model and may be wrong."
PRIVACY = "Songs stay on this server and are deleted within an hour; nothing is sent elsewhere."
MODELS = "Model “{name}”"
LICENCES_TITLE = "Models and licences"
THEME_TOGGLE = "Light or dark"


def heard(heard_s: float, duration_s: float) -> str:
    """What part of a song was heard, both in seconds: ``heard 0:00–3:42 of 3:42``."""
    return HEARD.format(heard=clock(heard_s), duration=clock(duration_s))


def listening(fraction: float) -> str:
    """How much of the song has been heard, `fraction` from 0 to 1."""
    return LISTENING.format(percent=percent(fraction))


def loading(message: str, fraction: float | None) -> str:
    """What is being loaded and how much of it is there."""
    if fraction is None:
        return LOADING_LINE_UNKNOWN.format(message=message.rstrip(" .…"))
    return LOADING_LINE.format(message=message.rstrip(" .…"), percent=percent(fraction))


def dropped_turns(count: int) -> str:
    """Says that `count` oldest turns no longer fitted; "" for none."""
    if not count:
        return ""
    return DROPPED_TURNS[0] if count == 1 else DROPPED_TURNS[1].format(count=count)


def percent(fraction: float) -> int:
    """A fraction as whole per cent, kept between 0 and 100."""
    return max(0, min(100, int(fraction * 100)))
