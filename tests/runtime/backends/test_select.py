import pytest

from edge_medgemma.runtime.backends.select import (
    AUTOMATIC,
    Provider,
    Providers,
    parse_providers,
)
from edge_medgemma.runtime.errors import ProviderError


def test_a_name_alone_is_for_both_parts_and_later_words_win() -> None:
    assert parse_providers([]) == AUTOMATIC
    assert parse_providers(["cpu"]) == Providers(Provider.CPU, Provider.CPU)
    assert parse_providers(["cpu", "vision=auto"]) == Providers(Provider.AUTO, Provider.CPU)


@pytest.mark.parametrize("word", ["npu", "vision=npu", "tail=cpu", "=cpu", "vision="])
def test_an_unknown_part_or_name_lists_the_known(word: str) -> None:
    with pytest.raises(ProviderError, match="auto, cpu, openvino"):
        parse_providers([word])


@pytest.mark.parametrize("name", [Provider.OPENVINO, Provider.NATIVE])
def test_some_are_for_vision(name: Provider) -> None:
    assert parse_providers([f"vision={name}"]) == Providers(vision=name)
    for word in (name, f"decoder={name}"):
        with pytest.raises(ProviderError, match=f"vision={name}"):
            parse_providers([word])
