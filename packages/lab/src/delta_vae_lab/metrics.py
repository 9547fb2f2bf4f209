"""The bound as `evaluate` metrics, for scripts that already collect their numbers that way; they work offline.

    metric = PerplexityBound()
    metric.add_batch(negative_elbo_nats=(out.rate + out.distortion).tolist(), tokens=out.mask.sum(1).tolist())
    metric.compute()    # {"perplexity_per_token": ..., "perplexity_per_token_stderr": ..., "nats_per_token": ..., ...}

The arithmetic is that of `estimates`. With several processes, compute returns None on all but the first.
"""

from __future__ import annotations

from collections.abc import Sequence

import datasets
import evaluate
import torch

from delta_vae_lab.estimates import mean, perplexity, ratio

_CITATION = (
    "Razavi, van den Oord, Poole, Vinyals: Preventing Posterior Collapse with delta-VAEs. ICLR 2019, arXiv:1901.03416."
)


class PerplexityBound(evaluate.Metric):
    """Upper bound on the perplexity a token: exp(sum of negative ELBOs / sum of tokens)."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Upper bound on the perplexity a token, from negative ELBOs in nats a sequence.",
            citation=_CITATION,
            inputs_description="negative_elbo_nats: nats a sequence; tokens: predicted tokens a sequence, EOS too.",
            features=datasets.Features(
                {"negative_elbo_nats": datasets.Value("float64"), "tokens": datasets.Value("int64")}
            ),
        )

    def _compute(self, negative_elbo_nats: Sequence[float], tokens: Sequence[int]) -> dict[str, float]:
        per_token = ratio(torch.tensor(negative_elbo_nats, dtype=torch.float64), torch.tensor(tokens))
        return per_token.named("nats_per_token") | perplexity(per_token).named("perplexity_per_token")


class Rate(evaluate.Metric):
    """Rate, committed rate and the slack between them, in nats a sequence."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Rate KL(q(z|x) || p(z)), the committed rate below it, and the slack between them.",
            citation=_CITATION,
            inputs_description="rate_nats, committed_rate_nats: nats a sequence, against one and the same prior.",
            features=datasets.Features(
                {"rate_nats": datasets.Value("float64"), "committed_rate_nats": datasets.Value("float64")}
            ),
        )

    def _compute(self, rate_nats: Sequence[float], committed_rate_nats: Sequence[float]) -> dict[str, float]:
        rate, committed = (torch.tensor(values, dtype=torch.float64) for values in (rate_nats, committed_rate_nats))
        return {
            **mean(rate).named("rate_nats"),
            **mean(committed).named("committed_rate_nats"),
            **mean(rate - committed).named("slack_nats"),
        }
