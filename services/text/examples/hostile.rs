//! x
use std::time::Instant;
use gguf::*;
use text::*;
fn run(name: &str, m: Metadata, texts: &[String]) {
    let t = Instant::now();
    let tk = Tokenizer::from_metadata(&m).unwrap();
    println!("{name}: load {:?}", t.elapsed());
    for s in texts { for p in [false, true] { let t = Instant::now(); let n = tk.encode(s, EncodeOptions{add_special:false, parse_special:p}).len(); println!("   {p} {:?} {n}", t.elapsed()); } }
}
fn main() {
    let strs = |v: Vec<String>| Value::Array(Array::String(v.iter().collect()));
    let a = "a".repeat(1<<20);
    let ab = "ab".repeat(1<<19);
    let texts = [a, ab];
    // control tokens a, aa, ... a^255 b
    let v: Vec<String> = (1..256).map(|n| "a".repeat(n) + "b").collect();
    let n = v.len();
    run("nested controls", [("tokenizer.ggml.model", Value::from("llama")), ("tokenizer.ggml.tokens", strs(v)), ("tokenizer.ggml.token_type", Value::from(vec![3i32; n]))].into_iter().collect(), &texts);
    // spm chain
    let v: Vec<String> = (1..4000).map(|n| "a".repeat(n)).collect(); let n = v.len();
    run("spm chain", [("tokenizer.ggml.model", Value::from("llama")), ("tokenizer.ggml.tokens", strs(v.clone())), ("tokenizer.ggml.scores", Value::from((0..n).map(|n| n as f32).collect::<Vec<f32>>()))].into_iter().collect(), &texts);
    run("spm chain rev", [("tokenizer.ggml.model", Value::from("llama")), ("tokenizer.ggml.tokens", strs(v.clone())), ("tokenizer.ggml.scores", Value::from((0..n).map(|n| -(n as f32)).collect::<Vec<f32>>()))].into_iter().collect(), &texts);
    let merges: Vec<String> = (1..3999).map(|n| format!("{} a", "a".repeat(n))).collect();
    run("bpe chain", [("tokenizer.ggml.model", Value::from("gpt2")), ("tokenizer.ggml.tokens", strs(v.clone())), ("tokenizer.ggml.merges", strs(merges))].into_iter().collect(), &texts);
    let merges: Vec<String> = (1..3999).rev().map(|n| format!("{} a", "a".repeat(n))).collect();
    run("bpe chain rev", [("tokenizer.ggml.model", Value::from("gpt2")), ("tokenizer.ggml.tokens", strs(v.clone())), ("tokenizer.ggml.merges", strs(merges))].into_iter().collect(), &texts);
    let v: Vec<String> = std::iter::repeat_n("</s>".to_owned(), 1 << 20).collect();
    run("many ends", [("tokenizer.ggml.model", Value::from("llama")), ("tokenizer.ggml.tokens", strs(v))].into_iter().collect(), &[]);
    let v: Vec<String> = std::iter::repeat_n("same".to_owned(), 1 << 20).collect();
    run("many same", [("tokenizer.ggml.model", Value::from("llama")), ("tokenizer.ggml.tokens", strs(v))].into_iter().collect(), &[]);
}
