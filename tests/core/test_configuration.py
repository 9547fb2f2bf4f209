"""Configs: what is refused and how it is said, and that JSON gives back what was saved."""

import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedConfig

from delta_vae_core import StrictConfig, checked, require


@checked
class PartConfig(StrictConfig):
    model_type = "part_under_test"
    width: int = 4
    rates: list[float | int] | None = None
    slope: float | int = 0.5

    def validate_width(self) -> None:
        require(self.width, "width", self.width >= 1, "must be at least 1")


@checked
class WholeConfig(StrictConfig):
    model_type = "whole_under_test"
    sub_configs = {"part": PartConfig}  # noqa: RUF012
    part: PreTrainedConfig | dict[str, Any] | None = None
    depth: int = 2

    def __post_init__(self, **kwargs: Any) -> None:
        if isinstance(self.part, dict):
            self.part = PartConfig(**self.part)
        self.part = self.part or PartConfig()
        super().__post_init__(**kwargs)


def refusal(config: Callable[..., StrictConfig], **wrong: Any) -> str:
    with pytest.raises(ValueError, match=":") as error:
        config(**wrong)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_unknown_key_is_refused_with_the_nearest_known() -> None:
    assert refusal(PartConfig, widht=3) == "PartConfig: unknown key 'widht'; did you mean 'width'?"


def test_an_unknown_key_like_no_other_is_refused_with_our_own_keys() -> None:
    """And not with the dozens that every transformers config has."""
    assert refusal(PartConfig, zzz=3) == "PartConfig: unknown key 'zzz'; known keys: rates, slope, width"


def test_a_generation_setting_is_no_model_setting() -> None:
    """transformers would drop it in silence."""
    assert "unknown key 'temperature'" in refusal(PartConfig, temperature=0.7)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"width": "4"}, "Field 'width' expected int, got str (value: '4')"),
        ({"width": 4.0}, "Field 'width' expected int, got float"),
        ({"slope": "1e-4"}, "Field 'slope'"),
        ({"rates": [0.1, "0.2"]}, "Field 'rates'"),
        ({"rates": 0.1}, "Field 'rates'"),
        ({"width": None}, "Field 'width' expected int, got NoneType"),
    ],
)
def test_a_wrong_type_is_one_line_that_names_class_and_field(wrong: dict[str, Any], told: str) -> None:
    assert refusal(PartConfig, **wrong).startswith("PartConfig: " + told)


def test_a_broken_rule_names_value_rule_and_remedy() -> None:
    assert refusal(PartConfig, width=-1) == "PartConfig: width=-1: must be at least 1"


def test_positional_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="PartConfig accepts only keyword arguments"):
        PartConfig(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [1, 0.25])
def test_an_integer_is_a_number(value: float) -> None:
    assert PartConfig(slope=value).slope == value


def test_what_transformers_passes_along_is_accepted() -> None:
    passed: dict[str, Any] = {"attn_implementation": "eager", "name_or_path": "x", "dtype": "bfloat16"}
    assert PartConfig(**passed, architectures=["Model"]).architectures == ["Model"]


def test_json_gives_back_what_was_saved(tmp_path: Path) -> None:
    config = PartConfig(width=7, rates=[0.1, 2, 1e-9])
    config.save_pretrained(tmp_path)
    loaded = PartConfig.from_pretrained(tmp_path)
    assert loaded.to_diff_dict() == config.to_diff_dict()
    assert (loaded.width, loaded.rates, loaded.slope) == (7, [0.1, 2, 1e-9], 0.5)


def written_to(folder: Path) -> dict[str, Any]:
    written: dict[str, Any] = json.loads((folder / "config.json").read_text())
    assert written.pop("transformers_version")
    assert written.pop("delta_vae_version") == metadata.version("delta-vae-core")
    assert written.pop("delta_vae_format") == 1
    return written


def test_our_keys_are_saved_all_and_of_transformers_what_differs_from_its_defaults(tmp_path: Path) -> None:
    """So a checkpoint keeps its meaning when a default of ours changes, and its config.json can be read."""
    PartConfig(width=7).save_pretrained(tmp_path)
    assert written_to(tmp_path) == {"model_type": "part_under_test", "width": 7, "rates": None, "slope": 0.5}
    PartConfig(width=7, architectures=["Model"]).save_pretrained(tmp_path)
    assert written_to(tmp_path)["architectures"] == ["Model"]


@pytest.mark.parametrize(("part", "width"), [(None, 4), (PartConfig(width=9), 9), ({"width": 9}, 9)])
def test_nested_configs_likewise(part: PartConfig | dict[str, int] | None, width: int, tmp_path: Path) -> None:
    config = WholeConfig(part=part, depth=3)
    config.save_pretrained(tmp_path)
    saved = {"model_type": "part_under_test", "width": width, "rates": None, "slope": 0.5}
    assert written_to(tmp_path) == {"model_type": "whole_under_test", "depth": 3, "part": saved}
    loaded = WholeConfig.from_pretrained(tmp_path)
    assert isinstance(loaded.part, PartConfig)
    assert loaded.part.width == width
    assert loaded.to_diff_dict() == config.to_diff_dict()


def test_a_breach_in_a_nested_config_names_the_nested_class() -> None:
    with pytest.raises(ValueError, match="PartConfig: width=0: must be at least 1"):
        WholeConfig(part={"width": 0})
    with pytest.raises(ValueError, match="PartConfig: unknown key 'widht'; did you mean 'width'"):
        WholeConfig(part={"widht": 1})


@pytest.mark.parametrize(
    ("written", "message"),
    [({"widht": 3}, "PartConfig: unknown key 'widht'"), ({"width": 0}, "width=0"), ({"width": "3"}, "Field 'width'")],
)
def test_a_file_is_checked_like_an_argument(written: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "part_under_test", **written}))
    with pytest.raises(ValueError, match=message):
        PartConfig.from_pretrained(tmp_path)


def test_a_value_set_later_is_checked_too(tmp_path: Path) -> None:
    config = PartConfig()
    with pytest.raises(Exception, match="Field 'width' expected int"):
        config.width = "wide"  # type: ignore[assignment]
    config.width = 0
    with pytest.raises(Exception, match="width=0: must be at least 1"):
        config.save_pretrained(tmp_path)


@pytest.mark.parametrize(("rule", "raises"), [(True, False), (False, True)])
def test_require(rule: bool, raises: bool) -> None:
    if raises:
        with pytest.raises(ValueError, match=r"^rate='x': use a number$"):
            require("x", "rate", rule, "use a number")
    else:
        require("x", "rate", rule, "use a number")
