"""Tensors in sealed files: the same content gives the same bytes."""

from pathlib import Path

import torch

from avel.stores.tensors import load_tensors, save_tensors


def test_the_same_tensors_and_texts_give_the_same_bytes(tmp_path: Path) -> None:
    tensors = {"weight": torch.arange(6.0).view(2, 3), "half": torch.ones(2, dtype=torch.float16)}
    texts = {"zoo": '{"a": [1, "é"]}', "about": 'lines\nand \x1b"quotes"\\', "format": "x", "empty": ""}
    files = set()
    for turn in range(8):  # safetensors would order five texts in another way in 119 of 120 cases
        path = tmp_path / str(turn)
        save_tensors(path, tensors, **texts)
        files.add(path.read_bytes())
    assert len(files) == 1
    loaded, header = load_tensors(path, "")
    assert {name: header[name] for name in texts} == texts
    assert all(torch.equal(loaded[name], values) for name, values in tensors.items())
