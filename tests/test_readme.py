"""The README's Python, run as a reader would."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_example_runs():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert blocks
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    assert dict(names["found"].sizes) == {"learning_rate": 3, "length": 2, "seed": 8, "step": 4}
    assert names["run"].step == 20


def test_links_lead_somewhere():
    text = README.read_text()
    targets = re.findall(r"\]\(([^)#]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for target in (target for target in targets if "://" not in target):
        assert (README.parent / target).exists(), f"README.md links to {target}, which does not exist."
