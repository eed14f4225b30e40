from typing import Any

import pytest

from musilingo_core.errors import ConfigError
from musilingo_core.sampling import Sampling


@pytest.mark.parametrize(
    "values",
    [{"temperature": -1}, {"top_p": 2}, {"max_new_tokens": 0}, {"seed": -1}, {"top_k": -5}],
)
def test_senseless_settings_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        Sampling(**values)
