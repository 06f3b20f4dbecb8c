"""The training sequence is what transformers itself computes on the same prompt."""

import pytest

torch = pytest.importorskip("torch")

from edge_medgemma.calibration.phantoms.anatomy import FINDINGS, HAEMORRHAGE
from edge_medgemma.export.demo.checkpoint import open_dialogue, write_texts
from edge_medgemma.export.demo.dialogue import END_OF_TURN, IGNORED, SpokenQuestion
from edge_medgemma.export.demo.language_stage import run_sequence
from edge_medgemma.export.demo.network import TOKENS_PER_IMAGE, new_network
from edge_medgemma.export.demo.vocabulary import TOKENS

SLICES = 20
"""Their tokens are more than the sliding window holds."""


@pytest.fixture(scope="module")
def dialogue(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    write_texts(folder)
    return open_dialogue(folder)


def test_every_branch_sees_what_it_would_see_alone(dialogue):
    torch.manual_seed(0)
    network = new_network().eval()
    layout = dialogue.layout(SLICES)
    ids, _ = dialogue.fill(layout, [frozenset()])
    features = torch.randn(1, SLICES, TOKENS_PER_IMAGE, 128)
    rows = torch.tensor([answer.start - 1 for answer in layout.answers])
    prefix = int((layout.position_ids[0].diff() != 1).nonzero()[0]) + 1  # end of the first branch
    with torch.no_grad():
        packed = run_sequence(network, layout, ids, features, rows)[0][0]
        alone = ids[:, :prefix]
        embeddings = network.get_input_embeddings()(alone)
        embeddings[0, layout.image_rows] = features.flatten(1, 2)[0]
        expected = network(
            inputs_embeds=embeddings,
            token_type_ids=(alone == TOKENS.image).long(),
            attention_mask=torch.ones_like(alone),
        ).logits[0, rows[0]]
    difference = (packed[0] - expected).abs()
    print(f"max {difference.max():.2e} mean {difference.mean():.2e}")
    assert difference.max() < 1e-4


def test_labels_stand_one_before_the_answers(dialogue):
    layout = dialogue.layout(4, SpokenQuestion("Describe the findings.", None))
    ids, labels = dialogue.fill(layout, [frozenset([HAEMORRHAGE])])
    taught = labels[0][labels[0] != IGNORED].tolist()
    assert taught[:6] == [
        token
        for answer in (dialogue.yes, dialogue.no, dialogue.no)
        for token in (answer, END_OF_TURN)
    ]
    assert taught[-1] == END_OF_TURN
    where = (labels[0] != IGNORED).nonzero()[:, 0]
    assert torch.equal(ids[0, where + 1], labels[0, where])
    assert len(layout.answers) == len(FINDINGS) + 1
