from .main import main, cli_main
from .renderer import render
from .tokenizer import ChevronError

__all__ = ['main', 'render', 'cli_main', 'ChevronError']
