"""Registers classes by name with a decorator; other packages add to a registry through an entry point.

A file of Python may register one, too: `registry.named("./idea.py")` runs it.
"""

import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import make_dataclass
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from avel.digests import digest_of
from avel.errors import ConfigError, MissingPathError, UnknownNameError

T = TypeVar("T")
E = TypeVar("E")
FROM_FILE = "__avel_file__"
"""Attribute of a module that was run from a file: its path."""


class Registry(Generic[T]):
    """Named classes of one kind ("head", "visual backbone"), each imported when it is first asked for.

    Listing names imports nothing, so that the command line can show them without torch.

    Args:
        kind: what one entry is called in error messages.
        modules: avel's own entries, name -> module that registers it.
        group: entry-point group of other packages; a point's name is the entry's, its value the module.
        files: whether the path of a Python file may stand for the entry that the file registers.
        unlisted: entries that only avel itself chooses, so that no help and no error offers them.
    """

    def __init__(
        self,
        kind: str,
        *,
        modules: Mapping[str, str] | None = None,
        group: str = "",
        files: bool = False,
        unlisted: Collection[str] = (),
    ) -> None:
        self.kind = kind
        self._files, self._unlisted = files, frozenset(unlisted)
        self._modules = dict(modules or {})
        self._group = group
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[E], E]:
        """Returns a decorator that registers a class as `name`, and gives `name` to its `Config`, if any.

        A class without a `Config` of its own gets one derived from that of its base.

        Raises:
            ConfigError: the name is taken, or the class is registered already.
        """

        def add(entry: E) -> E:
            if name in self._entries:
                raise ConfigError(f"{self.kind} {name!r} is registered twice", hint="rename one of them")
            config: Any = getattr(entry, "Config", None)
            if config is not None:
                if config.__qualname__ != (own := f"{entry.__qualname__}.Config"):  # type: ignore[attr-defined]
                    about = {"__doc__": config.__doc__, "__module__": entry.__module__, "__qualname__": own}
                    config = make_dataclass("Config", (), bases=(config,), namespace=about, frozen=True)
                    entry.Config = config  # type: ignore[attr-defined]
                elif "name" in vars(config):
                    raise ConfigError(
                        f"{self.kind} {name!r} is registered as {config.name!r} too",
                        hint="derive a class of it for the second name",
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
        return iter(sorted({*self._entries, *self._modules, *self._points} - self._unlisted))

    def __contains__(self, name: object) -> bool:
        return name in self._unlisted or name in set(self)

    def named(self, name: str) -> str:
        """Returns the name of the entry that `name` means: itself, or what a file of Python registers.

        Raises:
            ConfigError: the file fails, registers no entry or several, or one whose name is taken.
            MissingPathError: no such file.
        """
        return self._run_file(Path(name).resolve()) if self._files and name.endswith(".py") else name

    def origin(self, name: str) -> str:
        """Returns where an entry comes from: "PACKAGE==VERSION, module MODULE", or the path of a file."""
        module = _module_of(self[name])
        if (file := _file_of(self[name])) is not None:
            return str(file)
        dist = self._points[name].dist if name in self._points else None
        package = dist.name if dist is not None else "avel" if name in self._modules else ""
        return f"{package}=={version(package)}, module {module}" if package else f"module {module}"

    def _run_file(self, path: Path) -> str:
        if not path.is_file():
            raise MissingPathError(
                f"{path}: no such file", hint=f"give a file that registers a {self.kind}, or a name"
            )
        try:
            source = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: not UTF-8: {error}", hint="save it as UTF-8") from None
        module_name = f"{path.stem}_{digest_of([str(path), source])}"
        if not self._of_module(module_name):
            for key in [key for key, entry in self._entries.items() if _file_of(entry) == path]:
                del self._entries[key]  # the file was edited while this process ran
            self._execute(path, source, module_name)
        added = self._of_module(module_name)
        if len(added) != 1:
            raise ConfigError(
                f"{path} registers {' and '.join(added) or f'no {self.kind}'}",
                hint=f"a file registers one {self.kind}: a class with @register(NAME) before it",
            )
        return added[0]

    def _of_module(self, module_name: str) -> list[str]:
        return [key for key, entry in self._entries.items() if _module_of(entry) == module_name]

    def _execute(self, path: Path, source: str, module_name: str) -> None:
        """Runs a file as a module of that name; if it fails, removes what it has registered.

        The source is compiled here. An import goes by the time stamp of the file, so just after an edit it
        could run the bytecode of the earlier source.
        """
        module = ModuleType(module_name)
        vars(module).update({"__file__": str(path), FROM_FILE: path})
        sys.modules[module_name] = module  # dataclasses look their module up
        before = dict(self._entries)
        try:
            exec(compile(source, path, "exec"), vars(module))
            for name in self._of_module(module_name):
                if name in self._modules or name in self._points:
                    raise ConfigError(
                        f"there is a {self.kind} {name!r} already", hint="rename that of the file"
                    )
        except Exception as error:
            del sys.modules[module_name]
            self._entries = before
            if isinstance(error, ConfigError):
                raise ConfigError(f"{path}: {error.message}", hint=error.hint) from None
            frames = traceback.extract_tb(error.__traceback__)
            lines = [frame.lineno for frame in frames if frame.filename == str(path)]
            line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else "?"
            raise ConfigError(
                f"{path}, line {line}: {type(error).__name__}: {error}", hint="fix the file"
            ) from error

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
                hint=f"fix or uninstall {package}",
            ) from None
        if point.name not in self._entries:
            raise ConfigError(
                f"{package}: {point.value} should register {self.kind} {point.name!r}, but does not",
                hint=f"give the entry point the name that {point.value} registers",
            )


def _file_of(entry: Any) -> Path | None:
    return getattr(sys.modules.get(_module_of(entry)), FROM_FILE, None)


def _module_of(entry: Any) -> str:
    return str(getattr(entry, "__module__", ""))
