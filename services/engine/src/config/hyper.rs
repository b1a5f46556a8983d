use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;

use gguf::{Array, Kind, Metadata, MetadataError, Value, ValueType};

use super::ConfigError;

/// Keys that announce a feature which the forward pass does not have, with the values at which they announce nothing.
const NEUTRAL: &[(&str, &[f64])] = &[
    ("attention.clamp_kqv", &[0.0]),
    ("attention.max_alibi_bias", &[0.0]),
    ("attention.causal", &[1.0]),
    ("rope.scaling.attn_factor", &[0.0, 1.0]),
    ("rope.scaling.yarn_ext_factor", &[-1.0, 1.0]),
    ("rope.scaling.yarn_log_multiplier", &[0.0]),
    ("rope.scaling.finetuned", &[1.0]),
    ("expert_group_count", &[0.0, 1.0]),
    ("expert_group_used_count", &[0.0, 1.0]),
    ("interleave_moe_layer_step", &[0.0, 1.0]),
    ("moe_every_n_layers", &[0.0, 1.0]),
    ("nextn_predict_layers", &[0.0]),
    ("num_loops", &[0.0, 1.0]),
];

/// Keys that say nothing about the forward pass, or nothing that is not said elsewhere.
const IDLE: &[&str] = &[
    "vocab_size",
    "tensor_data_layout",
    "expert_count",
    "expert_used_count",
    "expert_feed_forward_length",
    "feed_forward_length",
    "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.freq_base_swa",
    "rope.scale_linear",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
];

/// The keys of one architecture: `count("block_count")` reads `llama.block_count`. Remembers what was asked for.
pub(super) struct Hyper<'a> {
    metadata: &'a Metadata,
    architecture: &'a str,
    read: RefCell<BTreeSet<String>>,
}

impl<'a> Hyper<'a> {
    pub(super) fn new(metadata: &'a Metadata, architecture: &'a str) -> Hyper<'a> {
        Hyper {
            metadata,
            architecture,
            read: RefCell::default(),
        }
    }

    fn key(&self, suffix: &str) -> String {
        self.read.borrow_mut().insert(suffix.to_owned());
        format!("{}.{suffix}", self.architecture)
    }

    /// Refuses every key of the architecture that nobody asked for, unless its value announces nothing: a model that has a feature which nothing here knows must not get a wrong answer.
    pub(super) fn refuse_unread(&self) -> Result<(), ConfigError> {
        let read = self.read.borrow().clone();
        for (key, value) in self.metadata.iter() {
            let suffix = key
                .strip_prefix(self.architecture)
                .and_then(|rest| rest.strip_prefix('.'));
            let Some(suffix) =
                suffix.filter(|suffix| !read.contains(*suffix) && !IDLE.contains(suffix))
            else {
                continue;
            };
            let Some((_, neutral)) = NEUTRAL.iter().find(|(known, _)| *known == suffix) else {
                return Err(self.unsupported(suffix, shown(value)));
            };
            let number = self.any_number(suffix)?.unwrap_or(0.0);
            if !neutral.contains(&number) {
                return Err(self.unsupported(suffix, number));
            }
        }
        Ok(())
    }

    /// A count that must be there and above 0.
    pub(super) fn count(&self, suffix: &str) -> Result<u32, ConfigError> {
        self.optional_count(suffix)?
            .ok_or_else(|| self.missing(suffix))
    }

    /// A count that, if it is there, must be above 0.
    pub(super) fn optional_count(&self, suffix: &str) -> Result<Option<u32>, ConfigError> {
        let count = self.metadata.get_u32(&self.key(suffix))?;
        count
            .map(|count| self.above_zero(suffix, count))
            .transpose()
    }

    /// A count that some files give for each layer. Only models whose layers are all alike are served.
    pub(super) fn count_of_layers(
        &self,
        suffix: &str,
        n_layers: u32,
    ) -> Result<Option<u32>, ConfigError> {
        let key = self.key(suffix);
        if !matches!(self.metadata.get(&key), Some(Value::Array(_))) {
            return self.optional_count(suffix);
        }
        let counts = self.metadata.require_u32s(&key)?;
        if counts.len() != n_layers as usize {
            let reason = format!("expected one number for each of {n_layers} layers");
            return Err(self.invalid(
                suffix,
                format!("an array of length {}", counts.len()),
                reason,
            ));
        }
        if counts.iter().any(|&count| count != counts[0]) {
            return Err(self.unsupported(suffix, "different numbers for different layers"));
        }
        counts
            .first()
            .map(|&count| self.above_zero(suffix, count))
            .transpose()
    }

    fn above_zero(&self, suffix: &str, count: u32) -> Result<u32, ConfigError> {
        if count == 0 {
            return Err(self.invalid(suffix, count, "must be above 0".to_owned()));
        }
        Ok(count)
    }

    pub(super) fn number(&self, suffix: &str) -> Result<Option<f32>, ConfigError> {
        Ok(self.metadata.get_f32(&self.key(suffix))?)
    }

    /// That a number is finite and above 0.
    pub(super) fn above_zero_number(&self, suffix: &str, number: f32) -> Result<(), ConfigError> {
        if number > 0.0 && number.is_finite() {
            return Ok(());
        }
        Err(self.invalid(suffix, number, "must be a number above 0".to_owned()))
    }

    /// One flag for each layer, or the length of groups of layers.
    pub(super) fn pattern(&self, suffix: &str) -> Result<Option<Pattern>, ConfigError> {
        let key = self.key(suffix);
        match self.metadata.get(&key) {
            None => Ok(None),
            Some(Value::Array(Array::Bool(flags))) => Ok(Some(Pattern::Layers(flags.clone()))),
            Some(_) => Ok(self.optional_count(suffix)?.map(Pattern::Every)),
        }
    }

    pub(super) fn text(&self, suffix: &str) -> Result<Option<&'a str>, ConfigError> {
        Ok(self.metadata.get_str(&self.key(suffix))?)
    }

    /// A number of whatever type; true is 1.
    pub(super) fn any_number(&self, suffix: &str) -> Result<Option<f64>, ConfigError> {
        let key = self.key(suffix);
        let Some(value) = self.metadata.get(&key) else {
            return Ok(None);
        };
        let number = match *value {
            Value::F32(number) => Some(f64::from(number)),
            Value::F64(number) => Some(number),
            Value::Bool(flag) => Some(f64::from(u8::from(flag))),
            _ => value.to_integer().map(|number| number as f64),
        };
        let found = value.kind();
        let expected = Kind::One(ValueType::F32);
        number.map(Some).ok_or_else(|| {
            MetadataError::Kind {
                key,
                expected,
                found,
            }
            .into()
        })
    }

    pub(super) fn flag(&self, suffix: &str) -> Result<Option<bool>, ConfigError> {
        Ok(self.metadata.get_bool(&self.key(suffix))?)
    }

    pub(super) fn missing(&self, suffix: &str) -> ConfigError {
        MetadataError::Missing {
            key: self.key(suffix),
        }
        .into()
    }

    pub(super) fn invalid(&self, suffix: &str, value: impl Display, reason: String) -> ConfigError {
        ConfigError::Invalid {
            key: self.key(suffix),
            value: value.to_string(),
            reason,
        }
    }

    pub(super) fn unsupported(&self, suffix: &str, value: impl Display) -> ConfigError {
        ConfigError::Unsupported {
            key: self.key(suffix),
            value: value.to_string(),
        }
    }
}

/// Which layers have something.
#[derive(Clone, Debug)]
pub(super) enum Pattern {
    /// Those whose flag is set.
    Layers(Vec<bool>),
    /// All but the last of each group of so many.
    Every(u32),
}

/// A value for a message: numbers, flags and short texts as they are.
fn shown(value: &Value) -> String {
    match value {
        Value::F32(number) => number.to_string(),
        Value::F64(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::String(text) => text.to_str().map_or_else(
            || "bytes".to_owned(),
            |text| text.chars().take(40).collect(),
        ),
        Value::Array(array) => format!("an array of {}", array.len()),
        other => other
            .to_integer()
            .map_or_else(String::new, |number| number.to_string()),
    }
}
