//! Llama-shaped GGUF files of any size, written fast from a fixed seed.

mod pool;

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use gguf::write::Writer;
use gguf::{Array, StringArray, TensorType, Value};

use pool::Pool;

/// The shape of a llama-family model with random weights.
///
/// The weights of a matrix are uniform with a standard deviation of `1 / sqrt(n_in)`, so hidden states keep their size and logits spread enough for a clear arg-max.
#[derive(Debug, Clone)]
pub struct Llama {
    /// Transformer layers.
    pub n_layers: u32,
    /// Width of the hidden state.
    pub n_embd: u32,
    /// Query heads; `n_embd / n_heads` is the head's width.
    pub n_heads: u32,
    /// Key and value heads.
    pub n_kv_heads: u32,
    /// Width of the feed-forward layer.
    pub n_ff: u32,
    /// Vocabulary size, at least 260.
    pub n_vocab: u32,
    /// Of the vocabulary, tokens that byte-level BPE merges from two shorter ones, with about two merge rules each.
    pub n_merged: u32,
    /// Longest context in tokens.
    pub context_length: u32,
    /// Type of every matrix; norms are F32.
    pub weight_type: TensorType,
    /// Another type for the matrices that llama.cpp's quantiser spends more bits on: the output, and in half of the layers `attn_v` and `ffn_down`.
    pub better_type: Option<TensorType>,
    /// Whether the embedding is the output matrix too.
    pub tied: bool,
    /// Alignment of tensor data. A page size keeps the header's pages and the tensors' pages apart.
    pub alignment: u32,
    /// Different seeds give different weights.
    pub seed: u64,
    /// Further entries of the metadata.
    pub extra: Vec<(&'static str, Value)>,
}

struct Vocabulary {
    tokens: StringArray,
    merges: StringArray,
}

/// Number of single-byte tokens, which come first in the vocabulary.
const BYTE_TOKENS: u32 = 256;
/// Longest token that merges make.
const TOKEN_BYTES_MAX: usize = 32;
/// Begin-of-text, then end-of-text, behind the byte tokens.
pub const BOS: u32 = BYTE_TOKENS;
/// End of text.
pub const EOS: u32 = BYTE_TOKENS + 1;

impl Llama {
    /// A model of about a hundred kilobytes, for tests of behaviour.
    #[must_use]
    pub fn tiny() -> Llama {
        Llama {
            n_layers: 2,
            n_embd: 64,
            n_heads: 4,
            n_kv_heads: 2,
            n_ff: 128,
            n_vocab: 300,
            n_merged: 0,
            context_length: 512,
            weight_type: TensorType::F32,
            better_type: None,
            tied: false,
            alignment: 32,
            seed: 1,
            extra: Vec::new(),
        }
    }

    /// A model whose matrices are at least 4 MiB each: about 112 MiB of F32 in all.
    #[must_use]
    pub fn large_extents() -> Llama {
        Llama {
            n_layers: 3,
            n_embd: 1024,
            n_heads: 16,
            n_kv_heads: 16,
            n_ff: 1024,
            n_vocab: 1024,
            alignment: 4096,
            ..Llama::tiny()
        }
    }

    /// The shape of an 8-billion-parameter Llama 3: 291 tensors, a vocabulary of 128,256.
    #[must_use]
    pub fn eight_billion() -> Llama {
        Llama {
            n_layers: 32,
            n_embd: 4096,
            n_heads: 32,
            n_kv_heads: 8,
            n_ff: 14_336,
            n_vocab: 128_256,
            n_merged: 127_000,
            context_length: 8192,
            weight_type: TensorType::Q8_0,
            ..Llama::tiny()
        }
    }

    /// The shape of Llama 3.2 with a billion parameters: its output is tied to its embedding.
    #[must_use]
    pub fn one_billion(weight_type: TensorType, better_type: Option<TensorType>) -> Llama {
        Llama {
            n_layers: 16,
            n_embd: 2048,
            n_heads: 32,
            n_kv_heads: 8,
            n_ff: 8192,
            n_vocab: 128_256,
            n_merged: 1_000,
            context_length: 8192,
            weight_type,
            better_type,
            tied: true,
            ..Llama::tiny()
        }
    }

    /// Whether llama.cpp's quantiser gives a layer's `attn_v` and `ffn_down` more bits: the first and the last eighth, and every third between.
    fn is_better(&self, layer: u32) -> bool {
        let eighth = self.n_layers / 8;
        layer < eighth || layer >= 7 * eighth || (layer - eighth) % 3 == 2
    }

    /// Every tensor: name, GGUF dimensions (fastest first) and type.
    #[must_use]
    pub fn tensors(&self) -> Vec<(String, Vec<u64>, TensorType)> {
        let (embd, ff, vocab) = (
            u64::from(self.n_embd),
            u64::from(self.n_ff),
            u64::from(self.n_vocab),
        );
        let kv = embd / u64::from(self.n_heads) * u64::from(self.n_kv_heads);
        let matrix = self.weight_type;
        let better = self.better_type.unwrap_or(matrix);
        let embedding = if self.tied { better } else { matrix };
        let mut tensors = vec![("token_embd.weight".to_owned(), vec![embd, vocab], embedding)];
        for layer in 0..self.n_layers {
            let some = if self.is_better(layer) {
                better
            } else {
                matrix
            };
            let mut push = |name: &str, dims: &[u64], tensor_type| {
                tensors.push((
                    format!("blk.{layer}.{name}.weight"),
                    dims.to_vec(),
                    tensor_type,
                ))
            };
            push("attn_norm", &[embd], TensorType::F32);
            push("attn_q", &[embd, embd], matrix);
            push("attn_k", &[embd, kv], matrix);
            push("attn_v", &[embd, kv], some);
            push("attn_output", &[embd, embd], matrix);
            push("ffn_norm", &[embd], TensorType::F32);
            push("ffn_gate", &[embd, ff], matrix);
            push("ffn_up", &[embd, ff], matrix);
            push("ffn_down", &[ff, embd], some);
        }
        tensors.push(("output_norm.weight".to_owned(), vec![embd], TensorType::F32));
        if !self.tied {
            tensors.push(("output.weight".to_owned(), vec![embd, vocab], better));
        }
        tensors
    }

    /// The header of the file, without its tensors' bytes.
    #[must_use]
    pub fn header(&self) -> Writer {
        let vocabulary = self.vocabulary();
        let text = |s: &str| Value::String(s.as_bytes().into());
        let mut writer = Writer::new()
            .alignment(self.alignment)
            .metadata("general.architecture", text("llama"))
            .metadata("general.name", text("random"))
            .metadata("llama.block_count", Value::U32(self.n_layers))
            .metadata("llama.context_length", Value::U32(self.context_length))
            .metadata("llama.embedding_length", Value::U32(self.n_embd))
            .metadata("llama.feed_forward_length", Value::U32(self.n_ff))
            .metadata("llama.attention.head_count", Value::U32(self.n_heads))
            .metadata("llama.attention.head_count_kv", Value::U32(self.n_kv_heads))
            .metadata("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5))
            .metadata("llama.rope.freq_base", Value::F32(10_000.0))
            .metadata(
                "llama.rope.dimension_count",
                Value::U32(self.n_embd / self.n_heads),
            )
            .metadata("llama.vocab_size", Value::U32(self.n_vocab))
            .metadata("tokenizer.ggml.model", text("gpt2"))
            .metadata("tokenizer.ggml.pre", text("gpt-2"))
            .metadata(
                "tokenizer.ggml.tokens",
                Value::Array(Array::String(vocabulary.tokens)),
            )
            .metadata(
                "tokenizer.ggml.token_type",
                Value::Array(Array::I32(self.token_types())),
            )
            .metadata(
                "tokenizer.ggml.merges",
                Value::Array(Array::String(vocabulary.merges)),
            )
            .metadata("tokenizer.ggml.bos_token_id", Value::U32(BOS))
            .metadata("tokenizer.ggml.eos_token_id", Value::U32(EOS))
            .metadata("tokenizer.ggml.add_bos_token", Value::Bool(false));
        for (key, value) in &self.extra {
            writer = writer.metadata(*key, value.clone());
        }
        for (name, dims, tensor_type) in self.tensors() {
            writer = writer.tensor(&name, &dims, tensor_type);
        }
        writer
    }

    /// Writes the file and brings it to the storage device. Returns the bytes of all tensors.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, path: &Path) -> io::Result<u64> {
        let (file, tensor_bytes) = self.write_to_cache(path)?;
        file.sync_all()?;
        Ok(tensor_bytes)
    }

    /// Writes the file and leaves it to the system when that reaches the storage device: gigabytes take seconds. Returns the file and the bytes of all tensors.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write_to_cache(&self, path: &Path) -> io::Result<(File, u64)> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let layout = self.header().finish().map_err(io::Error::other)?;
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        file.write_all(&layout.bytes)?;
        let mut position = layout.bytes.len() as u64;
        let mut pools = BTreeMap::new();
        for (index, tensor) in layout.directory.tensors().iter().enumerate() {
            pad(&mut file, tensor.offset_bytes - position)?;
            let row_len = tensor.shape.row_len();
            let key = (tensor.name.contains("norm"), tensor.tensor_type, row_len);
            let pool = pools.entry(key).or_insert_with(|| match key {
                (true, ..) => Pool::norms(self.seed),
                (false, ..) => Pool::matrix(tensor.tensor_type, row_len, self.seed),
            });
            pool.write(&mut file, tensor.len_bytes, index)?;
            position = tensor.offset_bytes + tensor.len_bytes;
        }
        pad(&mut file, layout.file_len - position)?;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok((file, layout.directory.tensor_bytes()))
    }

    /// Writes the header and leaves the rest a hole: a file of any size that takes no room.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write_sparse(&self, path: &Path) -> io::Result<()> {
        let layout = self.header().finish().map_err(io::Error::other)?;
        let mut file = File::create(path)?;
        file.write_all(&layout.bytes)?;
        file.set_len(layout.file_len)?;
        file.sync_all()
    }

    fn vocabulary(&self) -> Vocabulary {
        let mut tokens: Vec<String> = byte_alphabet().iter().map(char::to_string).collect();
        tokens.push("<|begin|>".to_owned());
        tokens.push("<|end|>".to_owned());
        let mut merges = Vec::new();
        let mut known: HashSet<String> = tokens.iter().cloned().collect();
        let mut parts = tokens[..BYTE_TOKENS as usize].to_vec();
        let mut random = Random(self.seed);
        while parts.len() < (BYTE_TOKENS + self.n_merged) as usize {
            let [left, right] = [0, 1].map(|_| parts[random.below(parts.len())].clone());
            let rule = format!("{left} {right}");
            let merged = left + &right;
            if merged.len() > TOKEN_BYTES_MAX {
                continue;
            }
            // A second rule for a token that is there is a rule, too; one for a token that is not would be none.
            merges.push(rule);
            if known.insert(merged.clone()) {
                parts.push(merged);
            }
        }
        tokens.extend(parts.drain(BYTE_TOKENS as usize..));
        tokens.extend((tokens.len()..self.n_vocab as usize).map(|index| format!("tok{index}")));
        Vocabulary {
            tokens: tokens.iter().map(String::as_bytes).collect(),
            merges: merges.iter().map(String::as_bytes).collect(),
        }
    }

    fn token_types(&self) -> Vec<i32> {
        const NORMAL: i32 = 1;
        const CONTROL: i32 = 3;
        (0..self.n_vocab)
            .map(|id| {
                if id == BOS || id == EOS {
                    CONTROL
                } else {
                    NORMAL
                }
            })
            .collect()
    }
}

/// The 256 printable characters that byte-level BPE uses for bytes, in byte order: printable Latin-1 stands for itself, the rest for U+0100 onwards.
fn byte_alphabet() -> Vec<char> {
    let mut spare = 0x100;
    (0..=255_u8)
        .map(|byte| match byte {
            b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
            _ => {
                let stand_in = char::from_u32(spare).expect("U+0100..U+0143 are characters");
                spare += 1;
                stand_in
            }
        })
        .collect()
}

fn pad(out: &mut impl Write, len: u64) -> io::Result<()> {
    io::copy(&mut io::Read::take(io::repeat(0), len), out).map(drop)
}

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[7]
    }

    /// An index below `len`, nearly uniform.
    fn below(&mut self, len: usize) -> usize {
        usize::try_from(self.next() % len as u64).expect("less than a usize")
    }

    /// Uniform in [-1, 1).
    fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }
}
