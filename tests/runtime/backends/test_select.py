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


def test_openvino_is_for_vision() -> None:
    assert parse_providers(["vision=openvino"]) == Providers(vision=Provider.OPENVINO)
    for word in ("openvino", "decoder=openvino"):
        with pytest.raises(ProviderError, match="vision=openvino"):
            parse_providers([word])
