use gguf::write::Writer;
use gguf::{TensorType, Value};
use kernels::{RopeKind, RopeScaling};

use super::*;

/// The metadata of a small llama, by key without the architecture.
fn base() -> Vec<(String, Value)> {
    let mut entries = vec![("general.architecture".to_owned(), Value::from("llama"))];
    for (suffix, value) in [
        ("block_count", Value::from(2u32)),
        ("context_length", Value::from(128u32)),
        ("embedding_length", Value::from(32u32)),
        ("feed_forward_length", Value::from(48u32)),
        ("attention.head_count", Value::from(4u32)),
        ("attention.head_count_kv", Value::from(2u32)),
        ("attention.layer_norm_rms_epsilon", Value::from(1e-5f32)),
        ("rope.dimension_count", Value::from(8u32)),
    ] {
        entries.push((format!("llama.{suffix}"), value));
    }
    entries
}

/// Reads the metadata of a small llama with some keys replaced, added or (`None`) left out.
fn read(changes: &[(&str, Option<Value>)]) -> Result<ModelConfig, ConfigError> {
    let mut entries = base();
    for (key, value) in changes {
        entries.retain(|(known, _)| known != key);
        entries.extend(value.clone().map(|value| ((*key).to_owned(), value)));
    }
    let mut writer = Writer::new();
    for (key, value) in entries {
        writer = writer.metadata(&key, value);
    }
    for name in ["token_embd.weight", "a", "b"] {
        writer = writer.tensor(name, &[32, 40], TensorType::F32);
    }
    ModelConfig::from_directory(&writer.finish().expect("a header").directory)
}

#[test]
fn reads_a_llama() {
    let config = read(&[]).expect("valid");
    let heads = (
        config.n_heads,
        config.n_kv_heads,
        config.head_dim_k,
        config.head_dim_v,
    );
    assert_eq!(heads, (4, 2, 8, 8));
    assert_eq!(
        (config.layers.len(), config.n_embd, config.feed_forward.n_ff),
        (2, 32, 48)
    );
    assert_eq!((config.n_vocab, config.context_length), (40, 128));
    assert_eq!((config.ropes[0].dims, config.ropes[0].base), (8, 10_000.0));
    assert_eq!(
        (config.ropes[0].kind, config.ropes[0].scaling),
        (RopeKind::Interleaved, RopeScaling::None)
    );
    assert_eq!(config.attention.scale, 1.0 / 8f32.sqrt());
}

#[test]
fn accepts_what_means_the_same() {
    let check = |changes: &[(&str, Option<Value>)], expected: fn(&ModelConfig) -> bool| {
        let config = read(changes).unwrap_or_else(|error| panic!("{changes:?}: {error}"));
        assert!(expected(&config), "{changes:?}: {config:?}");
    };
    check(&[("llama.block_count", Some(2u64.into()))], |c| {
        c.layers.len() == 2
    });
    check(
        &[("llama.attention.head_count", Some(vec![4u32, 4].into()))],
        |c| c.n_heads == 4,
    );
    check(&[("llama.attention.head_count_kv", None)], |c| {
        c.n_kv_heads == 4
    });
    check(&[("llama.rope.dimension_count", None)], |c| {
        c.ropes[0].dims == 8
    });
    check(&[("llama.vocab_size", Some(39u32.into()))], |c| {
        c.n_vocab == 39
    });
    check(&[("llama.expert_used_count", Some(5u32.into()))], |_| true);
    check(&[("llama.expert_count", Some(0u32.into()))], |_| true);
    check(&[("llama.attention.causal", Some(true.into()))], |_| true);
    check(
        &[("llama.attention.sliding_window", Some(128u32.into()))],
        |_| true,
    );
    check(&[("llama.context_length", Some(u32::MAX.into()))], |c| {
        c.context_length == u32::MAX
    });
    let linear = RopeScaling::Linear { factor: 4.0 };
    assert_eq!(
        read(&[("llama.rope.scale_linear", Some(4f32.into()))])
            .expect("valid")
            .ropes[0]
            .scaling,
        linear
    );
    let scaling = [
        ("llama.rope.scaling.type", Some("linear".into())),
        ("llama.rope.scaling.factor", Some(4f32.into())),
    ];
    assert_eq!(read(&scaling).expect("valid").ropes[0].scaling, linear);
}

/// The error for a small llama with one key changed says `mention`.
fn refuses(key: &str, value: Option<Value>, mention: &str) {
    let error = read(&[(key, value.clone())]).expect_err(key).to_string();
    assert!(
        error.contains(mention),
        "{key} = {value:?}: '{error}' does not mention '{mention}'"
    );
}

#[test]
fn refuses_impossible_sizes() {
    refuses(
        "llama.block_count",
        Some(u32::MAX.into()),
        "block_count = 4294967295: the directory has only 3 tensors",
    );
    refuses("llama.block_count", Some((-1i32).into()), "block_count");
    refuses("llama.block_count", Some(0u32.into()), "must be above 0");
    refuses("llama.embedding_length", None, "embedding_length");
    refuses(
        "llama.embedding_length",
        Some(0u32.into()),
        "embedding_length = 0",
    );
    refuses(
        "llama.attention.head_count",
        Some(5u32.into()),
        "must divide the head count 5",
    );
    refuses(
        "llama.attention.head_count",
        Some(6u32.into()),
        "must divide embedding_length 32",
    );
    refuses(
        "llama.attention.head_count",
        Some(vec![4u32].into()),
        "array of length 1",
    );
    refuses(
        "llama.attention.head_count",
        Some(vec![4u32, 2].into()),
        "different numbers",
    );
    refuses(
        "llama.attention.head_count_kv",
        Some(3u32.into()),
        "must divide the head count 4",
    );
    refuses(
        "llama.attention.head_count_kv",
        Some(0u32.into()),
        "must be above 0",
    );
    refuses("llama.attention.key_length", Some(7u32.into()), "head of 7");
    refuses("llama.attention.layer_norm_rms_epsilon", None, "epsilon");
    refuses(
        "llama.attention.layer_norm_rms_epsilon",
        Some(f32::NAN.into()),
        "must be a number above 0",
    );
}

#[test]
fn refuses_impossible_positions() {
    refuses(
        "llama.rope.freq_base",
        Some(0f32.into()),
        "rope.freq_base = 0",
    );
    refuses(
        "llama.rope.freq_base",
        Some(f32::INFINITY.into()),
        "rope.freq_base",
    );
    refuses("llama.rope.dimension_count", Some(7u32.into()), "even");
    refuses(
        "llama.rope.dimension_count",
        Some(10u32.into()),
        "the head of 8",
    );
    refuses(
        "llama.rope.scaling.type",
        Some("dynamic".into()),
        "rope.scaling.type = dynamic is not supported",
    );
    refuses(
        "llama.rope.scale_linear",
        Some((-1f32).into()),
        "rope.scale_linear",
    );
}

#[test]
fn refuses_what_is_not_served() {
    refuses("general.architecture", None, "general.architecture");
    refuses(
        "general.architecture",
        Some("no-such-arch".into()),
        "architecture 'no-such-arch' is not supported",
    );
    refuses(
        "general.architecture",
        Some(7u32.into()),
        "general.architecture",
    );
    refuses(
        "llama.expert_count",
        Some(8u32.into()),
        "llama.expert_used_count",
    );
    refuses(
        "llama.attention.causal",
        Some(false.into()),
        "attention.causal = 0 is not supported",
    );
    refuses(
        "llama.attention.sliding_window",
        Some(16u32.into()),
        "sliding_window = 16",
    );
    refuses("llama.logit_scale", Some("x".into()), "logit_scale");
}

#[test]
fn the_vocabulary_must_have_tokens() {
    let tokens = gguf::StringArray::from_iter(Vec::<&[u8]>::new());
    let error = read(&[("tokenizer.ggml.tokens", Some(tokens.into()))]).expect_err("no tokens");
    assert!(
        error.to_string().contains("tokenizer.ggml.tokens"),
        "{error}"
    );
}
