"""A POD is fitted once for the same flaws: most of a report's time is this, and few drawn runs differ."""

import copy
import pickle

import pytest

from projects.measures import flaws

KEPT = {}


@pytest.fixture(autouse=True, scope='module')
def fitted_once():
    """Keep what was fitted for equal sizes, hits, contrasts and parts."""
    fit = flaws.fit_pod

    def fit_pod(**settings):
        key = pickle.dumps(settings)
        if key not in KEPT:
            KEPT[key] = fit(**settings)
        return copy.deepcopy(KEPT[key])  # the caller adds to its problems

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flaws, 'fit_pod', fit_pod)
        yield
