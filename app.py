"""Starts the page: ``python app.py``, on a laptop as on a Hugging Face Space.

The page is there at once; the model is loaded behind it and the page says how far it is. Where a
GPU is lent for each call, the model comes first.
"""

import logging
import os
import sys
from typing import TYPE_CHECKING

from demo import content, zero_gpu
from demo.handlers import Handlers
from demo.loading import EngineLoader, OnStatus
from demo.page import launch_options, make_page
from demo.settings import Settings
from demo.sweeping import keep_sweeping

if TYPE_CHECKING:
    from musilingo_core.engine import ChatEngine


def main() -> None:
    """Loads in the background, serves until stopped."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("demo").setLevel(logging.INFO)  # ours only: others report every request
    settings = Settings.from_environment()
    os.environ["GRADIO_TEMP_DIR"] = str(settings.uploads)  # nowhere else are songs deleted in time
    keep_sweeping(settings.uploads, settings.upload_age_s)
    if settings.zero_gpu:
        os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"  # of transformers; see there

    def load(on_status: OnStatus) -> "ChatEngine":
        from transformers.utils.logging import disable_progress_bar

        from musilingo_core.audio import AudioLimits
        from musilingo_core.engine import load_engine

        disable_progress_bar()
        engine = load_engine(
            settings.preset,
            model=settings.model,
            encoder=settings.encoder,
            language_model=settings.language_model,
            projection=settings.projection,
            prompt=settings.prompt,
            device=settings.device,
            encoder_device=settings.encoder_device,
            dtype=settings.dtype,
            weights=settings.weights,
            on_status=on_status,
            limits=AudioLimits(max_duration_s=60.0 * settings.max_minutes),
        )
        if settings.zero_gpu:
            from musilingo_core.lending import LentEngine

            engine = LentEngine(engine, zero_gpu.lend)
        print(f"The model “{engine.name}” is ready", flush=True)
        return engine

    loader = EngineLoader(load)
    if settings.zero_gpu:  # see there
        loader.run()
        if loader.engine is None:
            sys.exit(1)  # the log has the reason; a Space shows it
    else:
        loader.start()
    page = make_page(Handlers(loader), settings)
    # Quiet: Gradio's own lines advertise a public link, which this page never has.
    options = launch_options(settings) | {"prevent_thread_lock": True, "quiet": True}
    print(f"{content.TITLE} is at {page.launch(**options)[1]}", flush=True)
    page.block_thread()


if __name__ == "__main__":
    main()
