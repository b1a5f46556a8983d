use std::fmt;

use crate::{Array, StringArray};

/// The type of a metadata value that is no array; also the type of an array's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// 8 bits, unsigned.
    U8,
    /// 8 bits, signed.
    I8,
    /// 16 bits, unsigned.
    U16,
    /// 16 bits, signed.
    I16,
    /// 32 bits, unsigned.
    U32,
    /// 32 bits, signed.
    I32,
    /// IEEE 754, 32 bits.
    F32,
    /// One byte, 0 or 1.
    Bool,
    /// A length and so many bytes.
    String,
    /// 64 bits, unsigned.
    U64,
    /// 64 bits, signed.
    I64,
    /// IEEE 754, 64 bits.
    F64,
}

/// The id under which a file announces an array.
pub(crate) const ARRAY_ID: u32 = 9;

impl ValueType {
    /// The type with id `id`; `None` if it is unknown, and for arrays.
    pub const fn from_id(id: u32) -> Option<ValueType> {
        Some(match id {
            0 => ValueType::U8,
            1 => ValueType::I8,
            2 => ValueType::U16,
            3 => ValueType::I16,
            4 => ValueType::U32,
            5 => ValueType::I32,
            6 => ValueType::F32,
            7 => ValueType::Bool,
            8 => ValueType::String,
            10 => ValueType::U64,
            11 => ValueType::I64,
            12 => ValueType::F64,
            _ => return None,
        })
    }

    /// The id, as the file stores it.
    pub const fn id(self) -> u32 {
        match self {
            ValueType::U8 => 0,
            ValueType::I8 => 1,
            ValueType::U16 => 2,
            ValueType::I16 => 3,
            ValueType::U32 => 4,
            ValueType::I32 => 5,
            ValueType::F32 => 6,
            ValueType::Bool => 7,
            ValueType::String => 8,
            ValueType::U64 => 10,
            ValueType::I64 => 11,
            ValueType::F64 => 12,
        }
    }

    /// The fewest bytes that one such value takes in a file.
    pub(crate) const fn min_bytes(self) -> u64 {
        match self {
            ValueType::U8 | ValueType::I8 | ValueType::Bool => 1,
            ValueType::U16 | ValueType::I16 => 2,
            ValueType::U32 | ValueType::I32 | ValueType::F32 => 4,
            ValueType::U64 | ValueType::I64 | ValueType::F64 | ValueType::String => 8,
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            ValueType::U8 => "u8",
            ValueType::I8 => "i8",
            ValueType::U16 => "u16",
            ValueType::I16 => "i16",
            ValueType::U32 => "u32",
            ValueType::I32 => "i32",
            ValueType::F32 => "f32",
            ValueType::Bool => "bool",
            ValueType::String => "string",
            ValueType::U64 => "u64",
            ValueType::I64 => "i64",
            ValueType::F64 => "f64",
        })
    }
}

/// One value of a type, or an array of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A single value.
    One(ValueType),
    /// An array.
    Many(ValueType),
    /// An array of any type: only ever what was asked for.
    AnyArray,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::One(value_type) => value_type.fmt(f),
            Kind::Many(value_type) => write!(f, "array of {value_type}"),
            Kind::AnyArray => f.pad("array"),
        }
    }
}

/// A metadata string: bytes that ought to be UTF-8 and need not be.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct ByteString(Vec<u8>);

impl ByteString {
    /// The bytes as they lie in the file.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text, or `None` if the bytes are not UTF-8.
    pub fn to_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl From<Vec<u8>> for ByteString {
    fn from(bytes: Vec<u8>) -> ByteString {
        ByteString(bytes)
    }
}

impl From<&[u8]> for ByteString {
    fn from(bytes: &[u8]) -> ByteString {
        ByteString(bytes.to_vec())
    }
}

impl From<&str> for ByteString {
    fn from(text: &str) -> ByteString {
        ByteString(text.as_bytes().to_vec())
    }
}

impl From<String> for ByteString {
    fn from(text: String) -> ByteString {
        ByteString(text.into_bytes())
    }
}

/// What is not UTF-8 shows as U+FFFD.
impl fmt::Display for ByteString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for ByteString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(&self.0), f)
    }
}

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// 8 bits, unsigned.
    U8(u8),
    /// 8 bits, signed.
    I8(i8),
    /// 16 bits, unsigned.
    U16(u16),
    /// 16 bits, signed.
    I16(i16),
    /// 32 bits, unsigned.
    U32(u32),
    /// 32 bits, signed.
    I32(i32),
    /// 64 bits, unsigned.
    U64(u64),
    /// 64 bits, signed.
    I64(i64),
    /// IEEE 754, 32 bits; any bit pattern.
    F32(f32),
    /// IEEE 754, 64 bits; any bit pattern.
    F64(f64),
    /// True or false.
    Bool(bool),
    /// Bytes, as a rule text.
    String(ByteString),
    /// Values of one type.
    Array(Array),
}

impl Value {
    /// The type, for messages.
    pub fn kind(&self) -> Kind {
        Kind::One(match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F32(_) => ValueType::F32,
            Value::F64(_) => ValueType::F64,
            Value::Bool(_) => ValueType::Bool,
            Value::String(_) => ValueType::String,
            Value::Array(array) => return Kind::Many(array.element_type()),
        })
    }

    /// The number, if the value is an integer of any width. Every integer of the format fits.
    pub fn to_integer(&self) -> Option<i128> {
        match *self {
            Value::U8(v) => Some(v.into()),
            Value::I8(v) => Some(v.into()),
            Value::U16(v) => Some(v.into()),
            Value::I16(v) => Some(v.into()),
            Value::U32(v) => Some(v.into()),
            Value::I32(v) => Some(v.into()),
            Value::U64(v) => Some(v.into()),
            Value::I64(v) => Some(v.into()),
            Value::F32(_) | Value::F64(_) | Value::Bool(_) | Value::String(_) | Value::Array(_) => {
                None
            }
        }
    }
}

/// Makes `Value::from` take what the variant holds.
macro_rules! value_from {
    ($($variant:ident($from:ty)),+ $(,)?) => {
        $(impl From<$from> for Value {
            fn from(value: $from) -> Value {
                Value::$variant(value.into())
            }
        })+
    };
}

value_from! {
    U8(u8), I8(i8), U16(u16), I16(i16), U32(u32), I32(i32), U64(u64), I64(i64), F32(f32), F64(f64), Bool(bool),
    String(ByteString), String(&str), String(String), Array(Array), Array(StringArray),
    Array(Vec<u8>), Array(Vec<i8>), Array(Vec<u16>), Array(Vec<i16>), Array(Vec<u32>), Array(Vec<i32>),
    Array(Vec<u64>), Array(Vec<i64>), Array(Vec<f32>), Array(Vec<f64>), Array(Vec<bool>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_ids_lead_back() {
        let known: Vec<u32> = (0..64)
            .filter(|&id| ValueType::from_id(id).is_some_and(|t| t.id() == id))
            .collect();
        assert_eq!(known, [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12]);
    }

    #[test]
    fn kinds_read_well() {
        assert_eq!(Value::from(3u8).kind().to_string(), "u8");
        assert_eq!(Value::from("x").kind().to_string(), "string");
        assert_eq!(Value::from(vec![1.0f32]).kind().to_string(), "array of f32");
    }

    #[test]
    fn strings_keep_bytes_that_are_no_text() {
        let string = ByteString::from(&b"a\xff"[..]);
        assert_eq!(
            (string.as_bytes(), string.to_str(), string.to_string()),
            (&b"a\xff"[..], None, "a\u{fffd}".to_owned())
        );
    }
}
