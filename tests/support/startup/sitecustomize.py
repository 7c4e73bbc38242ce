"""Python imports this before anything else, in each process of the tests whose PYTHONPATH names this folder: the
settings of this project do not read the caller's .env. A copy of the project that a test makes reads its own.
"""

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

SETTINGS = Path(__file__).resolve().parents[3] / "app" / "core" / "settings.py"


class SettingsFinder(PathFinder):
    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "app.core.settings":
            return None
        spec = super().find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None and spec.origin == str(SETTINGS):
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                module.Settings.model_config["env_file"] = os.devnull

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]  # of this one module
        return spec


sys.meta_path.insert(0, SettingsFinder)
