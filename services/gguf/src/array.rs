use std::fmt;

use crate::ValueType;

/// A metadata array. The format also knows arrays of arrays; no published model uses them and the parser refuses them.
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    /// 8 bits, unsigned.
    U8(Vec<u8>),
    /// 8 bits, signed.
    I8(Vec<i8>),
    /// 16 bits, unsigned.
    U16(Vec<u16>),
    /// 16 bits, signed.
    I16(Vec<i16>),
    /// 32 bits, unsigned.
    U32(Vec<u32>),
    /// 32 bits, signed.
    I32(Vec<i32>),
    /// 64 bits, unsigned.
    U64(Vec<u64>),
    /// 64 bits, signed.
    I64(Vec<i64>),
    /// IEEE 754, 32 bits; any bit pattern.
    F32(Vec<f32>),
    /// IEEE 754, 64 bits; any bit pattern.
    F64(Vec<f64>),
    /// True or false.
    Bool(Vec<bool>),
    /// Strings.
    String(StringArray),
}

impl Array {
    /// The type of the elements.
    pub fn element_type(&self) -> ValueType {
        match self {
            Array::U8(_) => ValueType::U8,
            Array::I8(_) => ValueType::I8,
            Array::U16(_) => ValueType::U16,
            Array::I16(_) => ValueType::I16,
            Array::U32(_) => ValueType::U32,
            Array::I32(_) => ValueType::I32,
            Array::U64(_) => ValueType::U64,
            Array::I64(_) => ValueType::I64,
            Array::F32(_) => ValueType::F32,
            Array::F64(_) => ValueType::F64,
            Array::Bool(_) => ValueType::Bool,
            Array::String(_) => ValueType::String,
        }
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        match self {
            Array::U8(v) => v.len(),
            Array::I8(v) => v.len(),
            Array::U16(v) => v.len(),
            Array::I16(v) => v.len(),
            Array::U32(v) => v.len(),
            Array::I32(v) => v.len(),
            Array::U64(v) => v.len(),
            Array::I64(v) => v.len(),
            Array::F32(v) => v.len(),
            Array::F64(v) => v.len(),
            Array::Bool(v) => v.len(),
            Array::String(v) => v.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements, if they are integers of any width. Every integer of the format fits.
    pub fn integers(&self) -> Option<Box<dyn Iterator<Item = i128> + '_>> {
        fn widen<T: Copy + Into<i128>>(values: &[T]) -> Box<dyn Iterator<Item = i128> + '_> {
            Box::new(values.iter().map(|&v| v.into()))
        }
        Some(match self {
            Array::U8(v) => widen(v),
            Array::I8(v) => widen(v),
            Array::U16(v) => widen(v),
            Array::I16(v) => widen(v),
            Array::U32(v) => widen(v),
            Array::I32(v) => widen(v),
            Array::U64(v) => widen(v),
            Array::I64(v) => widen(v),
            Array::F32(_) | Array::F64(_) | Array::Bool(_) | Array::String(_) => return None,
        })
    }
}

/// Makes `Array::from` take what the variant holds.
macro_rules! array_from {
    ($($variant:ident($from:ty)),+ $(,)?) => {
        $(impl From<$from> for Array {
            fn from(values: $from) -> Array {
                Array::$variant(values)
            }
        })+
    };
}

array_from! {
    U8(Vec<u8>), I8(Vec<i8>), U16(Vec<u16>), I16(Vec<i16>), U32(Vec<u32>), I32(Vec<i32>), U64(Vec<u64>), I64(Vec<i64>),
    F32(Vec<f32>), F64(Vec<f64>), Bool(Vec<bool>), String(StringArray),
}

/// Many byte strings in one buffer.
///
/// A vocabulary has a hundred thousand of them: two allocations instead of one for each.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StringArray {
    bytes: Vec<u8>,
    /// Where each string ends in `bytes`; it begins where the one before it ends.
    ends: Vec<usize>,
}

impl StringArray {
    /// How many strings there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The string at `index`, or `None` past the end.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.bytes[start..end])
    }

    /// The strings in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> + '_ {
        let mut start = 0;
        self.ends
            .iter()
            .map(move |&end| &self.bytes[std::mem::replace(&mut start, end)..end])
    }

    /// The bytes of all strings together.
    pub fn total_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Appends a string.
    pub fn push(&mut self, string: &[u8]) {
        self.bytes.extend_from_slice(string);
        self.ends.push(self.bytes.len());
    }

    /// Makes room for `additional` strings of `additional_bytes` in all.
    pub(crate) fn reserve(&mut self, additional: usize, additional_bytes: usize) {
        self.ends.reserve_exact(additional);
        self.bytes.reserve_exact(additional_bytes);
    }
}

impl<S: AsRef<[u8]>> FromIterator<S> for StringArray {
    fn from_iter<I: IntoIterator<Item = S>>(strings: I) -> StringArray {
        let mut array = StringArray::default();
        for string in strings {
            array.push(string.as_ref());
        }
        array
    }
}

/// What is not UTF-8 shows as U+FFFD.
impl fmt::Debug for StringArray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.iter().map(String::from_utf8_lossy))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_come_back_as_they_went_in() {
        let check = |strings: &[&[u8]]| {
            let array: StringArray = strings.iter().collect();
            assert_eq!(array.iter().collect::<Vec<_>>(), strings);
            assert_eq!(array.iter().len(), strings.len());
            for (index, string) in strings.iter().enumerate() {
                assert_eq!(array.get(index), Some(*string));
            }
            assert_eq!(array.get(strings.len()), None);
            assert_eq!(array.is_empty(), strings.is_empty());
        };
        check(&[]);
        check(&[b""]);
        check(&[b"", b"a", b"", b"\xff\x00b", b""]);
    }

    #[test]
    fn integers_of_any_width() {
        let check = |array: Array, expected: Option<&[i128]>| {
            assert_eq!(
                array.integers().map(Iterator::collect::<Vec<_>>).as_deref(),
                expected
            )
        };
        check(vec![u64::MAX].into(), Some(&[u64::MAX.into()]));
        check(vec![-1i8, 2].into(), Some(&[-1, 2]));
        check(vec![1.0f32].into(), None);
        check(vec![true].into(), None);
    }
}
