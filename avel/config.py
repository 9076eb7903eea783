"""Reads settings from TOML files, `--set key=value`, options and keywords into frozen dataclasses.

A setting is declared once, in the class that it configures, with its type, bounds, help and default; a
derived class may set another default (`lr: float = 1e-3`). A config holds plain settings, groups of them
(nested dataclasses), and components: one of several registered classes, such as a head, with the settings of
its own `Config`. Every setting has a name ("crop_scale") that is unique in its config, and a place in the
file ("augment.crop_scale"); all sources take both. Of the sources the last one wins: the config to begin
with, preset, file, `--set`, options.
"""

import dataclasses
import math
import tomllib
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import tomli_w

from avel.digests import digest_of
from avel.errors import ConfigError, MissingPathError, UnknownNameError
from avel.registry import Registry
from avel.text import describe, listed
from avel.values import coerce, split_set

C = TypeVar("C")
STAGES = ("extract", "pretrain", "cache-features", "train-head")
"""Tables that a config file may hold, each for the command of that name."""


def option(
    default: Any,
    help: str,
    *,
    in_key: bool = True,
    low: float | None = None,
    high: float | None = None,
    shown: str = "",
    default_varies: bool = False,
) -> Any:
    """Declares a setting.

    Args:
        in_key: whether it changes results, and so is part of cache keys.
        low, high: bounds of a number, or of each number of a list.
        shown: text of the default for help, where the value itself says too little, as None does.
        default_varies: whether its default depends on other settings.
    """
    about = {
        "help": help, "in_key": in_key, "low": low, "high": high, "shown": shown,
        "default_varies": default_varies,
    }  # fmt: skip
    return dataclasses.field(default=default, metadata=about)


def group(kind: type[Any], heading: str, *, prefix: str = "") -> Any:
    """Declares a nested dataclass of settings; their names begin with `prefix`."""
    return dataclasses.field(default_factory=kind, metadata={"heading": heading, "prefix": prefix})


def component(
    registry: Registry[Any], default: str | None, help: str, *, shown: str = "", listed_by: str = ""
) -> Any:
    """Declares a choice of one registered class, as an instance of that class's `Config`.

    The field's type is the base of all these Configs. Without a default the field is None until a component
    is chosen.

    Args:
        shown: text of help for a default of None.
        listed_by: command that lists the settings of any component. Help then shows those of the chosen one
            with its defaults, and names this command above them.
    """

    def make() -> Any:
        return None if default is None else registry[default].Config()

    about = {
        "help": help, "registry": registry, "default": default, "shown": shown, "listed_by": listed_by,
        "in_key": True,
    }  # fmt: skip
    return dataclasses.field(default_factory=make, metadata=about)


@dataclass(frozen=True)
class ComponentConfig:
    """Base of the `Config` of registered classes; `name` is the one that its class is registered under."""

    name: ClassVar[str] = ""

    def __new__(cls, *values: Any, **settings: Any) -> Self:
        """Notes which settings are given, since weak supervision has other defaults for the rest."""
        config = super().__new__(cls)
        in_order = [field.name for field in dataclasses.fields(cls)][: len(values)]
        object.__setattr__(config, "_explicit", frozenset((*in_order, *settings)))
        return config

    @property
    def explicit(self) -> dict[str, Any]:
        """Returns the settings that it was made with: name -> value; all others are at their defaults."""
        names: frozenset[str] = vars(self)["_explicit"]
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Setting:
    """One setting of a config.

    Attributes:
        name: its name in options and `--set`, with its group's prefix.
        place: its tables and key in a file.
        path: attributes that lead to it in the config.
        value_type: its type, as annotated.
        default: its default; for a component its name.
        heading: heading of its option in help, or "".
        shown: what help shows for its default; "" for the default itself.
        registry: registry of a component that is chosen by name, else None.
        default_varies: whether its default depends on other settings.
    """

    name: str
    place: tuple[str, ...]
    path: tuple[str, ...]
    value_type: Any
    default: Any
    help: str
    heading: str
    shown: str
    in_key: bool
    low: float | None = None
    high: float | None = None
    registry: Registry[Any] | None = None
    default_varies: bool = False

    @property
    def key(self) -> str:
        """Returns its place as one word, "augment.crop_scale"."""
        return ".".join(self.place)

    @property
    def bounds(self) -> str:
        """Returns the bounds of its numbers in words, "at least 1"; "" where it has none."""
        if self.low is not None and self.high is not None:
            return f"from {self.low:g} to {self.high:g}"
        if self.low is not None:
            return f"at least {self.low:g}"
        return "" if self.high is None else f"at most {self.high:g}"

    def of(self, config: Any) -> Any:
        """Returns the setting's value in a config."""
        value = reduce(getattr, self.path, config)
        return value.name if isinstance(value, ComponentConfig) else value


def settings_of(config: Any) -> list[Setting]:
    """Lists the settings of a config, or of a config class.

    For a class no component is chosen yet: where a component has a default, the settings that all choices
    share are listed.
    """
    return list(_settings(config, (), (), "", ""))


def _settings(
    config: Any, path: tuple[str, ...], place: tuple[str, ...], prefix: str, heading: str
) -> Iterator[Setting]:
    is_class = isinstance(config, type)
    kind = config if is_class else type(config)
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        here, about = (*path, field.name), _declared(kind, field.name)
        value = hints[field.name] if is_class else getattr(config, field.name)
        name = prefix + field.name
        if "prefix" in about:
            title = about["heading"]
            yield from _settings(value, here, (*place, field.name), prefix + about["prefix"], title)
        elif "registry" in about:
            default, listed_by = about["default"], about["listed_by"]
            yield Setting(
                name, (*place, field.name), here, str, default, about["help"], heading,
                about["shown"] if default is None else "", True, registry=about["registry"],
            )  # fmt: skip
            if value is None or (is_class and default is None):
                continue
            chosen = default if is_class else value.name
            title = f"Settings of the {field.name}"
            title += f" (defaults of {chosen}; others: {listed_by})" * bool(listed_by)
            for setting in _settings(value, here, (*place, chosen), prefix, title):
                yield dataclasses.replace(setting, default_varies=bool(listed_by))
        else:
            yield Setting(
                name, (*place, field.name), here, hints[field.name], field.default, about["help"], heading,
                about["shown"], about["in_key"], about["low"], about["high"],
                default_varies=about["default_varies"],
            )  # fmt: skip


def _declared(kind: type[Any], name: str) -> Mapping[str, Any]:
    """Returns the metadata of a setting, from the class or from the base that declares it.

    Raises:
        ConfigError: the field is not declared by `option`.
    """
    for base in kind.__mro__:
        field = getattr(base, "__dataclass_fields__", {}).get(name)
        if field is not None and field.metadata:
            return dict(field.metadata)
    raise ConfigError(
        f"{kind.__qualname__}.{name} has no help",
        hint=f'declare it as {name}: TYPE = option(DEFAULT, "help")',
    )


def resolve(
    kind: type[C],
    stage: str,
    *,
    base: C | None = None,
    preset: Mapping[str, Any] | None = None,
    file: Path | str | None = None,
    sets: Iterable[str] = (),
    options: Mapping[str, Any] | None = None,
    options_from: str = "option",
) -> C:
    """Makes the config of one stage from all sources.

    Keys are names or places of settings; values may be text, or whole groups and components. Errors name the
    source; `options_from` is what they call `options`.

    Raises:
        ConfigError: an unknown key or a value of the wrong type or out of bounds, with its source.
    """
    sources: list[tuple[str, Mapping[str, Any]]] = [
        (kind.__name__, {} if base is None else _explicit_settings(base)),
        ("preset", preset or {}),
        (str(file), {} if file is None else read_table(Path(file), stage)),
        ("--set", dict(split_set(item) for item in sets)),
        (options_from, options or {}),
    ]
    components = [setting for setting in settings_of(kind) if setting.registry is not None]
    places = {setting.name: setting.key for setting in components}
    registries = {setting.key: setting.registry for setting in components}
    given: list[tuple[str, str, Any]] = []
    for source, values in sources:
        by_place = {places.get(_named(key), key): value for key, value in values.items()}
        for key, value in by_place.items():
            if isinstance(value, ComponentConfig):  # it has all its settings, so drop earlier ones
                given = [each for each in given if not _is_setting_of(value, key, each[1])]
        for key, value in flat(by_place).items():
            given += _with_model(source, key, value, registries.get(key))
    config: C = _choose(kind, given)
    known: dict[str, Setting] = {}
    for setting in settings_of(config):
        for key in dict.fromkeys((setting.name, setting.key)):
            if key in known:
                raise ConfigError(
                    f"{stage} has two settings named {key}", hint="rename that of the component"
                )
            known[key] = setting
    choices = [setting for setting in known.values() if setting.registry is not None]
    for source, key, value in given:
        if key in known:
            if known[key].registry is None:
                config = _replaced(config, known[key].path, convert(known[key], value, source))
            continue
        unused = _settings_of_another(key, choices, config)
        if key not in unused:
            error = UnknownNameError("setting", key, unused or _alike(key, known), where=source)
            error.hint = _elsewhere(key, value, choices, config) or error.hint
            raise error
        convert(unused[key], value, source)  # only to check it
    return config


def _is_setting_of(component: ComponentConfig, place: str, key: str) -> bool:
    """Returns True if the key is a setting of the component at that place of a config."""
    tables, _, name = key.rpartition(".")
    own = {field.name for field in dataclasses.fields(component)}
    return name in own and tables.startswith(place.rpartition(".")[0])


def _explicit_settings(config: Any) -> dict[str, Any]:
    """Returns place -> value of the settings of a config, without those that a component has by default."""
    values = {}
    for setting in settings_of(config):
        owner = reduce(getattr, setting.path[:-1], config)
        if not isinstance(owner, ComponentConfig) or setting.path[-1] in owner.explicit:
            values[setting.key] = setting.of(config)
    return values


def _with_model(
    source: str, key: str, value: Any, registry: Registry[Any] | None
) -> Iterator[tuple[str, str, Any]]:
    """Yields a value as it was given, but "timm:NAME" as two: the component, and NAME as its setting `model`.

    Raises:
        ConfigError: the component before the colon wraps no models.
    """
    name, colon, model = str(value).partition(":")
    if registry is None or not colon or name not in registry:
        yield source, key, value
        return
    if "model" not in {setting.name for setting in settings_of(registry[name].Config)}:
        raise ConfigError(f"{source}: {key}={value!r}: {name} wraps no models", hint=f"{key}={name}")
    yield source, key, name
    yield source, ".".join((*key.split(".")[:-1], name, "model")), model


def _choose(kind: Any, given: list[tuple[str, str, Any]], place: tuple[str, ...] = ()) -> Any:
    """Returns a config of defaults, with the components that the last source names."""
    chosen = {}
    for field in dataclasses.fields(kind):
        if "prefix" in field.metadata:
            group_kind = typing.get_type_hints(kind)[field.name]
            chosen[field.name] = _choose(group_kind, given, (*place, field.name))
        elif "registry" in field.metadata:
            registry: Registry[Any] = field.metadata["registry"]
            key = ".".join((*place, field.name))
            named = [(source, str(value)) for source, at, value in given if at == key and value is not None]
            source, name = named[-1] if named else ("default", field.metadata["default"])
            name = None if name is None else registry.named(name)
            if name is not None and name not in registry:
                raise UnknownNameError(registry.kind, name, registry, where=source)
            chosen[field.name] = None if name is None else registry[name].Config()
    return kind(**chosen)


def _settings_of_another(key: str, choices: list[Setting], config: Any) -> dict[str, Setting]:
    """Returns place -> setting of a component that is not chosen, if `key` is in its table; else {}.

    A file may hold tables of several heads; those of heads that are not chosen are checked, but not used.
    """
    *tables, _ = key.split(".")
    for choice in choices:
        assert choice.registry is not None
        here = tables[:-1] == list(choice.place[:-1]) and bool(tables) and tables[-1] in choice.registry
        if here and tables[-1] != choice.of(config):
            settings = settings_of(choice.registry[tables[-1]].Config())
            return {".".join((*tables, setting.key)): setting for setting in settings}
    return {}


def _alike(key: str, known: Collection[str]) -> Collection[str]:
    """Returns the names to suggest for a key: those with a dot if it has one, else the rest; all if none."""
    return [name for name in known if ("." in name) == ("." in key)] or known


def _elsewhere(key: str, value: Any, choices: list[Setting], config: Any) -> str:
    """Says where there is a setting of this name that `config` does not have; "" where there is none."""
    table, _, name = key.rpartition(".")
    tables, flag = getattr(config, "set_by_option", ((), ""))
    if table and table in {_named(other) for other in tables}:
        return f"settings of {table} are given by {flag} {name}={value}"
    for choice in choices:
        assert choice.registry is not None
        prefix = choice.name.removesuffix(choice.path[-1])
        having = []
        for other in choice.registry:
            with suppress(Exception):  # a package that cannot be imported is no answer here
                own = settings_of(choice.registry[other].Config)
                having += [other] if key in {prefix + setting.name for setting in own} else []
        if having:
            kind = choice.registry.kind
            return f"{key} is a setting of {kind} {listed(having)}, not of {choice.of(config)}"
    return ""


def _replaced(config: Any, path: tuple[str, ...], value: Any) -> Any:
    first, *rest = path
    inner = _replaced(getattr(config, first), tuple(rest), value) if rest else value
    if isinstance(config, ComponentConfig):  # `replace` would make all of its settings explicit
        return type(config)(**config.explicit | {first: inner})
    return dataclasses.replace(config, **{first: inner})


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Flattens nested tables and configs, their keys joined by dots, with underscores for dashes.

    Of a component's config only the explicit settings are listed.

    >>> flat({"seeds": 3, "augment": {"crop-scale": [0.1, 1]}})
    {'seeds': 3, 'augment.crop_scale': [0.1, 1]}
    """
    result: dict[str, Any] = {}
    for key, value in values.items():
        name = _named(key)
        if isinstance(value, ComponentConfig):
            result[name] = value.name
            *tables, _ = name.split(".")
            name, value = ".".join((*tables, value.name)), value.explicit
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = as_dict(value)
        if isinstance(value, Mapping):
            result |= {f"{name}.{inner}": item for inner, item in flat(value).items()}
        else:
            result[name] = value
    return result


def _named(key: str) -> str:
    """Returns a key as settings are named, with underscores."""
    return key.replace("-", "_")


def read_table(path: Path, stage: str) -> dict[str, Any]:
    """Reads the `[stage]` table of a TOML file, or the whole file where it has no tables.

    Raises:
        MissingPathError: no such file.
        ConfigError: not TOML, or a table beside those of the stages.
    """
    if not path.is_file():
        raise MissingPathError(f"{path}: no such config file", hint="give --config a TOML file")
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise ConfigError(
            f"{path}: not valid TOML: {error}", hint="lines are KEY = VALUE, in UTF-8"
        ) from None
    if not any(isinstance(value, dict) for value in document.values()):
        return document
    for name, value in document.items():
        if name not in STAGES:
            raise UnknownNameError("table", name, STAGES, where=str(path))
        if not isinstance(value, dict):
            raise ConfigError(f"{path}: {name} is not a table", hint=f"[{name}] in a line of its own")
    return dict(document.get(stage, {}))


def to_toml(config: Any, stage: str, without: Collection[str] = ()) -> str:
    """Returns the config as TOML that `--config` reads back; settings that are None are left out.

    Args:
        without: keys of settings and groups that are left out, too.
    """
    return tomli_w.dumps({stage: _shown(as_dict(config), without)})


def as_dict(config: Any) -> dict[str, Any]:
    """Returns a config as nested plain values for JSON and TOML; those of a component under its name."""
    result: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, ComponentConfig):
            result |= {field.name: value.name, value.name: as_dict(value)}
        else:
            result[field.name] = as_dict(value) if dataclasses.is_dataclass(value) else _plain(value)
    return result


def digest(config: Any, **more: Any) -> str:
    """Returns 16 hex digits over every setting that changes results, and over `more`."""
    values = {setting.key: _plain(setting.of(config)) for setting in settings_of(config) if setting.in_key}
    return digest_of(values | more)


def convert(setting: Setting, value: Any, source: str) -> Any:
    """Returns `value` as the setting's type; text is parsed, so "3" becomes 3 for an int.

    Raises:
        ConfigError: it is not of that type, or out of bounds.
    """
    name, kind = setting.name, setting.value_type
    try:
        result = coerce(kind, value)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{source}: {name}={value!r} is not {describe(kind)}") from None
    may_be_infinite = not setting.in_key  # such as limits of memory and time
    for item in result if isinstance(result, tuple) else (result,):
        if setting.low is not None and item is not None and not item >= setting.low:
            raise ConfigError(f"{source}: {name}={value!r} must be at least {setting.low:g}")
        if setting.high is not None and item is not None and not item <= setting.high:
            raise ConfigError(f"{source}: {name}={value!r} must be at most {setting.high:g}")
        if isinstance(item, float) and not math.isfinite(item) and not may_be_infinite:
            raise ConfigError(f"{source}: {name}={value!r} must be finite")
    return result


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _shown(values: Mapping[str, Any], without: Collection[str], place: str = "") -> dict[str, Any]:
    """Returns nested values, of the table `place`, without those that are None or listed in `without`."""
    return {
        key: _shown(value, without, f"{place}{key}.") if isinstance(value, dict) else value
        for key, value in values.items()
        if value is not None and f"{place}{key}" not in without
    }
