"""The options of latent outlier exposure, for methods that have a loss for normal and one for anomalous images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

from data_tools.errors import UserError
from trainer.methods.base import Variant

if TYPE_CHECKING:
    from trainer.methods.base import Method

Outliers = Literal["blind", "hard", "soft", "refine"]
ALPHA = 0.05
"""The assumed share of anomalies; one for all methods, since none may know the true one."""


def check_outliers(options: Any) -> None:
    """UserError for an `alpha` that cannot be, or that no batch is large enough for."""
    how, alpha, batch = options.outliers, options.alpha, options.minibatch
    if alpha >= 1:
        raise UserError(f"{options.option('alpha')} {alpha} is not a share - give less than 1, e.g. {ALPHA}")
    if how != "blind" and alpha and int(alpha * batch) < 1:
        more = options.option("minibatch")
        raise UserError(
            f"{options.option('alpha')} {alpha} of a batch of {batch} is less than one image - give {more} more"
        )


def variants_with(method: type[Method]) -> dict[str, Variant]:
    """The method as it is, and with each way to treat outliers: NAME, NAME-hard, NAME-soft, NAME-refine."""
    name, title = method.name(), method.title
    others = [how for how in get_args(Outliers) if how != "blind"]
    return {name: Variant(title)} | {
        f"{name}-{how}": Variant(f"{title}, LOE {how}", {f"{name}.outliers": how}) for how in others
    }
