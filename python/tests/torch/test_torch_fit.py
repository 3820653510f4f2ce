"""`usae.torch.fit`: training while the networks run, without files."""

import numpy as np
import pytest

import usae
from support.autoencoders import everything
from support.extraction import networks
from support.refusals import refuses
from usae.torch import batches, fit


@pytest.fixture
def models():
    return networks()


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (11, 40, 30, 3), np.uint8)


RECIPE = usae.recipes.default(batch_size=32, encoded_models="one")


def test_fitting_is_extraction_and_streaming_put_together(models, images):
    options = {"steps": 12, "buffer_tokens": 64}
    sae = fit(usae.UniversalSAE(16, 4, recipe=RECIPE), models, images, batch_size=2, **options)
    stream = [next(batches(models, images[start : start + 2], batch_size=2)) for start in range(0, 11, 2)]
    assert everything(sae) == everything(usae.UniversalSAE(16, 4, recipe=RECIPE).fit_stream(stream, **options))
    assert sae.stream_report_.epochs == 3 and sae.n_features_in_ == {"fine": 5, "coarse": 7}


def test_a_fit_that_stops_goes_on_to_the_same_autoencoder_and_an_iterator_of_pictures_cannot(models, images, tmp_path):
    def stop(report):
        if report.step == 7:
            raise KeyboardInterrupt

    def learned(images, **more):
        sae = usae.UniversalSAE(16, 4, recipe=RECIPE)
        return fit(sae, models, images, batch_size=2, steps=12, buffer_tokens=64, **more)

    options = {"checkpoint": tmp_path / "run", "resume": True}
    with pytest.raises(KeyboardInterrupt):
        learned(images, callbacks=[stop], **options)
    assert usae.Checkpoints(tmp_path / "run").load().n_steps_ == 7
    assert everything(learned(images, **options)) == everything(learned(images))
    with refuses("batches", "generator"):
        learned(iter(images), **options)


def test_an_iterator_of_pictures_has_to_last(models, images):
    sae = usae.UniversalSAE(16, 4, recipe=RECIPE)
    assert fit(sae, models, iter(images), steps=5, buffer_tokens=64) is sae and sae.n_steps_ == 5
    with refuses("batches", "176 rows, enough for 5"):
        fit(sae, models, iter(images), steps=6, buffer_tokens=64)


def test_errors_of_pictures_and_models_come_through(models, images):
    sae = usae.UniversalSAE(16, 4, recipe=RECIPE)
    with refuses("models", "list"):
        fit(sae, [models["fine"]], images, steps=3)
    with refuses("images[1]", "int"):
        fit(sae, models, [images[0], 7], steps=3)
    assert not hasattr(sae, "history_")


def test_pictures_that_cannot_be_read_can_be_left_out(models, images, tmp_path):
    options = {"steps": 12, "buffer_tokens": 64}
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    skipped = []
    with pytest.warns(UserWarning, match="1 of 12 pictures"):
        sae = fit(
            usae.UniversalSAE(16, 4, recipe=RECIPE),
            models,
            [*images[:5], tmp_path / "bad.jpg", *images[5:]],
            on_error="skip",
            skipped=skipped,
            **options,
        )
    assert everything(sae) == everything(fit(usae.UniversalSAE(16, 4, recipe=RECIPE), models, images, **options))
    assert {(each.number, each.name) for each in skipped} == {(5, str(tmp_path / "bad.jpg"))}
