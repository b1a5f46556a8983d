//! Writes `services/cli/models/demo.gguf`: a llama of random weights with a byte-level vocabulary of its own.
//!
//! `cargo run -p cli --example make_demo_model -- services/cli/models/demo.gguf`
//!
//! The same bytes come out on every machine: all randomness is integer arithmetic from one seed, and what is left to floating point are single operations that IEEE 754 defines exactly.
//! Such a model has nothing to say, but it says it in words, and it takes every path that a trained one does.

use std::{collections::BTreeMap, env, error::Error, fs};

use gguf::{StringArray, TensorType, write::Writer};
use half::f16;

const SEED: u64 = 0x4865_6172_7468;
const N_LAYERS: u32 = 4;
const N_EMBD: u32 = 256;
const N_HEADS: u32 = 4;
const N_KV_HEADS: u32 = 2;
const HEAD_DIM: u32 = N_EMBD / N_HEADS;
const N_FF: u32 = 704;
const CONTEXT_LENGTH: u32 = 1024;
const N_VOCAB_MAX: usize = 2048;
/// Words from which the vocabulary's merges are learnt, common ones first.
const WORDS: &str = include_str!("demo_words.txt");
const BEGIN: &str = "<|begin|>";
const END: &str = "<|end|>";

/// Token types of `tokenizer.ggml.token_type`.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let path = env::args_os().nth(1).ok_or("name the file to write")?;
    let vocabulary = Vocabulary::learn();
    let tensors = tensors(vocabulary.tokens.len() as u64);
    let mut writer = metadata(Writer::new(), &vocabulary);
    for tensor in &tensors {
        writer = writer.tensor(&tensor.name, &tensor.dims, tensor.tensor_type());
    }
    let header = writer.finish()?;
    let mut file = header.bytes;
    let mut random = Random(SEED);
    for tensor in &tensors {
        let place = header.directory.require(&tensor.name)?;
        file.resize(usize::try_from(place.offset_bytes)?, 0);
        file.extend(tensor.data(&mut random));
    }
    file.resize(usize::try_from(header.file_len)?, 0);
    fs::write(path, file)?;
    Ok(())
}

fn metadata(writer: Writer, vocabulary: &Vocabulary) -> Writer {
    let tokens: StringArray = vocabulary.tokens.iter().collect();
    let merges: StringArray = vocabulary.merges.iter().collect();
    let begin = vocabulary.id_of(BEGIN);
    let end = vocabulary.id_of(END);
    let mut types = vec![NORMAL; vocabulary.tokens.len()];
    types[begin as usize] = CONTROL;
    types[end as usize] = CONTROL;
    writer
        .metadata("general.architecture", "llama")
        .metadata("general.name", "Hearth demo")
        .metadata("general.license", "Apache-2.0")
        .metadata("llama.block_count", N_LAYERS)
        .metadata("llama.context_length", CONTEXT_LENGTH)
        .metadata("llama.embedding_length", N_EMBD)
        .metadata("llama.feed_forward_length", N_FF)
        .metadata("llama.attention.head_count", N_HEADS)
        .metadata("llama.attention.head_count_kv", N_KV_HEADS)
        .metadata("llama.attention.layer_norm_rms_epsilon", 1e-5f32)
        .metadata("llama.rope.dimension_count", HEAD_DIM)
        .metadata("llama.rope.freq_base", 10_000f32)
        .metadata("llama.vocab_size", begin + 2)
        .metadata("tokenizer.ggml.model", "gpt2")
        .metadata("tokenizer.ggml.pre", "gpt-2")
        .metadata("tokenizer.ggml.tokens", tokens)
        .metadata("tokenizer.ggml.token_type", types)
        .metadata("tokenizer.ggml.merges", merges)
        .metadata("tokenizer.ggml.bos_token_id", begin)
        .metadata("tokenizer.ggml.eos_token_id", end)
        .metadata("tokenizer.ggml.add_bos_token", true)
}

// === vocabulary ===

/// Byte-level byte pair encoding: 256 bytes, then merges, then two control tokens.
struct Vocabulary {
    tokens: Vec<String>,
    merges: Vec<String>,
}

impl Vocabulary {
    /// Merges the most frequent pair again and again; of equally frequent ones the first in alphabetical order.
    fn learn() -> Vocabulary {
        let mut tokens: Vec<String> = byte_symbols().map(String::from).collect();
        let mut merges = Vec::new();
        let mut words = training_words();
        while tokens.len() < N_VOCAB_MAX - 2 {
            let Some((left, right)) = most_frequent_pair(&words) else {
                break;
            };
            let merged = format!("{left}{right}");
            for (word, _) in &mut words {
                apply(word, &left, &right);
            }
            merges.push(format!("{left} {right}"));
            if !tokens.contains(&merged) {
                tokens.push(merged);
            }
        }
        tokens.extend([BEGIN.to_owned(), END.to_owned()]);
        Vocabulary { tokens, merges }
    }

    fn id_of(&self, token: &str) -> u32 {
        let index = self.tokens.iter().position(|known| known == token);
        index
            .and_then(|index| u32::try_from(index).ok())
            .expect("the vocabulary holds it and is small")
    }
}

/// Each word with the weight of its place in the list, spelled with a space before it and, less often, at the start of a line with a capital.
fn training_words() -> Vec<(Vec<String>, u64)> {
    let list: Vec<&str> = WORDS.split_whitespace().collect();
    let mut words = Vec::new();
    for (index, word) in list.iter().enumerate() {
        let weight = (list.len() - index) as u64;
        let mut letters = word.chars();
        let first = letters.next().into_iter().flat_map(char::to_uppercase);
        let capital: String = first.chain(letters).collect();
        words.push((symbols(&format!(" {word}")), 4 * weight));
        words.push((symbols(&format!(" {capital}")), weight));
        words.push((symbols(word), weight));
    }
    words
}

fn symbols(word: &str) -> Vec<String> {
    let alphabet: Vec<char> = byte_symbols().collect();
    word.bytes()
        .map(|byte| alphabet[usize::from(byte)].to_string())
        .collect()
}

/// GPT-2's printable stand-in for each byte: itself where it is printable, else the next letter from U+0100 on.
fn byte_symbols() -> impl Iterator<Item = char> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    (0..=u8::MAX).map(move |byte| {
        if printable(byte) {
            return char::from(byte);
        }
        let place = (0..byte).filter(|&before| !printable(before)).count();
        u32::try_from(place)
            .ok()
            .and_then(|place| char::from_u32(0x100 + place))
            .expect("68 bytes are not printable")
    })
}

fn most_frequent_pair(words: &[(Vec<String>, u64)]) -> Option<(String, String)> {
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for (word, weight) in words {
        for pair in word.windows(2) {
            *counts.entry((&pair[0], &pair[1])).or_default() += weight;
        }
    }
    // `max_by_key` takes the last of equals: reversed, that is the first in alphabetical order.
    let ((left, right), _) = counts.into_iter().rev().max_by_key(|(_, count)| *count)?;
    Some((left.to_owned(), right.to_owned()))
}

fn apply(word: &mut Vec<String>, left: &str, right: &str) {
    let mut index = 0;
    while index + 1 < word.len() {
        if word[index] == left && word[index + 1] == right {
            let tail = word.remove(index + 1);
            word[index].push_str(&tail);
        }
        index += 1;
    }
}

// === weights ===

/// One tensor: a matrix of random weights, or a vector of ones.
struct Tensor {
    name: String,
    /// Fastest first.
    dims: Vec<u64>,
    /// Standard deviation of the weights; 0 for a vector of ones.
    deviation: f32,
}

fn tensors(n_vocab: u64) -> Vec<Tensor> {
    let (n_embd, n_ff) = (u64::from(N_EMBD), u64::from(N_FF));
    let n_kv = u64::from(N_KV_HEADS * HEAD_DIM);
    let matrix = |name: String, n_in: u64, n_out: u64, gain: f32| Tensor {
        name,
        dims: vec![n_in, n_out],
        deviation: gain / root(n_in),
    };
    let norm = |name: String| Tensor {
        name,
        dims: vec![n_embd],
        deviation: 0.0,
    };
    let mut tensors = vec![Tensor {
        name: "token_embd.weight".to_owned(),
        dims: vec![n_embd, n_vocab],
        deviation: 1.0,
    }];
    for layer in 0..N_LAYERS {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        tensors.extend([
            norm(name("attn_norm")),
            matrix(name("attn_q"), n_embd, n_embd, 1.5),
            matrix(name("attn_k"), n_embd, n_kv, 1.5),
            matrix(name("attn_v"), n_embd, n_kv, 1.0),
            matrix(name("attn_output"), n_embd, n_embd, 1.0),
            norm(name("ffn_norm")),
            matrix(name("ffn_gate"), n_embd, n_ff, 1.0),
            matrix(name("ffn_up"), n_embd, n_ff, 1.0),
            matrix(name("ffn_down"), n_ff, n_embd, 1.0),
        ]);
    }
    tensors.push(norm("output_norm.weight".to_owned()));
    // Logits with a deviation of about 3: neither the same word for ever nor each as likely as the next.
    tensors.push(matrix("output.weight".to_owned(), n_embd, n_vocab, 3.0));
    tensors
}

#[expect(clippy::cast_precision_loss, reason = "the sizes are small")]
fn root(size: u64) -> f32 {
    (size as f32).sqrt()
}

impl Tensor {
    fn tensor_type(&self) -> TensorType {
        if self.dims.len() == 1 {
            TensorType::F32
        } else {
            TensorType::Q8_0
        }
    }

    fn data(&self, random: &mut Random) -> Vec<u8> {
        let n_elements: u64 = self.dims.iter().product();
        if self.dims.len() == 1 {
            return (0..n_elements).flat_map(|_| 1f32.to_le_bytes()).collect();
        }
        (0..n_elements / 32)
            .flat_map(|_| block(std::array::from_fn(|_| random.normal() * self.deviation)))
            .collect()
    }
}

/// A Q8_0 block: the scale as f16, then 32 signed bytes.
fn block(weights: [f32; 32]) -> impl Iterator<Item = u8> {
    let largest = weights
        .iter()
        .fold(0f32, |largest, weight| largest.max(weight.abs()));
    let scale = f16::from_f32(largest / 127.0);
    let step = f32::from(scale);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "clamped to the range of a signed byte"
    )]
    let quantised =
        weights.map(|weight| (weight / step).round_ties_even().clamp(-127.0, 127.0) as i8);
    scale
        .to_le_bytes()
        .into_iter()
        .chain(quantised.into_iter().flat_map(i8::to_le_bytes))
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Nearly normal with deviation 1: the sum of twelve numbers of 16 bits, which needs no logarithm.
    fn normal(&mut self) -> f32 {
        let mut sum: i32 = 0;
        for _ in 0..3 {
            let bits = self.next();
            for lane in 0..4 {
                let lane_bits = u16::try_from((bits >> (16 * lane)) & 0xffff).expect("16 bits");
                sum += i32::from(lane_bits);
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "below 2^20")]
        let centred = (sum - 12 * 32_768) as f32;
        centred / 65_536.0
    }
}
