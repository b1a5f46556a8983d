use std::fmt::Display;

use gguf::{Kind, Metadata, MetadataError, Value, ValueType};

use super::ConfigError;

/// The keys of one architecture: `count("block_count")` reads `llama.block_count`.
pub(super) struct Hyper<'a> {
    metadata: &'a Metadata,
    architecture: &'a str,
}

impl<'a> Hyper<'a> {
    pub(super) fn new(metadata: &'a Metadata, architecture: &'a str) -> Hyper<'a> {
        Hyper {
            metadata,
            architecture,
        }
    }

    fn key(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.architecture)
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
