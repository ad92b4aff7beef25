"""The forms of the model that the documentation names."""

import re
from pathlib import Path
from types import SimpleNamespace

from harness.methods import AS_PUBLISHED, CHANGES

DOCS = Path(__file__).parents[2] / "docs"


def test_settings_as_published_are_those_of_the_documentation():
    text = (DOCS / "fidelity.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```python\n(model = SCMVPModel.*?)```", text, re.DOTALL)
    asked = {}

    def build(mdata, **model):
        asked["model"] = model
        train = lambda epochs, plan_kwargs: asked.update(epochs=epochs, plan=plan_kwargs)  # noqa: E731
        return SimpleNamespace(train=train)

    exec(block, {"SCMVPModel": build, "mdata": None})
    assert asked == AS_PUBLISHED


def test_each_form_that_the_benchmarks_page_names_is_run():
    text = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    for name in re.findall(r"`scmvp, ([^`…]+)`", text):
        assert name.replace("\n", " ") in CHANGES
