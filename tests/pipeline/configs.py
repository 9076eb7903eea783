"""Configs of the pipeline by the names of their settings, and backbones by name."""

from typing import Any

from avel.config import resolve
from avel.pipeline.config import CacheConfig, PretrainConfig
from avel.registry import Registry


def pretrain_config(**options: Any) -> PretrainConfig:
    """The config with these settings."""
    return resolve(PretrainConfig, "pretrain", options=options)


def changed(config: PretrainConfig, **options: Any) -> PretrainConfig:
    """The config with other values of these settings."""
    return resolve(PretrainConfig, "pretrain", base=config, options=options)


def cache_config(**options: Any) -> CacheConfig:
    """The config with these settings."""
    return resolve(CacheConfig, "cache-features", options=options)


def made(registry: Registry[Any], name: str, **settings: Any) -> Any:
    """A CNN with random weights."""
    return registry[name](registry[name].Config(**settings))
