"""What reads a results.json that lacks something, or has it in another form, says so in one line."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from jinja2 import TemplateError

P = ParamSpec("P")
R = TypeVar("R")


def of_whole_results(
    render: Callable[Concatenate[Mapping[str, Any], P], R],
) -> Callable[Concatenate[Mapping[str, Any], P], R]:
    """For a function of results: what they lack becomes a `ValueError` that names it, and the run that they are of."""

    @functools.wraps(render)
    def rendered(results: Mapping[str, Any], *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return render(results, *args, **kwargs)
        except KeyError as error:
            raise ValueError(f"{_name(results)}: has no {error.args[0]!r}; {_REMEDY}") from None
        except (TypeError, AttributeError, ArithmeticError, IndexError, TemplateError, ValueError) as error:
            said = " ".join(str(error).split())
            raise ValueError(f"{_name(results)}: is not as a run writes it ({said}); {_REMEDY}") from None

    return cast(Callable[Concatenate[Mapping[str, Any], P], R], rendered)


_REMEDY = "give the results.json of a run, or evaluate the run again, with --resume"


def _name(results: Mapping[str, Any]) -> str:
    return f"results.json of the run {results.get('run')!r}"
