"""The domain of an engine: fitted, written, read, and what lies outside it."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load
from support.fake_engine import FakeEngine

from edge_medgemma.calibration.domain import (
    FEWEST_STUDIES,
    CalibrationStudy,
    fit_domain,
    fit_space,
    widened,
)
from edge_medgemma.calibration.phantoms.seeds import EVALUATION_FIRST_SEED
from edge_medgemma.export.demo.domain import phantom_study
from edge_medgemma.runtime.commands.options import BUILTIN_ENGINE
from edge_medgemma.runtime.domain import (
    DOMAIN_FILE,
    ENOUGH_STUDIES,
    StudyDistance,
    dump_domain,
    limit,
    read_domain,
)
from edge_medgemma.runtime.errors import EngineError
from edge_medgemma.runtime.generation.engine import Engine
from edge_medgemma.runtime.manifest import load_manifest
from edge_medgemma.runtime.slicing.volume import BodyPart, Modality

WIDTH = 2


def studies(count: int, scale: float = 1.0, seed: int = 0) -> list[CalibrationStudy]:
    """Studies of nine slices, far wider along one direction than along the other."""
    random = np.random.default_rng(seed)
    return [
        CalibrationStudy(
            Modality.CT, BodyPart.HEAD,
            (scale * random.normal(size=(9, WIDTH)) * [10, 1] + 5).astype(np.float32), f"ge {i % 2}",
        )
        for i in range(count)
    ]  # fmt: skip


def test_distance_is_that_of_mahalanobis_with_the_rest_as_one_variance():
    pooled = np.concatenate([one.pooled for one in studies(40)])
    space = fit_space(pooled)
    assert space.axes.shape == (1, WIDTH)
    expected = np.sqrt((((pooled - pooled.mean(0)) @ np.linalg.eigh(np.cov(pooled.T))[1]) ** 2
                        / np.linalg.eigvalsh(np.cov(pooled.T))).sum(-1) / WIDTH)  # fmt: skip
    assert space.distances(pooled) == pytest.approx(expected, rel=1e-3)


def test_few_slices_of_many_numbers_are_fitted_too():
    random = np.random.default_rng(0)
    few = [CalibrationStudy(Modality.MR, BodyPart.HEAD, random.normal(size=(2, 64)).astype(np.float32))
           for _ in range(6)]  # fmt: skip
    (part,) = fit_domain(few).parts
    assert not part.measure(random.normal(size=(9, 64)).astype(np.float32)).is_unlike
    assert part.measure(random.normal(size=(9, 64)).astype(np.float32) * 4).is_unlike


def test_what_was_written_is_read_back(tmp_path):
    domain = fit_domain(studies(8))
    engine = FakeEngine().calibrate(tmp_path / "engine", domain)
    read = read_domain(engine.directory, engine.manifest)
    assert dump_domain(read) == dump_domain(domain)
    assert read.parts[0].kind.scanners == ("ge 0", "ge 1")
    found = studies(1, seed=1)[0].pooled
    expected = domain.parts[0].measure(found)
    assert read.parts[0].measure(found).slice_ratios == pytest.approx(expected.slice_ratios)


def test_axes_are_written_as_they_lie_whatever_their_strides():
    random = np.random.default_rng(0)
    many = [CalibrationStudy(Modality.CT, BodyPart.HEAD, random.normal(size=(9, 6)).astype(np.float32))
            for _ in range(8)]  # fmt: skip
    (part,) = fit_domain(many).parts
    assert len(part.space.axes) > 1
    assert np.array_equal(load(dump_domain(fit_domain(many)))["axes.0"], part.space.axes)


@pytest.mark.parametrize("damage", ["cut", "another width", "nan"])
def test_a_domain_that_does_not_fit_is_refused(tmp_path, damage):
    domain = fit_domain(studies(8))
    if damage == "nan":
        part = domain.parts[0]
        space = replace(part.space, residual_variance=float("nan"))
        domain = replace(domain, parts=(replace(part, space=space),))
    engine = FakeEngine().calibrate(tmp_path / "engine", domain)
    path = engine.directory / DOMAIN_FILE
    manifest = engine.manifest
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-4])
    if damage == "another width":
        manifest = replace(manifest, text=replace(manifest.text, hidden_size=4, embed_scale=2.0))
    with pytest.raises(EngineError, match="cannot be used"):
        read_domain(engine.directory, manifest)


def test_too_few_studies_are_no_domain():
    assert not fit_domain(studies(FEWEST_STUDIES - 1)).parts
    assert fit_domain(studies(FEWEST_STUDIES)).parts


@pytest.mark.parametrize(
    ("ratio", "conformal_p", "count", "is_unlike"),
    [
        (1.4, 0.01, ENOUGH_STUDIES, True),
        (1.4, 0.02, ENOUGH_STUDIES, False),
        (1.2, 0.01, ENOUGH_STUDIES, False),
        (1.4, 0.1, 9, False),
        (1.51, 0.1, 9, True),
        (float("nan"), 1.0, 9, True),
    ],
)
def test_what_is_unlike(ratio, conformal_p, count, is_unlike):
    assert StudyDistance((), ratio, conformal_p, count).is_unlike is is_unlike


def test_quantised_features_widen_the_limits_and_never_narrow_them():
    domain = fit_domain(studies(8))
    (part,) = domain.parts
    slices = studies(1, seed=3)[0].pooled
    kinds = [(Modality.CT, BodyPart.HEAD)] * len(slices)
    mean = part.space.mean
    for factor, growth in ((2.0, 2.0), (0.5, 1.0)):
        moved = (slices - mean) * np.float32(factor) + mean
        (wider,) = widened(domain, kinds, slices, moved).parts
        assert limit(wider.study_distances) == pytest.approx(
            growth * limit(part.study_distances), rel=1e-4
        )


@pytest.mark.parametrize("seed", range(EVALUATION_FIRST_SEED, EVALUATION_FIRST_SEED + 2))
def test_unseen_phantoms_are_inside_the_domain_of_the_built_in_engine(seed):
    manifest = load_manifest(BUILTIN_ENGINE)
    part = read_domain(BUILTIN_ENGINE, manifest).part(Modality.CT, BodyPart.HEAD)
    with Engine.open(BUILTIN_ENGINE, threads=1) as engine:
        found = part.measure(phantom_study(engine, seed).pooled)
    assert found.ratio < 1.12
    assert len(part.study_distances) >= ENOUGH_STUDIES
