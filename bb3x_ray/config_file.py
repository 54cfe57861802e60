"""Reading a config: YAML files plus `a.b=value` overrides, checked before anything starts.

An error names the file, the key and the nearest valid key.
"""

import difflib
import re
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from bb3x_ray.config import Config, Section
from bb3x_ray.schemas.errors import UserError


class _Loader(yaml.SafeLoader):
    """YAML 1.2's floats and truths: PyYAML reads `1e-5` as a string, and `off`, a word of ours, as false."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"),
    list("-+0123456789."),
)
# Integers are tried first again, now that floats match them too.
_Loader.yaml_implicit_resolvers = {
    first: sorted(
        (pair for pair in resolvers if pair[0] != "tag:yaml.org,2002:bool"),
        key=lambda pair: pair[0] == "tag:yaml.org,2002:float",
    )
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^([Tt]rue|[Ff]alse)$"), list("tTfF"))


def _yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{where}{line}: not valid YAML; check indentation and quotes there.") from None


def load_config(path: str | Path, overrides: list[str] | None = None) -> Config:
    """Read a YAML file and `a.b=value` overrides. Raises UserError with file, key and cure."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such config file; the ones that ship are in configs/.")
    tree = _yaml(path.read_text(encoding="utf-8"), str(path)) or {}
    if not isinstance(tree, dict):
        raise UserError(f"{path}: a config is a mapping of keys to values.")
    origin = {}
    for override in overrides or []:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise UserError(f"override {override!r}: write it as key=value, for instance train.lr=2e-5.")
        _set(tree, key.split("."), _yaml(value, f"override {key}"), key)
        origin[key] = f"override {key}"
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise UserError("\n".join(_explain(e, str(path), origin) for e in error.errors())) from None


def _set(tree: dict[str, Any], keys: list[str], value: Any, whole: str) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise UserError(f"override {whole}: {key} is a value, not a section.")
    tree[keys[-1]] = value


def _explain(error: Any, path: str, origin: dict[str, str]) -> str:
    location = [str(part) for part in error["loc"]]
    key = ".".join(location)
    where = origin.get(key, path)
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key {key!r}{_nearest(location)}"
    if error["type"] in ("model_type", "model_attributes_type"):
        return f"{where}: {key} is a section with keys of its own, not a value."
    about = f"{key}: " if key else ""  # what is about several sections names its keys itself
    return f"{where}: {about}{error['msg'][0].lower()}{error['msg'][1:]}."


def _nearest(location: list[str]) -> str:
    """`; did you mean …?`: the nearest key of the same section, else the same key elsewhere."""
    section: Any = Config
    for part in location[:-1]:
        # In a list of sections (train.mix) the next part is a number.
        section = get_args(section)[0] if part.isdigit() else section.model_fields[part].annotation
    siblings = list(section.model_fields)
    prefix = ".".join(location[:-1])
    close = difflib.get_close_matches(location[-1], siblings, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {'.'.join(filter(None, [prefix, close[0]]))!r}?"
    elsewhere = [
        f"{name}.{location[-1]}"
        for name, field in Config.model_fields.items()
        if isinstance(field.annotation, type)
        and issubclass(field.annotation, Section)
        and location[-1] in field.annotation.model_fields
    ]
    if elsewhere:
        return f"; did you mean {' or '.join(map(repr, elsewhere))}?"
    return f"; valid keys{' of ' + prefix if prefix else ''}: {', '.join(siblings)}"
