"""Talk with a piece of music: a music encoder, one linear projection, a LLaMA.

    from musilingo_core import load_engine, user

    engine = load_engine("starter")
    clip = engine.encode("song.mp3")
    print(engine.reply([user("What do you hear?", clip.clip_id)]).text())

Names are fetched from their modules when they are first used, so importing the package is free.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from musilingo_core.audio import AudioLimits
    from musilingo_core.engine import ChatEngine, Reply, Said, load_engine
    from musilingo_core.errors import MusiLingoError
    from musilingo_core.features import Clip
    from musilingo_core.prompt import assistant, user
    from musilingo_core.sampling import Sampling

_HOMES = {
    "AudioLimits": "audio",
    "ChatEngine": "engine",
    "Clip": "features",
    "MusiLingoError": "errors",
    "Reply": "engine",
    "Said": "engine",
    "Sampling": "sampling",
    "assistant": "prompt",
    "load_engine": "engine",
    "user": "prompt",
}

__all__ = [
    "AudioLimits",
    "ChatEngine",
    "Clip",
    "MusiLingoError",
    "Reply",
    "Said",
    "Sampling",
    "assistant",
    "load_engine",
    "user",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
