"""Configurations in temporary directories."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from protocol.config import Loaded, load
from protocol.errors import ConfigurationError


def _nested(values: Mapping[str, object]) -> str:
    """Return the text of a file that gives these values by their paths."""
    root: dict[str, Any] = {}
    for path, value in values.items():
        *sections, name = path.split(".")
        inside = root
        for section in sections:
            inside = inside.setdefault(section, {})
        inside[name] = value
    return json.dumps(root, indent=2)


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., Loaded]:
    """Load a configuration: the file as text, or as values by path; values.yaml; --set; environment variables."""

    def load_it(
        written: str | Mapping[str, object] = "{}",
        *,
        values: str | None = None,
        sets: tuple[str, ...] = (),
        **environ: str,
    ) -> Loaded:
        config = tmp_path / "appsettings.json"
        config.write_text(written if isinstance(written, str) else _nested(written), encoding="utf-8")
        if values is not None:
            (tmp_path / "values.yaml").write_text(values, encoding="utf-8")
        return load(config, None, sets, environ)

    return load_it


@pytest.fixture
def problems(configure: Callable[..., Loaded]) -> Callable[..., list[str]]:
    """Load what must not load, and return its problems."""

    def fail_to_load(*arguments: Any, **named: Any) -> list[str]:
        with pytest.raises(ConfigurationError) as caught:
            configure(*arguments, **named)
        assert caught.value.exit_code == 78
        return list(caught.value.problems)

    return fail_to_load
