"""The methods that a configuration may name. A new one is a module of this package and an entry here."""

from distill.method.base import Method
from distill.method.dmd_gan import DmdGan
from distill.method.dmd_perceptual import DmdPerceptual
from distill.method.variants import Dmd, DpDmd, DpDmdNoDetach, Step1Regression

METHODS: dict[str, type[Method]] = {
    method.name: method for method in (DpDmd, DpDmdNoDetach, Dmd, DmdPerceptual, DmdGan, Step1Regression)
}


def owners_of_settings() -> dict[str, str]:
    """The configuration's keys that belong to one method alone → the method's name."""
    return {key: name for name, method in METHODS.items() for key in method.Settings.model_fields}
