# SPDX-License-Identifier: Apache-2.0
"""Makes 'az network' of Debian 12's azure-cli 2.45 run.

That package asks for a version of the network API (2022-01-01) whose models its own library does not hold, and ends before it sends anything. Python
loads this module by itself where this folder is on PYTHONPATH: once the CLI's table of versions is imported, the entry is set to the newest version that
is there. Nothing on the disk is changed, and other programs are left alone.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import pathlib
import re
import sys

TABLE = "azure.cli.core.profiles._shared"


def newest():
    """The newest version of azure.mgmt.network, None where there is none."""
    found = importlib.util.find_spec("azure.mgmt.network")
    folders = found.submodule_search_locations if found else []
    names = [p.name for f in folders for p in pathlib.Path(f).glob("v*_*_*")]
    dates = [n[1:].replace("_", "-") for n in names if re.fullmatch(r"v\d{4}_\d\d_\d\d", n)]
    return max(dates, default=None)


class Corrected(importlib.abc.Loader):
    """Loads the table as its own loader does, and then corrects it."""

    def __init__(self, loader):
        self.loader = loader

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        self.loader.exec_module(module)
        version = newest()
        if version:
            module.AZURE_API_PROFILES["latest"][module.ResourceType.MGMT_NETWORK] = version


class Finder(importlib.abc.MetaPathFinder):
    """Finds the table alone, where the usual search finds it."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname != TABLE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec and spec.loader:
            spec.loader = Corrected(spec.loader)
        return spec


sys.meta_path.insert(0, Finder())
