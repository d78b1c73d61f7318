"""Finds the WSGI application of a package: `application`, else `app`, of the module that dinp-start chose."""

import importlib
import os

_name = os.environ["DINP_WSGI_MODULE"]
_module = importlib.import_module(_name)
application = getattr(_module, "application", None) or getattr(_module, "app", None)
if not callable(application):
    raise RuntimeError(f"{_name}.py defines no WSGI application: it needs a callable named application or app")
