import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sk

from fer_jax.training import metrics
from fer_jax.training.confusion import confusion_metrics


def test_merged_batches_equal_one_batch_and_padded_rows_do_not_count() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(10, 8)).astype(np.float32)
    target = rng.dirichlet(np.ones(8), 10).astype(np.float32)
    loss = rng.random(10).astype(np.float32)
    whole = metrics.count_batch(loss, logits, target, np.ones(10, np.float32))

    first = metrics.count_batch(loss[:6], logits[:6], target[:6], np.ones(6, np.float32))
    mask = np.array([1, 1, 1, 1, 0, 0], np.float32)
    padded = np.concatenate([loss[6:], [np.nan, np.inf]])
    rest = metrics.count_batch(padded, np.pad(logits[6:], ((0, 2), (0, 0))), np.pad(target[6:], ((0, 2), (0, 0))), mask)
    merged = metrics.merge(first, rest)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(merged), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    expected = sk.confusion_matrix(target.argmax(1), logits.argmax(1), labels=range(8))
    np.testing.assert_array_equal(merged.confusion, expected)
    assert metrics.summary(merged)["loss"] == pytest.approx(loss.mean(), rel=1e-6)


def test_summary_has_the_mean_loss_and_the_metrics_of_all_classes() -> None:
    confusion = np.diag(np.arange(8.0))
    confusion[0, 1] = 2
    counted = metrics.zeros()._replace(
        loss=jnp.float32(15), examples=jnp.float32(30), confusion=jnp.asarray(confusion, jnp.float32)
    )
    expected = {name: values[0] for name, values in confusion_metrics(confusion[..., None]).items() if "/" not in name}
    assert metrics.summary(counted) == pytest.approx({"loss": 0.5, **expected})
    assert {type(value) for value in metrics.summary(counted).values()} == {float}  # JSON takes no numpy numbers
    assert metrics.summary(metrics.zeros())["loss"] == 0


def test_merge_keeps_the_first_bad_step() -> None:
    later = metrics.zeros()._replace(bad_step=jnp.int32(7))
    earlier = metrics.zeros()._replace(bad_step=jnp.int32(5))
    assert int(metrics.merge(metrics.merge(metrics.zeros(), later), earlier).bad_step) == 5
    assert int(metrics.zeros().bad_step) == metrics.NEVER
