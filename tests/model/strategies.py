"""Criteria as Hypothesis draws them."""

from hypothesis import strategies as st

from anytime_model.confidence import Entropy, Margin, MaximumProbability, TopShare

thresholds = st.floats(0.3, 0.99)
"""Of a maximum probability."""

confident = st.one_of(
    thresholds.map(MaximumProbability),
    st.floats(0.05, 1.5).map(Entropy),
    st.floats(0.05, 0.95).map(Margin),
    st.floats(0, 1).map(TopShare),
)
"""The criteria that compare confidence with a threshold or with each other."""
