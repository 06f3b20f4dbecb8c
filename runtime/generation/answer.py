"""The model's answer, its reasoning apart from its words."""

from collections.abc import Sequence

from edge_medgemma.runtime.manifest import TokenSpec


def split_thinking(ids: Sequence[int], tokens: TokenSpec) -> tuple[list[int], list[int]]:
    """Token ids of the reasoning and of the answer, without the two markers.

    Split on ids before decoding: decoding drops the markers and would glue the parts together.
    A missing end marker (budget spent) means that all of it was reasoning.
    """
    ids = list(ids)
    if tokens.thought_begin is None or tokens.thought_begin not in ids:
        return [], ids
    begin = ids.index(tokens.thought_begin)
    if tokens.thought_end is None or tokens.thought_end not in ids[begin:]:
        return ids[begin + 1 :], ids[:begin]
    end = ids.index(tokens.thought_end, begin)
    return ids[begin + 1 : end], ids[:begin] + ids[end + 1 :]
