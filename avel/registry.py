"""A registry is a dict and a decorator; packages outside avel add to it through an entry point."""

from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from avel.errors import ConfigError, UnknownNameError

T = TypeVar("T")


class Registry(Generic[T]):
    """Named classes or functions of one kind ("head", "visual backbone").

    Args:
        kind: what one entry is called in error messages.
        modules: avel's own modules, imported on first use, so that listing names costs no torch.
        group: entry-point group through which other packages add entries.
    """

    def __init__(self, kind: str, *, modules: tuple[str, ...] = (), group: str = "") -> None:
        self.kind = kind
        self._modules = modules
        self._group = group
        self._entries: dict[str, T] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files the decorated object under `name`; a name taken twice raises ConfigError."""

        def add(entry: T) -> T:
            if name in self._entries:
                raise ConfigError(f"{self.kind} {name!r} is registered twice", hint="rename one of them")
            self._entries[name] = entry
            return entry

        return add

    def __getitem__(self, name: str) -> T:
        self._load()
        if name not in self._entries:
            raise UnknownNameError(self.kind, name, self._entries)
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._entries))

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._entries

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        for module in self._modules:
            import_module(module)
        if self._group:
            for point in entry_points(group=self._group):
                point.load()
