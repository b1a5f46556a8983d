use std::collections::HashMap;
use std::fmt;

use crate::{Array, Kind, MetadataError, StringArray, Value, ValueType};

/// The metadata of a file: values by key, in the file's order.
///
/// The typed accessors answer `Ok(None)` where the key is absent and an error where the value cannot be what was asked for. Integers of any width are accepted where the value fits.
#[derive(Clone, Default, PartialEq)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
    by_key: HashMap<Box<str>, usize>,
}

type Typed<T> = Result<Option<T>, MetadataError>;

impl Metadata {
    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.by_key.get(key).map(|&index| &self.entries[index].1)
    }

    /// Keys and values in the file's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> + '_ {
        self.entries
            .iter()
            .map(|(key, value)| (key.as_str(), value))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// An integer that fits in 16 bits unsigned.
    /// # Errors
    /// [`MetadataError::Kind`], [`MetadataError::Range`].
    pub fn get_u16(&self, key: &str) -> Typed<u16> {
        self.integer(key, ValueType::U16)
    }

    /// An integer that fits in 32 bits unsigned.
    /// # Errors
    /// [`MetadataError::Kind`], [`MetadataError::Range`].
    pub fn get_u32(&self, key: &str) -> Typed<u32> {
        self.integer(key, ValueType::U32)
    }

    /// An integer that fits in 32 bits signed.
    /// # Errors
    /// [`MetadataError::Kind`], [`MetadataError::Range`].
    pub fn get_i32(&self, key: &str) -> Typed<i32> {
        self.integer(key, ValueType::I32)
    }

    /// An integer that fits in 64 bits unsigned.
    /// # Errors
    /// [`MetadataError::Kind`], [`MetadataError::Range`].
    pub fn get_u64(&self, key: &str) -> Typed<u64> {
        self.integer(key, ValueType::U64)
    }

    /// A floating-point number; one of 64 bits is rounded.
    /// # Errors
    /// [`MetadataError::Kind`].
    pub fn get_f32(&self, key: &str) -> Typed<f32> {
        self.typed(key, Kind::One(ValueType::F32), |value| match *value {
            Value::F32(v) => Some(v),
            #[expect(
                clippy::cast_possible_truncation,
                reason = "rounding to the nearest f32 is what this accessor promises"
            )]
            Value::F64(v) => Some(v as f32),
            _ => None,
        })
    }

    /// A boolean.
    /// # Errors
    /// [`MetadataError::Kind`].
    pub fn get_bool(&self, key: &str) -> Typed<bool> {
        self.typed(key, Kind::One(ValueType::Bool), |value| {
            if let Value::Bool(v) = *value {
                Some(v)
            } else {
                None
            }
        })
    }

    /// A string that is UTF-8. Where any bytes will do, use [`Metadata::get`].
    /// # Errors
    /// [`MetadataError::Kind`], [`MetadataError::NotUtf8`].
    pub fn get_str(&self, key: &str) -> Typed<&str> {
        let string = self.typed(key, Kind::One(ValueType::String), |value| {
            if let Value::String(v) = value {
                Some(v)
            } else {
                None
            }
        })?;
        string
            .map(|s| {
                s.to_str().ok_or_else(|| MetadataError::NotUtf8 {
                    key: key.to_owned(),
                })
            })
            .transpose()
    }

    /// An array of whatever type.
    /// # Errors
    /// [`MetadataError::Kind`].
    pub fn get_array(&self, key: &str) -> Typed<&Array> {
        self.typed(key, Kind::AnyArray, |value| {
            if let Value::Array(array) = value {
                Some(array)
            } else {
                None
            }
        })
    }

    /// An array of strings.
    /// # Errors
    /// [`MetadataError::Kind`].
    pub fn get_strings(&self, key: &str) -> Typed<&StringArray> {
        self.typed(key, Kind::Many(ValueType::String), |value| {
            if let Value::Array(Array::String(strings)) = value {
                Some(strings)
            } else {
                None
            }
        })
    }

    /// An array of 32-bit floating-point numbers.
    /// # Errors
    /// [`MetadataError::Kind`].
    pub fn get_f32s(&self, key: &str) -> Typed<&[f32]> {
        self.typed(key, Kind::Many(ValueType::F32), |value| {
            if let Value::Array(Array::F32(values)) = value {
                Some(values.as_slice())
            } else {
                None
            }
        })
    }

    /// An array of integers that all fit in 32 bits unsigned.
    /// # Errors
    /// [`MetadataError::Kind`], [`MetadataError::Range`].
    pub fn get_u32s(&self, key: &str) -> Typed<Vec<u32>> {
        self.integers(key, ValueType::U32)
    }

    /// An array of integers that all fit in 32 bits signed.
    /// # Errors
    /// [`MetadataError::Kind`], [`MetadataError::Range`].
    pub fn get_i32s(&self, key: &str) -> Typed<Vec<i32>> {
        self.integers(key, ValueType::I32)
    }

    fn integer<T: TryFrom<i128>>(&self, key: &str, expected: ValueType) -> Typed<T> {
        let value = self.typed(key, Kind::One(expected), Value::to_integer)?;
        value
            .map(|v| T::try_from(v).map_err(|_| MetadataError::out_of_range(key, expected, v)))
            .transpose()
    }

    fn integers<T: TryFrom<i128>>(&self, key: &str, expected: ValueType) -> Typed<Vec<T>> {
        let values = self.typed(key, Kind::Many(expected), |value| {
            if let Value::Array(array) = value {
                array.integers()
            } else {
                None
            }
        })?;
        values
            .map(|values| {
                values
                    .map(|v| {
                        T::try_from(v).map_err(|_| MetadataError::out_of_range(key, expected, v))
                    })
                    .collect()
            })
            .transpose()
    }

    /// The value of `key` as `convert` sees it; what `convert` cannot see is of the wrong kind.
    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: Kind,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Typed<T> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        convert(value)
            .map(Some)
            .ok_or_else(|| MetadataError::wrong_kind(key, expected, value.kind()))
    }

    /// Appends an entry; false, and nothing appended, if the key is there already.
    pub(crate) fn push(&mut self, key: &str, value: Value) -> bool {
        if self.by_key.contains_key(key) {
            return false;
        }
        self.by_key.insert(key.into(), self.entries.len());
        self.entries.push((key.to_owned(), value));
        true
    }
}

/// Adds `require_*` beside `get_*`.
macro_rules! require {
    ($($require:ident -> $get:ident: $type:ty),+ $(,)?) => {
        impl Metadata {
            $(
                #[doc = concat!("Like [`Metadata::", stringify!($get), "`], for a key that must be there.")]
                /// # Errors
                /// As there, and [`MetadataError::Missing`].
                pub fn $require(&self, key: &str) -> Result<$type, MetadataError> {
                    self.$get(key)?.ok_or_else(|| MetadataError::Missing { key: key.to_owned() })
                }
            )+
        }
    };
}

require! {
    require_u16 -> get_u16: u16,
    require_u32 -> get_u32: u32,
    require_i32 -> get_i32: i32,
    require_u64 -> get_u64: u64,
    require_f32 -> get_f32: f32,
    require_bool -> get_bool: bool,
    require_str -> get_str: &str,
    require_array -> get_array: &Array,
    require_strings -> get_strings: &StringArray,
    require_f32s -> get_f32s: &[f32],
    require_u32s -> get_u32s: Vec<u32>,
    require_i32s -> get_i32s: Vec<i32>,
}

/// For metadata that comes from no file. A later entry of the same key replaces the earlier one's value.
impl<K: Into<String>, V: Into<Value>> FromIterator<(K, V)> for Metadata {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Metadata {
        let mut metadata = Metadata::default();
        for (key, value) in entries {
            let (key, value) = (key.into(), value.into());
            match metadata.by_key.get(key.as_str()) {
                Some(&index) => metadata.entries[index].1 = value,
                None => _ = metadata.push(&key, value),
            }
        }
        metadata
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Metadata {
        Metadata::from_iter([
            ("small", Value::from(7u8)),
            ("large", Value::from(1u64 << 40)),
            ("negative", Value::from(-1i32)),
            ("double", Value::from(0.5f64)),
            ("text", Value::from("llama")),
            ("bytes", Value::String(b"\xff"[..].into())),
            ("flag", Value::from(true)),
            ("heads", Value::from(vec![8i32, 4])),
            ("mixed", Value::from(vec![8i64, -4])),
            (
                "words",
                Value::Array(Array::String(["a", "b"].iter().collect())),
            ),
        ])
    }

    fn message<T: std::fmt::Debug>(result: Typed<T>) -> String {
        result.expect_err("must be refused").to_string()
    }

    #[test]
    fn values_that_fit_are_accepted_whatever_their_width() {
        let metadata = sample();
        assert_eq!(metadata.get_u32("small"), Ok(Some(7)));
        assert_eq!(metadata.get_u64("large"), Ok(Some(1 << 40)));
        assert_eq!(metadata.get_i32("negative"), Ok(Some(-1)));
        assert_eq!(metadata.get_f32("double"), Ok(Some(0.5)));
        assert_eq!(metadata.get_bool("flag"), Ok(Some(true)));
        assert_eq!(metadata.get_str("text"), Ok(Some("llama")));
        assert_eq!(metadata.get_u32s("heads"), Ok(Some(vec![8, 4])));
        assert_eq!(metadata.get_i32s("mixed"), Ok(Some(vec![8, -4])));
        assert_eq!(
            metadata
                .get_array("heads")
                .map(|array| array.map(Array::len)),
            Ok(Some(2))
        );
        assert_eq!(
            metadata.require_strings("words").map(StringArray::len),
            Ok(2)
        );
        assert_eq!(metadata.get_u32("absent"), Ok(None));
    }

    #[test]
    fn refusals_name_the_key_and_both_types() {
        let metadata = sample();
        let check = |actual: String, expected: &str| assert_eq!(actual, expected);
        check(
            message(metadata.get_u32("text")),
            "metadata key 'text' has type string, expected u32",
        );
        check(
            message(metadata.get_u32("large")),
            "metadata key 'large' has value 1099511627776, which is out of range for type u32",
        );
        check(
            message(metadata.get_u64("negative")),
            "metadata key 'negative' has value -1, which is out of range for type u64",
        );
        check(
            message(metadata.get_f32("small")),
            "metadata key 'small' has type u8, expected f32",
        );
        check(
            message(metadata.get_str("bytes")),
            "metadata key 'bytes' is not UTF-8 text",
        );
        check(
            message(metadata.get_strings("heads")),
            "metadata key 'heads' has type array of i32, expected array of string",
        );
        check(
            message(metadata.get_array("small")),
            "metadata key 'small' has type u8, expected array",
        );
        check(
            message(metadata.get_u32s("mixed")),
            "metadata key 'mixed' has value -4, which is out of range for type u32",
        );
        check(
            metadata
                .require_u32("absent")
                .expect_err("missing")
                .to_string(),
            "metadata key 'absent' is missing",
        );
    }

    #[test]
    fn a_later_entry_replaces_an_earlier_one_in_place() {
        let metadata = Metadata::from_iter([("a", 1u32), ("b", 2), ("a", 3)]);
        assert_eq!(
            metadata.iter().collect::<Vec<_>>(),
            [("a", &Value::U32(3)), ("b", &Value::U32(2))]
        );
    }
}
