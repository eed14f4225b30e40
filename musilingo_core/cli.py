"""The command line: `musilingo ask`, `choose`, `encode`, `build-data`, `train`, `evaluate` ….

Results go to stdout, progress and notes to stderr. Bad input ends with exit code 2 and one line.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musilingo_core.errors import ConfigError, MusiLingoError, UnreadableAudio
from musilingo_core.forms import prompt_forms
from musilingo_core.models import PRESETS, Source, find_preset
from musilingo_core.sampling import Sampling

if TYPE_CHECKING:
    from musilingo_core.audio import AudioLimits
    from musilingo_core.engine import ChatEngine
    from musilingo_core.schedule import TrainingConfig
    from musilingo_core.verification import Check

BAD_INPUT = 2  # exit code
DEVICES = "auto, cpu, cuda …"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; gives the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(words)
    options.words = words
    try:
        _be_quiet()
        run: Callable[[argparse.Namespace], int] = options.run
        return run(options)
    except (MusiLingoError, OSError) as error:  # OSError: a place that cannot be read or written
        print(f"musilingo: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="musilingo",
        description="Talk with a piece of music.",
        epilog=_licences(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    ask = commands.add_parser("ask", help="ask questions about a song, one after the other")
    ask.add_argument("song", type=Path, metavar="SONG")
    ask.add_argument("questions", nargs="+", metavar="QUESTION")
    _song_options(ask)
    _model_options(ask)
    ask.add_argument(
        "--temperature",
        type=float,
        help=f"0 always takes the likeliest word (default: {Sampling.temperature})",
    )
    ask.add_argument("--seed", type=int, help="same seed, same text")
    ask.add_argument(
        "--max-new-tokens",
        type=int,
        help=f"longest answer (default: {Sampling.max_new_tokens})",
    )
    ask.add_argument("--json", action="store_true", help="one JSON object a turn on stdout")
    ask.set_defaults(run=_ask)

    choose = commands.add_parser("choose", help="find the likeliest of some answers")
    choose.add_argument("song", type=Path, metavar="SONG")
    choose.add_argument("question", metavar="QUESTION")
    choose.add_argument("--options", nargs="+", required=True, metavar="ANSWER")
    choose.add_argument(
        "--raw", action="store_true", help="keep what is likely without any music, too"
    )
    _song_options(choose)
    _model_options(choose)
    choose.add_argument("--json", action="store_true", help="one JSON object on stdout")
    choose.set_defaults(run=_choose)

    encode = commands.add_parser("encode", help="write a song's features to a file")
    encode.add_argument("song", type=Path, metavar="SONG")
    encode.add_argument("--output", type=Path, required=True, metavar="FILE.safetensors")
    encode.add_argument("--encoder", metavar="DIR|NAME", help="instead of the preset's")
    encode.add_argument("--preset", default="starter", help="whose encoder hears")
    encode.add_argument("--device", default="auto", help=DEVICES)
    _song_options(encode)
    encode.set_defaults(run=_encode)

    check = commands.add_parser("verify", help="run a fixed clip through every stage of a model")
    check.add_argument("--json", action="store_true", help="one JSON object a line")
    _model_options(check)
    check.set_defaults(run=_verify)

    compact = commands.add_parser("convert", help="make a published checkpoint compact")
    compact.add_argument("checkpoint", metavar="DIR|NAME", help="as its authors publish it")
    compact.add_argument("--output", type=Path, required=True, metavar="DIR")
    for part, what in (("encoder", "MERT"), ("language-model", "LLaMA")):
        compact.add_argument(
            f"--{part}",
            metavar="DIR|NAME",
            help=f"where its {what} is kept; else it is written, too",
        )
    compact.set_defaults(run=_convert)

    build = commands.add_parser("build-data", help="make training and test data")
    _build_parsers(build.add_subparsers(required=True, metavar="WHAT"))

    train = commands.add_parser("train", help="train the projection from a manifest")
    train.add_argument("manifest", type=Path, metavar="MANIFEST")
    train.add_argument("--output", type=Path, required=True, metavar="DIR")
    train.add_argument("--config", type=Path, metavar="TOML", help="settings of a stage")
    train.add_argument("--start", type=Path, metavar="FILE", help="a projection to go on from")
    train.add_argument("--push-to-hub", metavar="NAME/REPOSITORY", help="share what was learnt")
    train.add_argument("--tracker", metavar="PROJECT", help="show the run in trackio, too")
    train.add_argument(
        "--features", type=Path, metavar="DIR",
        help="where what was heard is kept, for several runs (default: in --output)",
    )  # fmt: skip
    _song_options(train)
    _model_options(train, learns=True)
    for name, default in _training_defaults().items():
        flag = f"--{name.replace('_', '-')}"
        train.add_argument(flag, type=type(default), help=f"default: {default}")
    train.set_defaults(run=_train)

    score = commands.add_parser("evaluate", help="ask about test clips and score the answers")
    score.add_argument("data", type=Path, metavar="DATA", help="manifest, options, or MuChoMusic")
    score.add_argument("--output", type=Path, required=True, metavar="DIR")
    score.add_argument("--split", default="test", help="of a manifest (default: test)")
    score.add_argument("--sounds", type=Path, metavar="DIR", help="where the data names none")
    score.add_argument("--controls", nargs="*", metavar="NAME", help="other than the right song")
    score.add_argument("--limit", type=int, help="most questions, drawn at random")
    score.add_argument(
        "--generate", action="store_true", help="put options into the prompt, too, and read answers"
    )
    score.add_argument("--bert", metavar="NAME", help="model of BERTScore")
    score.add_argument("--bert-layer", type=int, help="whose output is compared")
    score.add_argument("--seed", type=int, default=0)
    score.add_argument("--json", action="store_true", help="the figures as JSON")
    _model_options(score)
    score.set_defaults(run=_evaluate)

    table = commands.add_parser("table", help="make one table of several evaluations")
    table.add_argument("runs", type=Path, nargs="+", metavar="DIR", help="of `evaluate`")
    table.add_argument("--json", action="store_true")
    table.set_defaults(run=_table)
    return parser


def _build_parsers(kinds: Any) -> None:
    """What `build-data` can make: the published sets, MusicInstruct anew, the starter's data."""

    def kind(name: str, run: Callable[[argparse.Namespace], Any], what: str) -> Any:
        parser = kinds.add_parser(name, help=what)
        parser.add_argument("--output", type=Path, required=True, metavar="DIR")
        parser.add_argument("--json", action="store_true", help="the report as JSON")
        parser.set_defaults(run=lambda options: _report(run(options), options.json))
        return parser

    def published(parser: Any, files: str, nargs: str | None = None) -> None:
        parser.add_argument("files", type=Path, metavar=files, nargs=nargs)
        sounds = parser.add_mutually_exclusive_group(required=True)
        sounds.add_argument("--sounds", type=Path, metavar="DIR", help="sound files, named by id")
        sounds.add_argument("--no-sounds", action="store_true", help="keep every row, for its text")
        parser.add_argument(
            "--beside", type=Path, nargs="*", default=[], metavar="MANIFEST",
            help="used together with it: no clip may be in two splits",
        )  # fmt: skip

    def validated(parser: Any) -> None:
        parser.add_argument(
            "--validation", type=float, default=0.02, help="share of training clips held out"
        )

    captions = kind("lp-musiccaps", _build_lp_musiccaps, "captions of LP-MusicCaps-MSD")
    published(captions, "DATA_DIR")
    captions.add_argument("--captions", nargs="+", default=["writing"], metavar="KIND")
    captions = kind("musiccaps", _build_musiccaps, "captions of MusicCaps")
    published(captions, "CSV")
    captions.add_argument("--instruction", default=None, help="asked about each clip; may be empty")
    validated(captions)
    pairs = kind("music-instruct-published", _build_music_instruct, "MusicInstruct as published")
    published(pairs, "JSON", "+")
    validated(pairs)
    pairs = kind("musicqa", _build_musicqa, "MusicQA")
    published(pairs, "JSON", "+")
    validated(pairs)

    again = kind("music-instruct", _write_music_instruct, "MusicInstruct anew, from MusicCaps")
    again.add_argument("table", type=Path, metavar="CSV", help="of MusicCaps")
    again.add_argument("--model", help="of an OpenAI-compatible endpoint; without it, from aspects")
    again.add_argument("--base-url", help="of the endpoint (default: $OPENAI_BASE_URL, or OpenAI)")
    again.add_argument("--key-variable", help="environment variable that holds the key")
    again.add_argument("--kinds", nargs="+", choices=["short", "long"])
    for name, what in (
        ("pairs", "wanted of each clip and kind"),
        ("attempts", "how often a clip is asked about"),
        ("threads", "requests at a time"),
        ("retries", "of a request that was refused for load or failed"),
        ("max-rows", "of the table"),
    ):
        again.add_argument(f"--{name}", type=int, help=what)
    again.add_argument("--timeout-s", type=float, help="of a request")
    again.add_argument("--max-cost", type=float, help="where to stop")
    again.add_argument("--input-price", type=float, help="of a million tokens")
    again.add_argument("--output-price", type=float, help="of a million tokens")

    scores = kind("scores", _build_scores, "exact questions about rendered scores and no music")
    scores.add_argument("--rendered", type=Path, nargs="*", default=[], metavar="MANIFEST")
    scores.add_argument("--not-music", type=Path, nargs="*", default=[], metavar="MANIFEST")
    scores.add_argument(
        "--heard", nargs="*", required=True, metavar="ATTRIBUTE",
        help="what may be named: names, `all`, or a probe.json of benchmarks.probe; about all else "
        "the answer is “I cannot tell”",
    )  # fmt: skip
    scores.add_argument("--questions", type=int, default=6, help="most of them about a clip")
    scores.add_argument("--seed", type=int, default=0)

    starter = kind("starter", _build_starter, "the starter's training data")
    starter.add_argument("--music", type=Path, nargs="+", required=True, metavar="MANIFEST")
    starter.add_argument("--rendered", type=Path, nargs="*", default=[], metavar="MANIFEST")
    starter.add_argument("--sung", type=Path, nargs="*", default=[], metavar="MANIFEST")
    starter.add_argument("--not-music", type=Path, nargs="*", default=[], metavar="MANIFEST")
    starter.add_argument("--clips", type=int, default=10_000)
    starter.add_argument("--seed", type=int, default=0)
    starter.add_argument(
        "--captions", action="store_true", help="captions of single rows, for the first stage"
    )


def _song_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-minutes", type=float, default=20.0, help="longest song heard (default: 20)"
    )


def _model_options(parser: argparse.ArgumentParser, learns: bool = False) -> None:
    """Which model, and, unless it learns, where to and how precise."""
    parser.add_argument(
        "--preset", default="starter", help=f"{', '.join(PRESETS)} (default: starter)"
    )
    parser.add_argument(
        "--model", metavar="DIR|NAME", help="a whole model instead: a folder, or OWNER/NAME"
    )
    parser.add_argument("--encoder", metavar="DIR|NAME", help="parts instead: a MERT …")
    parser.add_argument("--language-model", metavar="DIR|NAME", help="… and a LLaMA that chats …")
    if not learns:
        parser.add_argument("--projection", metavar="FILE|DIR|NAME", help="… or the model's own")
    parser.add_argument(
        "--prompt", metavar="NAME", help=f"how it is asked: {', '.join(prompt_forms())}"
    )
    spread = "" if learns else ", or spread: over all GPUs"
    parser.add_argument("--device", default="auto", help=f"{DEVICES}{spread}")
    if not learns:
        _placement_options(parser)


def _placement_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--encoder-device", metavar="DEVICE", help="if it is another")
    parser.add_argument(
        "--dtype",
        default="auto",
        help="of language model and MERT: auto, float32, bfloat16, float16",
    )
    parser.add_argument(
        "--weights", default="auto",
        help="that make words: auto, packed (int8, on a processor), plain, 8bit, 4bit",
    )  # fmt: skip


def _licences() -> str:
    """Under which terms the presets' weights may be used."""
    lines = ["presets, and the licences of their weights:"]
    for preset in PRESETS.values():
        parts = "; ".join(f"{part}: {licence}" for part, licence in preset.licences)
        lines.append(f"  {preset.name}: {parts}")
    return "\n".join(lines)


def _training_defaults() -> dict[str, Any]:
    from dataclasses import asdict

    from musilingo_core.schedule import TrainingConfig

    return asdict(TrainingConfig())


def _check_file(path: Path) -> None:
    """Says at once that a file is missing, before weights are fetched."""
    if not path.is_file():
        raise UnreadableAudio(path.name, ["there is no such file"])


def _limits(options: argparse.Namespace) -> "AudioLimits":
    """What sound files are accepted.

    Raises:
        ConfigError: The longest is no length.
    """
    from musilingo_core.audio import AudioLimits

    if not options.max_minutes > 0:  # NaN is not above 0 either
        raise ConfigError(f"--max-minutes must be above 0, not {options.max_minutes:g}.")
    return AudioLimits(max_duration_s=60 * options.max_minutes)


def _be_quiet() -> None:
    """stderr is for what the user must know: no bars of files that load in a second."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def _engine(options: argparse.Namespace, limits: "AudioLimits") -> "ChatEngine":
    """The engine that a command asks for."""
    from musilingo_core.engine import load_engine

    names = (
        *("model", "encoder", "language_model", "projection", "prompt"),
        *("device", "encoder_device", "dtype", "weights"),
    )
    given = {name: getattr(options, name) for name in names}
    return load_engine(options.preset, on_status=_Status(), limits=limits, **given)


def _ask(options: argparse.Namespace) -> int:
    from musilingo_core.prompt import Message, assistant, user

    given = {name: getattr(options, name) for name in ("temperature", "max_new_tokens", "seed")}
    sampling = Sampling(**{name: value for name, value in given.items() if value is not None})
    _check_file(options.song)
    engine = _engine(options, _limits(options))
    cached = engine.is_cached(options.song)
    begun = time.perf_counter()
    clip = engine.encode(options.song)
    encode_s = time.perf_counter() - begun
    for question in options.questions:  # refused, if need be, before an answer is printed
        engine.reply([user(question, clip.clip_id)], sampling)
    messages: list[Message] = []
    for question in options.questions:
        messages.append(user(question, None if messages else clip.clip_id))
        begun = time.perf_counter()
        reply = engine.reply(messages, sampling)
        answer = _speak(reply, quiet=options.json)
        messages.append(assistant(answer))
        if options.json:
            row = {
                "question": question,
                "answer": answer,
                "clip_id": clip.clip_id,
                "duration_s": round(clip.duration_s, 3),
                "heard_s": round(clip.heard_s, 3),
                "features_cached": cached,
                "prompt_tokens": reply.prompt_tokens,
                "reused_tokens": reply.reused_tokens,
                "new_tokens": reply.new_tokens,
                "encode_s": round(encode_s, 4),
                "first_token_s": round(reply.first_token_s or 0.0, 4),
                "total_s": round(encode_s + time.perf_counter() - begun, 4),
                "model": engine.name,
                "seed": sampling.seed,
            }
            print(json.dumps(row, ensure_ascii=False), flush=True)
        cached, encode_s = True, 0.0
    return 0


def _choose(options: argparse.Namespace) -> int:
    from musilingo_core.prompt import user

    _check_file(options.song)
    engine = _engine(options, _limits(options))
    clip = engine.encode(options.song)
    messages = [user(options.question, clip.clip_id)]
    probabilities = engine.choose(messages, options.options, options.raw)
    # Of equally likely answers the first given comes first, as `evaluate` has it.
    ranked = sorted(zip(probabilities, options.options, strict=True), key=lambda pair: -pair[0])
    if options.json:
        row = {
            "question": options.question,
            "options": options.options,
            "probabilities": [round(p, 6) for p in probabilities],
            "answer": ranked[0][1],
            "raw": options.raw,
            "clip_id": clip.clip_id,
            "model": engine.name,
        }
        print(json.dumps(row, ensure_ascii=False))
    else:
        print("\n".join(f"{p:6.1%}  {option}" for p, option in ranked))
    return 0


def _speak(reply: Any, quiet: bool) -> str:
    """The reply, printed as it comes unless it goes into JSON."""
    answer = ""
    for piece in reply:
        answer += piece
        if not quiet:
            print(piece, end="", flush=True)
    if not quiet:
        print(flush=True)
    return answer


def _encode(options: argparse.Namespace) -> int:
    from musilingo_core.engine import hear
    from musilingo_core.features import save_clip
    from musilingo_core.weights import encoder_folder, folder_of, load_encoder

    _check_file(options.song)
    limits = _limits(options)
    if options.encoder is None:
        folder = encoder_folder(find_preset(options.preset), _Status())
    else:
        folder = folder_of(options.encoder, _Status())
    clip = hear(load_encoder(folder, options.device), options.song, limits)
    save_clip(clip, options.output)
    rows, size = clip.features.shape
    print(f"{options.output}: {rows} rows of {size} values, {clip.heard_s:.1f} s heard")
    return 0


def _verify(options: argparse.Namespace) -> int:
    good = True
    for check in _checks(options):
        print(
            json.dumps(check.as_dict(), ensure_ascii=False) if options.json else check, flush=True
        )
        good = good and check.good is not False
    return 0 if good else 1


def _checks(options: argparse.Namespace) -> "Iterator[Check]":
    """What `verify` looks at; what is not even the model's own weights is not loaded."""
    from musilingo_core import verification
    from musilingo_core.audio import AudioLimits
    from musilingo_core.hub import Repository
    from musilingo_core.weights import folder_of

    whole, parts = options.model, list[Any]()
    if whole is None and options.language_model is None:
        preset = find_preset(options.preset)
        whole, parts = preset.checkpoint, [preset.encoder, preset.language_model]
    if whole is not None:
        checks = list(verification.verify_folder(folder_of(whole, _Status())))
        yield from checks
        if any(check.good is False for check in checks):
            return
    engine = _engine(options, AudioLimits())
    for part in (whole, *parts):
        if isinstance(part, Repository):
            yield from verification.verify_files(part)
    yield from verification.verify_engine(engine)


def _convert(options: argparse.Namespace) -> int:
    from musilingo_core.conversion import convert
    from musilingo_core.weights import folder_of

    folder = folder_of(options.checkpoint, _Status())
    bases = Source(encoder=options.encoder, language_model=options.language_model)
    convert(folder, options.output, bases, _Status())
    print(f"{options.output}: ask it with --model {options.output}")
    return 0


def _report(report: Any, as_json: bool) -> int:
    """Prints what a builder made."""
    print(json.dumps(report.as_dict(), indent=2, ensure_ascii=False) if as_json else report)
    return 0


def _sounds(options: argparse.Namespace) -> Path | None:
    return None if options.no_sounds else options.sounds


def _build_lp_musiccaps(options: argparse.Namespace) -> Any:
    from musilingo_core.data.lp_musiccaps import build_lp_musiccaps

    kinds, beside = options.captions, options.beside
    return build_lp_musiccaps(options.files, _sounds(options), options.output, kinds, beside)


def _build_musiccaps(options: argparse.Namespace) -> Any:
    from musilingo_core.data.musiccaps import CAPTION_INSTRUCTION, build_musiccaps

    asked = CAPTION_INSTRUCTION if options.instruction is None else options.instruction
    sounds, held_out = _sounds(options), options.validation
    return build_musiccaps(options.files, sounds, options.output, asked, held_out, options.beside)


def _build_music_instruct(options: argparse.Namespace) -> Any:
    from musilingo_core.data.music_instruct import build_music_instruct

    sounds, held_out = _sounds(options), options.validation
    return build_music_instruct(options.files, sounds, options.output, held_out, options.beside)


def _build_musicqa(options: argparse.Namespace) -> Any:
    from musilingo_core.data.musicqa import build_musicqa

    sounds, held_out = _sounds(options), options.validation
    return build_musicqa(options.files, sounds, options.output, held_out, options.beside)


def _write_music_instruct(options: argparse.Namespace) -> Any:
    from dataclasses import fields

    from musilingo_core.data.instruct_endpoint import Endpoint, write_by_endpoint
    from musilingo_core.data.instruct_offline import write_offline

    asked = {f.name: getattr(options, f.name) for f in fields(Endpoint)}
    given = {name: value for name, value in asked.items() if value is not None}
    if "model" in given:
        return write_by_endpoint(options.table, options.output, Endpoint(**given))
    if needing := sorted(set(given) - {"kinds", "max_rows"}):
        raise ConfigError(f"--{needing[0].replace('_', '-')} needs --model.")
    return write_offline(options.table, options.output, **given)


def _build_scores(options: argparse.Namespace) -> Any:
    from musilingo_core.data.certain import Recipe, build, read_heard

    recipe = Recipe(read_heard(options.heard), options.questions, seed=options.seed)
    return build(options.rendered, options.not_music, options.output, recipe)


def _build_starter(options: argparse.Namespace) -> Any:
    from musilingo_core.data.published import Report
    from musilingo_core.data.starter import Recipe, build, gather
    from musilingo_core.weights import encoder_folder, load_encoder

    encoder: Any = load_encoder(encoder_folder(find_preset("starter"), _Status()), "cpu")
    lists = (options.music, options.rendered, options.sung, options.not_music)
    material = gather(encoder, *lists, _Status())
    recipe = Recipe(clips=options.clips, seed=options.seed, captions=options.captions)
    return Report("starter", {"clips": build(material, encoder, options.output, recipe)})


def _train(options: argparse.Namespace) -> int:
    from accelerate import PartialState

    from musilingo_core.data.clips import Clips, usable
    from musilingo_core.data.manifest import read_manifest
    from musilingo_core.placement import Placement, find_device
    from musilingo_core.release import push_to_hub
    from musilingo_core.schedule import TrainingConfig, read_settings
    from musilingo_core.training import train
    from musilingo_core.weights import load_model

    settings: dict[str, Any] = read_settings(options.config) if options.config else {}
    given = {name: getattr(options, name) for name in _training_defaults()}
    settings |= {name: value for name, value in given.items() if value is not None}
    config = TrainingConfig(**settings)
    examples, limits = read_manifest(options.manifest), _limits(options)
    # Before anything is placed: gives each process of `accelerate launch` its GPU.
    device = find_device(options.device)
    processes = PartialState(cpu=device.type == "cpu")
    tracker = _tracker(options.tracker, config) if processes.is_main_process else None
    status = _Status() if processes.is_main_process else None
    names = ("preset", "model", "encoder", "language_model", "prompt")
    source = Source(**{name: getattr(options, name) for name in names})
    model, processor = load_model(source, Placement(device), status, learns=True)
    clips = Clips(model.audio_tower, options.features or options.output / "features", limits)
    examples = usable(examples, clips, options.output, config.crop_s, status)

    def report(row: dict[str, Any]) -> None:
        print(json.dumps(row), flush=True)
        if tracker is not None:
            tracker.log(row, step=row["step"])

    train(model, processor, examples, options.output, config, clips, report, options.start)
    if tracker is not None:
        tracker.finish()
    if options.push_to_hub and processes.is_main_process:
        print(push_to_hub(options.output, options.push_to_hub), file=sys.stderr)
    return 0


def _tracker(project: str | None, config: "TrainingConfig") -> Any:
    """trackio, begun for one run; None where it was not asked for.

    Raises:
        ConfigError: It is not installed.
    """
    if project is None:
        return None
    from dataclasses import asdict

    try:
        import trackio
    except ImportError as error:
        raise ConfigError("--tracker needs the package trackio: pip install trackio.") from error
    trackio.init(project=project, config=asdict(config))
    return trackio


def _evaluate(options: argparse.Namespace) -> int:
    from musilingo_core.audio import AudioLimits
    from musilingo_core.evaluation import CONTROLS, evaluate
    from musilingo_core.metrics import Bert

    given = {"name": options.bert, "layer": options.bert_layer}
    engine = _engine(options, AudioLimits())
    status = _Status()
    evaluate(
        engine,
        options.data,
        options.output,
        split=options.split,
        sounds=options.sounds,
        controls=CONTROLS if options.controls is None else options.controls,
        limit=options.limit,
        generate=options.generate,
        bert=Bert(**{name: value for name, value in given.items() if value is not None}),
        seed=options.seed,
        command=shlex.join(["musilingo", *options.words]),
        on_status=status,
    )
    status.close()
    name = "scores.json" if options.json else "scores.md"
    print((options.output / name).read_text(encoding="utf-8"), end="")
    return 0


def _table(options: argparse.Namespace) -> int:
    from musilingo_core.evaluation import table

    try:
        runs = [json.loads((run / "scores.json").read_text("utf-8")) for run in options.runs]
        shown = table(runs)
    except (json.JSONDecodeError, KeyError) as error:
        raise ConfigError(
            f"A scores.json is damaged or of another version ({error}); please evaluate again."
        ) from error
    print(json.dumps(runs, indent=1, ensure_ascii=False) if options.json else shown.rstrip())
    return 0


class _Status:
    """Progress on stderr: a bar where its size is known, else a line for whoever watches."""

    def __init__(self) -> None:
        self._text = ""
        self._bar: Any = None

    def __call__(self, text: str, fraction: float | None) -> None:
        from tqdm import tqdm

        if text != self._text:
            self.close()
            self._text = text
            if fraction is None and sys.stderr.isatty():
                print(text, file=sys.stderr, flush=True)
            if fraction is not None:
                form = "{desc}: {percentage:3.0f}% |{bar}| {elapsed}"
                self._bar = tqdm(total=1.0, desc=text, bar_format=form, mininterval=1.0)
        if self._bar is not None and fraction is not None:
            self._bar.update(fraction - self._bar.n)

    def close(self) -> None:
        """Ends the bar's line."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None
