"""The Colab notebook, executed whole at a tiny size, and once more as after a disconnect."""

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parent.parent / "experiments" / "colab.ipynb"
TINY = "SEEDS, STEPS, EXAMPLES = 2, 4096, 1297"


def executed(folder):
    """The text that every code cell printed."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    sizes = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(sizes) == 1
    sizes[0].source = TINY
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    texts = ["".join(output.get("text", "") for output in cell.outputs) for cell in cells]
    pictures = sum("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)
    return "\n".join(texts), pictures


def test_it_is_stored_without_results():
    text = NOTEBOOK.read_text()
    assert '"outputs": []' in text and "image/png" not in text


@pytest.mark.slow
def test_it_runs_and_goes_on_after_a_disconnect(tmp_path):
    printed, pictures = executed(tmp_path)
    assert pictures == 4
    assert "learning_rate" in printed and "beta" in printed
    runs = [tmp_path / "runs" / name for name in ("ppo-cartpole", "learning-rates", "betas", "vae-digits")]
    before = [(run / "summary.json").read_text() for run in runs]
    again, pictures = executed(tmp_path)
    assert pictures == 4
    assert again.count("is done") == 2  # nothing was trained twice
    assert [(run / "summary.json").read_text() for run in runs] == before
