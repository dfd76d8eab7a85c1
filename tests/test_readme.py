"""The README's Python, run as a reader would, but shorter."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
SHORTER = {
    "num_updates=20, eval_every=5": "num_updates=4, eval_every=1",
    "random.key(0), 64": "random.key(0), 4",
    "seeds=8": "seeds=2",
}


def test_the_example_runs():
    text = README.read_text()
    for long, short in SHORTER.items():
        assert long in text
        text = text.replace(long, short)
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    assert dict(names["found"].sizes) == {"learning_rate": 3, "length": 2, "seed": 2, "step": 4}
    assert names["run"].step == 4


def test_links_lead_somewhere():
    text = README.read_text()
    targets = re.findall(r"\]\(([^)#]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for target in (target for target in targets if "://" not in target):
        assert (README.parent / target).exists(), f"README.md links to {target}, which does not exist."
