"""The choice of precisions in an artifact."""

from pathlib import Path

import pytest

from classifier.engine import base
from classifier.engine.base import EngineChoice
from classifier.errors import ArtifactError


@pytest.mark.parametrize(
    ("choice", "has_int8", "has_bf16", "precision"),
    [
        (EngineChoice(bf16=True, int8=True), True, True, "int8"),
        (EngineChoice(bf16=True, int8=True), False, True, "bf16"),
        (EngineChoice(bf16=True, int8=False), True, True, "bf16"),
        (EngineChoice(bf16=True, int8=True), False, False, "f32"),
        (EngineChoice(bf16=False, int8=False), True, True, "f32"),
    ],
)
def test_precision_is_the_fastest_safe_one_that_the_cpu_supports(
    monkeypatch: pytest.MonkeyPatch, choice: EngineChoice, has_int8: bool, has_bf16: bool, precision: str
) -> None:
    monkeypatch.setattr(base, "cpu_has_int8", lambda: has_int8)
    monkeypatch.setattr(base, "cpu_has_bf16", lambda: has_bf16)
    assert choice.precision() == precision


def test_choice_survives_its_file(tmp_path: Path) -> None:
    EngineChoice(bf16=False, int8=True).write(tmp_path)
    assert EngineChoice.read(tmp_path) == EngineChoice(bf16=False, int8=True)


def test_default_choice_without_a_file_uses_only_fp32(tmp_path: Path) -> None:
    assert EngineChoice.read(tmp_path) == EngineChoice(bf16=False, int8=False)


@pytest.mark.parametrize("text", ["{", '{"int8": "perhaps"}', "[]"])
def test_error_names_a_damaged_choice(tmp_path: Path, text: str) -> None:
    (tmp_path / "engine.json").write_text(text, encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"engine\.json"):
        EngineChoice.read(tmp_path)
