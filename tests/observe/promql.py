"""Which metrics and labels a PromQL query names, and which the code declares."""

import re
from functools import cache

from scripts import metrics_catalogue

OF_A_TARGET = {"job", "instance", "process"}  # labels that a scrape adds
_METRIC = re.compile(r"\b(k2_[a-z0-9_]+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")
_LEGEND = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_HISTOGRAM = re.compile(r"_(?:bucket|sum|count)$")


_declared = cache(metrics_catalogue.declarations)


def metrics_of(expr):
    """The names of the metrics of a query, a histogram's without its suffix, and their matchers."""
    return [
        (_HISTOGRAM.sub("", name), set(_MATCHER.findall(matchers)))
        for name, matchers in _METRIC.findall(expr)
    ]


def faults(expr, legend="", declarations=None):
    """What a query names that is not declared."""
    declarations = _declared() if declarations is None else declarations
    found = []
    grouped = {
        label.strip()
        for group in _GROUPING.findall(expr)
        for label in group.split(",")
        if label.strip()
    } | set(_LEGEND.findall(legend))
    for name, matchers in metrics_of(expr):
        declaration = declarations.get(name)
        if declaration is None:
            found.append(f"no metric {name}")
            continue
        suffixed = re.search(rf"\b{name}_(?:bucket|sum|count)\b", expr) is not None
        if suffixed != (declaration.kind == "histogram"):
            found.append(f"{name} is a {declaration.kind}")
        allowed = {*declaration.labels, *OF_A_TARGET, *(("le",) if suffixed else ())}
        found += [f"{name} has no label {one}" for one in sorted((matchers | grouped) - allowed)]
    return found
