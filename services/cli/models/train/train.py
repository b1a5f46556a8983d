"""Trains the demo model from nothing on stories of its own making and writes it as a Q8_0 GGUF file.

    python3 train.py --minutes 4 --out ../demo.gguf

Minutes on one GPU; on a CPU the same hours long, or badly with few minutes. What is drawn depends on the seeds alone; the weights also on the machine.
"""

import argparse
import math
import multiprocessing
import random
import time

import numpy
import torch
import torch.nn.functional as F
from torch import nn

import chat
import gguf
from bpe import Vocabulary
from grammar import Story
from reader import Reader, sentences

N_VOCAB, N_CONTEXT = 2048, 1024
N_LAYERS, N_EMBD, N_HEADS, N_KV_HEADS, N_FF = 8, 256, 4, 2, 768
HEAD_DIM = N_EMBD // N_HEADS
EPS, ROPE_BASE = 1e-5, 10_000.0


# === model ===


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn_norm, self.ffn_norm = nn.RMSNorm(N_EMBD, EPS), nn.RMSNorm(N_EMBD, EPS)
        self.attn_q = nn.Linear(N_EMBD, N_HEADS * HEAD_DIM, bias=False)
        self.attn_k = nn.Linear(N_EMBD, N_KV_HEADS * HEAD_DIM, bias=False)
        self.attn_v = nn.Linear(N_EMBD, N_KV_HEADS * HEAD_DIM, bias=False)
        self.attn_output = nn.Linear(N_HEADS * HEAD_DIM, N_EMBD, bias=False)
        self.ffn_gate, self.ffn_up = nn.Linear(N_EMBD, N_FF, bias=False), nn.Linear(N_EMBD, N_FF, bias=False)
        self.ffn_down = nn.Linear(N_FF, N_EMBD, bias=False)

    def forward(self, x, angles):  # x: [rows, n, N_EMBD]
        rows, n, _ = x.shape
        heads = lambda flat, count: flat.view(rows, n, count, HEAD_DIM).transpose(1, 2)  # noqa: E731
        y = self.attn_norm(x)
        q, k = rotate(heads(self.attn_q(y), N_HEADS), angles), rotate(heads(self.attn_k(y), N_KV_HEADS), angles)
        v = heads(self.attn_v(y), N_KV_HEADS)
        k, v = (each.repeat_interleave(N_HEADS // N_KV_HEADS, dim=1) for each in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn_output(y.transpose(1, 2).reshape(rows, n, N_EMBD))
        y = self.ffn_norm(x)
        return x + self.ffn_down(F.silu(self.ffn_gate(y)) * self.ffn_up(y))


def rotate(x, angles):
    """Rotary positions over neighbouring pairs, as llama's GGUF files have them. x: [rows, heads, n, HEAD_DIM]; angles: [n, HEAD_DIM / 2]."""
    even, odd = x[..., 0::2].float(), x[..., 1::2].float()
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2).to(x.dtype)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.token_embd = nn.Embedding(N_VOCAB, N_EMBD)
        self.blk = nn.ModuleList(Layer() for _ in range(N_LAYERS))
        self.output_norm = nn.RMSNorm(N_EMBD, EPS)
        frequencies = ROPE_BASE ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
        self.register_buffer("angles", torch.arange(N_CONTEXT)[:, None] * frequencies, persistent=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                shrink = (2 * N_LAYERS) ** -0.5 if "output" in name or "down" in name else 1
                nn.init.normal_(weight, std=0.02 if weight is self.token_embd.weight else shrink * weight.shape[1] ** -0.5)

    def forward(self, ids):
        """ids: [rows, n] to logits: [rows, n, N_VOCAB]. The embedding is the output matrix, too."""
        x = self.token_embd(ids)
        for layer in self.blk:
            x = layer(x, self.angles[: ids.shape[1]])
        return F.linear(self.output_norm(x), self.token_embd.weight)


# === training ===


class Corpus:
    """The training text as ids, and where its documents begin."""

    def __init__(self, vocabulary, n_documents, device):
        with multiprocessing.Pool(initializer=share, initargs=(vocabulary,)) as pool:
            documents = pool.map(encoded, range(n_documents), chunksize=500)
        ends = numpy.cumsum([len(each) for each in documents])
        starts = ends[ends < ends[-1] - N_CONTEXT - 1]
        self.ids = torch.from_numpy(numpy.concatenate(documents)).to(device)
        self.starts = torch.from_numpy(numpy.concatenate([[0], starts])).to(device)

    def batch(self, rows):
        """`rows` windows that begin with a document: [rows, N_CONTEXT + 1]."""
        starts = self.starts[torch.randint(len(self.starts), (rows,), device=self.starts.device)]
        return self.ids[starts[:, None] + torch.arange(N_CONTEXT + 1, device=starts.device)].long()


def share(vocabulary):
    global shared
    shared = vocabulary


def encoded(seed):
    return numpy.array(shared.encode(chat.document(seed)), dtype=numpy.int16)


def loss_of(model, ids):
    logits = model(ids[:, :-1])
    return F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())


def train(model, corpus, options):
    """The learning rate rises over the first 2 % of the time and falls to zero with the rest."""
    matrices = [weight for weight in model.parameters() if weight.ndim == 2]
    vectors = [weight for weight in model.parameters() if weight.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    on_gpu = options.device == "cuda"
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95), fused=on_gpu)
    compiled = torch.compile(loss_of) if on_gpu else loss_of
    start, step, done = None, 0, 0.0
    while done < 1:
        rate = options.rate * min(done / 0.02 + 0.01, 1 - done)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(options.device, dtype=torch.bfloat16, enabled=on_gpu):
            loss = compiled(model, corpus.batch(options.rows))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        # The first step compiles: the clock starts behind it.
        start = start or (loss.item() and time.monotonic())
        done = (time.monotonic() - start) / (60 * options.minutes)
        if step % 200 == 0 or done >= 1:
            millions = step * options.rows * N_CONTEXT / 1e6
            print(f"step {step}  {millions:.0f}M tokens  {100 * done:.0f} %  loss {loss.item():.4f}", flush=True)


# === what came of it ===


class Counting(random.Random):
    """Adds up the information in what it draws, in nats."""

    nats = 0.0

    def choice(self, entries):
        self.nats += math.log(len(entries))
        return super().choice(entries)


@torch.no_grad()
def judge(model, vocabulary, options):
    """Loss on new stories beside what is in them, and how many greedy sentences the grammar knows."""
    counting = Counting("new stories")
    nats, n_tokens = 0.0, 0
    for _ in range(100):
        ids = vocabulary.encode(chat.BEGIN + Story(counting).text + chat.END)
        nats += loss_of(model, torch.tensor([ids], device=options.device)).item() * (len(ids) - 1)
        n_tokens += len(ids) - 1
    print(f"new stories: {nats / n_tokens:.4f} nats a token, of which {counting.nats / n_tokens:.4f} were drawn")
    openings = ["Once upon a time", "The little bird", f"{chat.USER}tell me a story about a fox{chat.END}{chat.ASSISTANT}"]
    for opening in openings:
        ids = vocabulary.encode(chat.BEGIN + opening)
        while ids[-1] != vocabulary.specials[chat.END] and len(ids) < 400:
            ids.append(model(torch.tensor([ids], device=options.device))[0, -1].argmax().item())
        story = vocabulary.decode(ids).split(chat.ASSISTANT)[-1].removeprefix(chat.BEGIN).removesuffix(chat.END)
        reader = Reader()
        print(f"\n{story}\n{[reader.read(sentence) for sentence in sentences(story)]}")


def save(model, vocabulary, path):
    special = len(vocabulary.tokens) - len(chat.SPECIALS)
    metadata = {
        "general.architecture": "llama",
        "general.name": "Hearth demo",
        "general.license": "Apache-2.0",
        "general.file_type": 7,
        "llama.block_count": N_LAYERS,
        "llama.context_length": N_CONTEXT,
        "llama.embedding_length": N_EMBD,
        "llama.feed_forward_length": N_FF,
        "llama.attention.head_count": N_HEADS,
        "llama.attention.head_count_kv": N_KV_HEADS,
        "llama.attention.layer_norm_rms_epsilon": EPS,
        "llama.rope.dimension_count": HEAD_DIM,
        "llama.rope.freq_base": ROPE_BASE,
        "llama.vocab_size": N_VOCAB,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": vocabulary.tokens,
        "tokenizer.ggml.token_type": [1 if index < special else 3 for index in range(len(vocabulary.tokens))],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in vocabulary.merges],
        "tokenizer.ggml.bos_token_id": vocabulary.specials[chat.BEGIN],
        "tokenizer.ggml.eos_token_id": vocabulary.specials[chat.END],
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": chat.TEMPLATE,
    }
    gguf.write(path, metadata, {name: weight.detach().float().cpu().numpy() for name, weight in model.named_parameters()})


def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--out", required=True, help="the file to write")
    flags.add_argument("--minutes", type=float, default=4, help="how long to train")
    flags.add_argument("--documents", type=int, default=chat.N_DOCUMENTS, help="size of the training text")
    flags.add_argument("--rows", type=int, default=64, help=f"windows of {N_CONTEXT} tokens per step")
    flags.add_argument("--rate", type=float, default=3e-3, help="highest learning rate")
    flags.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = flags.parse_args()
    torch.manual_seed(1)
    torch.set_float32_matmul_precision("high")
    start = time.monotonic()
    vocabulary = Vocabulary([chat.document(seed) for seed in range(min(6000, options.documents))], chat.SPECIALS, N_VOCAB)
    corpus = Corpus(vocabulary, options.documents, options.device)
    model = Model().to(options.device)
    n_weights = sum(weight.numel() for weight in model.parameters())
    print(f"{len(corpus.ids) / 1e6:.0f}M tokens, {n_weights / 1e6:.2f}M weights, after {time.monotonic() - start:.0f} s", flush=True)
    train(model, corpus, options)
    save(model, vocabulary, options.out)
    judge(model, vocabulary, options)
    print(f"done after {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
