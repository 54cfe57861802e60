"""Other packages' chatter stays out of our lines."""

import os


def quiet() -> None:
    """Other packages' chatter stays out of our lines. (What they read from the environment comes first.)"""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")
    import logging

    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    # DeepSpeed warns of every machine without a GPU as soon as transformers imports it.
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
