"""Names of people, by Presidio: the extra `bb3x-ray[pii]`, asked for with `names=True`."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bb3x_ray.data.pii.found import Found
from bb3x_ray.schemas.errors import UserError

MODEL = "en_core_web_lg"
_SURE = 0.5  # Presidio gives what spaCy calls a person .85


class NameFinder:
    """Finds names in English text with the spaCy model that is installed.

    model   a spaCy package or a folder that holds one

    Raises UserError where Presidio or the model is missing.
    """

    def __init__(self, model: str = MODEL) -> None:
        self._analyzer = _analyzer(model)

    def find(self, text: str) -> Iterator[Found]:
        """Every name; one of our own pseudonyms is found too, the replacement knows it."""
        for one in self._analyzer.analyze(text=text, language="en", entities=["PERSON"]):
            if one.score >= _SURE:
                value = " ".join(text[one.start : one.end].lower().split())
                yield Found("name", one.start, one.end, value)


def _analyzer(model: str) -> Any:
    """Presidio's analyzer over that model alone; it would download a missing one by itself."""
    try:
        spacy_models = importlib.import_module("spacy.util")
        presidio = importlib.import_module("presidio_analyzer")
        engines = importlib.import_module("presidio_analyzer.nlp_engine")
    except ModuleNotFoundError as missing:
        raise UserError(
            f"names are looked for with Presidio, and {missing.name} is not installed: "
            f"run pip install 'bb3x-ray[pii]' and python -m spacy download {model}, or leave names out."
        ) from missing
    if not spacy_models.is_package(model) and not Path(model).is_dir():
        raise UserError(
            f"the spaCy model {model} is not installed: run python -m spacy download {model}, "
            "or leave names out."
        )
    languages = {"nlp_engine_name": "spacy", "models": [{"lang_code": "en", "model_name": model}]}
    engine = engines.NlpEngineProvider(nlp_configuration=languages).create_engine()
    return presidio.AnalyzerEngine(nlp_engine=engine, supported_languages=["en"])
