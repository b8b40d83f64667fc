"""The notebook runs from top to bottom, with fewer updates than a reader's."""

import json
from pathlib import Path

import pytest

from tests.own_environment import own_environment, run

NOTEBOOK = Path(__file__).parent.parent / "examples" / "quickstart.ipynb"
FEWER = {
    "BC, OFFLINE, ONLINE = 300, 1200, 600": "BC, OFFLINE, ONLINE = 4, 100, 80",
    '"episodes": 80': '"episodes": 8',
    '"eval_every": 400': '"eval_every": 100',
    '"final_episodes": 20': '"final_episodes": 2, "episodes": 2, "num_envs": 2',
}
EXECUTE = """
import os, sys, nbformat, nbclient
os.environ.pop("MPLBACKEND", None)  # of the tests; a notebook has its own
book = nbformat.read(sys.argv[1], 4)
nbclient.NotebookClient(book, timeout=900, resources={"metadata": {"path": sys.argv[2]}}).execute()
nbformat.write(book, sys.argv[1])
"""


def test_its_outputs_are_stripped():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.mark.slow
def test_it_runs(tmp_path):
    text = NOTEBOOK.read_text(encoding="utf-8")
    for usual, fewer in FEWER.items():
        usual, fewer = (json.dumps(part)[1:-1] for part in (usual, fewer))
        assert text.count(usual) == 1
        text = text.replace(usual, fewer)
    book = tmp_path / "quickstart.ipynb"
    book.write_text(text, encoding="utf-8")
    python = own_environment(tmp_path / "env", "nbclient", "ipykernel")
    run(python, "-c", EXECUTE, str(book), str(tmp_path))
    made = [out for cell in json.loads(book.read_text())["cells"] for out in cell.get("outputs", ())]
    kinds = [kind for out in made for kind in out.get("data", {})]
    assert kinds.count("image/png") == 2  # what the envs see, and the curves
    assert any("<video" in "".join(out["data"].get("text/html", ())) for out in made if "data" in out)
    assert (tmp_path / "quickstart" / "tray.hdf5").is_file()
    assert list((tmp_path / "quickstart").glob("policy_*/weights.safetensors"))
