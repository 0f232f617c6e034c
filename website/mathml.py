"""Formulas as MathML, which browsers draw themselves: Sphinx's own way loads a program from a CDN, or needs TeX."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)


def _visit(translator: Any, node: nodes.Element, *, as_block: bool) -> None:
    try:
        translator.body.append(tex2mathml(node.astext(), as_block=as_block))
    except MathError as error:
        LOGGER.warning("This formula cannot be read: %s (%s)", node.astext(), error, location=node)
    raise nodes.SkipNode


def _visit_inline(translator: Any, node: nodes.Element) -> None:
    _visit(translator, node, as_block=False)


def _visit_block(translator: Any, node: nodes.Element) -> None:
    _visit(translator, node, as_block=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx of the renderer ``mathml``."""
    app.add_html_math_renderer("mathml", (_visit_inline, None), (_visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
