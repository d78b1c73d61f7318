"""Finds the application of a package by reading it, without running any of it, and prints what gunicorn is to serve."""

import ast
import sys
from pathlib import Path

TOP = Path("/app")
# In the order in which they are asked; manage.py is Django's, whose project has a wsgi.py of its own.
FILES = ("wsgi.py", "asgi.py", "app.py", "main.py")
NAMES = ("application", "app")
FACTORIES = ("create_app", "make_app")
ASGI_FRAMEWORKS = {"fastapi", "starlette", "quart", "litestar", "blacksheep", "fasthtml"}
# Modules that import an application from each other, from the file at the top on.
MOST_HOPS = 8


def fail(problem):
    print(f"dinp-start: {problem}", file=sys.stderr)
    sys.exit(127)


class Module:
    """What a file defines and imports at its top level, also below `if` and `try`."""

    def __init__(self, path):
        self.path = path
        self.names = {}
        self.imports = set()
        self.settings = None
        try:
            tree = ast.parse(path.read_bytes(), str(path))
        except (SyntaxError, ValueError) as error:
            fail(f"{path.relative_to(TOP)} is no Python that this version understands: {error}")
        self._read(tree.body)
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.endswith("settings"):
                self.settings = self.settings or node.value

    def _read(self, body):
        for node in body:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self.imports.add(alias.name.split(".")[0])
                    self.names[alias.asname or alias.name.split(".")[0]] = None
            elif isinstance(node, ast.ImportFrom):
                if not node.level:
                    self.imports.add(node.module.split(".")[0])
                for alias in node.names:
                    self.names[alias.asname or alias.name] = (node.level, node.module, alias.name)
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                self.names[node.name] = None
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    self.names.update((name.id, None) for name in ast.walk(target) if isinstance(name, ast.Name))
            for inner in ("body", "orelse", "finalbody"):
                if isinstance(node, (ast.If, ast.Try, ast.With)):
                    self._read(getattr(node, inner, []))

    def origin(self, name):
        """The file of the package that this one has the name from, if it is another."""
        if not self.names.get(name):
            return None
        level, module, imported = self.names[name]
        start = self.path.parent if level else TOP
        for _ in range(level - 1):
            start = start.parent
        path = start.joinpath(*(module or "").split("."))
        for candidate in (path / f"{imported}.py", path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file() and candidate != self.path:
                return candidate
        return None


def is_asgi(path, name):
    """Whether the application is of a framework that speaks ASGI, followed to the file that makes it."""
    for _ in range(MOST_HOPS):
        module = Module(path)
        if module.imports & ASGI_FRAMEWORKS:
            return True
        path = module.origin(name)
        if path is None:
            return False
    return False


def application():
    """The file, and what in it is the application."""
    for file in FILES:
        if (TOP / file).is_file():
            module = Module(TOP / file)
            for name in NAMES:
                if name in module.names:
                    return module.path, name, name
            for name in FACTORIES:
                if name in module.names:
                    return module.path, name, f"{name}()"
            # What cannot be seen may come about when it runs, and what keeps it from running is better said by Python.
            print(f"dinp-start: neither {' nor '.join(NAMES)} is seen in {file}; trying {NAMES[-1]}", file=sys.stderr)
            return module.path, NAMES[-1], NAMES[-1]
    if (TOP / "manage.py").is_file():
        settings = Module(TOP / "manage.py").settings or ""
        wsgi = TOP.joinpath(*settings.split(".")[:1]) / "wsgi.py"
        if not wsgi.is_file():
            fail("manage.py names no settings beside which a wsgi.py lies: write a Procfile with a line web:")
        return wsgi, "application", "application"
    fail(f"the package has no control, Procfile, {', '.join(FILES)} or manage.py at its top level")


path, name, call = application()
module = ".".join(path.relative_to(TOP).with_suffix("").parts)
asgi = path.name == "asgi.py" or is_asgi(path, name)
print(f"--worker-class=dinp_gunicorn.AsgiWorker {module}:{call}" if asgi else f"{module}:{call}")
