"""Registers classes by name with a decorator; other packages add to a registry through an entry point."""

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from avel.errors import ConfigError, UnknownNameError

T = TypeVar("T")
E = TypeVar("E")


class Registry(Generic[T]):
    """Named classes of one kind ("head", "visual backbone"), each imported when it is first asked for.

    Listing names imports nothing, so that the command line can show them without torch.

    Args:
        kind: what one entry is called in error messages.
        modules: avel's own entries, name -> module that registers it.
        group: entry-point group of other packages; a point's name is the entry's, its value the module.
    """

    def __init__(self, kind: str, *, modules: Mapping[str, str] | None = None, group: str = "") -> None:
        self.kind = kind
        self._modules = dict(modules or {})
        self._group = group
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[E], E]:
        """Returns a decorator that registers a class as `name`, which its `Config`, if any, gets too.

        Raises:
            ConfigError: the name is taken, or the class has only the `Config` of another entry.
        """

        def add(entry: E) -> E:
            if name in self._entries:
                raise ConfigError(f"{self.kind} {name!r} is registered twice", hint="rename one of them")
            config: Any = getattr(entry, "Config", None)
            if config is not None:
                if "name" in vars(config):
                    owner = config.name or config.__name__
                    raise ConfigError(
                        f"{self.kind} {name!r} has no Config of its own, only that of {owner!r}",
                        hint="add a nested `class Config`, derived from it where the settings are the same",
                    )
                config.name = name
            self._entries[name] = entry  # type: ignore[assignment]
            return entry

        return add

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            self._import(name)
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._entries, *self._modules, *self._points}))

    def __contains__(self, name: object) -> bool:
        return name in set(self)

    @cached_property
    def _points(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self._group)} if self._group else {}

    def _import(self, name: str) -> None:
        """Imports the module that registers `name`; a second thread waits, as for any import."""
        if name not in self:
            raise UnknownNameError(self.kind, name, self)
        try:
            if name in self._modules:
                import_module(self._modules[name])
            else:
                self._load(self._points[name])
        except BaseException:
            # Python drops a module that fails and imports it again next time, so its entries must go too
            whole = {key: entry for key, entry in self._entries.items() if _module_of(entry) in sys.modules}
            self._entries = whole
            raise

    def _load(self, point: EntryPoint) -> None:
        package = point.dist.name if point.dist else "an unknown package"
        try:
            point.load()
        except ImportError as error:
            raise ConfigError(
                f"{self.kind} {point.name!r} of {package} cannot be imported: {error}",
                hint=f"mend or uninstall {package}",
            ) from None
        if point.name not in self._entries:
            raise ConfigError(
                f"{package} names {point.value} for {self.kind} {point.name!r}, which registers none",
                hint=f"give the entry point the name that {point.value} registers",
            )


def _module_of(entry: Any) -> str:
    return str(getattr(entry, "__module__", ""))
