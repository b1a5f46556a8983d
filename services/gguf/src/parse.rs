//! The header in the order in which it lies in the file: preamble, metadata, tensor records.

use crate::cursor::Cursor;
use crate::directory::{Directory, FileHeader};
use crate::place::{Record, place};
use crate::value::ARRAY_ID;
use crate::{
    Array, ByteString, DEFAULT_ALIGNMENT, Field, Kind, MAGIC, MAX_DIMS, Metadata, MetadataError,
    MetadataFault, ParseError, Shape, Split, StringArray, TensorFault, TensorType, Value,
    ValueType, limits,
};

pub(crate) const ALIGNMENT_KEY: &str = "general.alignment";

/// The fewest bytes of a metadata entry: an empty key, a type, a value of one byte.
const ENTRY_BYTES_MIN: u64 = 8 + 4 + 1;

/// The fewest bytes of a tensor record: an empty name, the number of dimensions, one of them, a type, an offset.
const RECORD_BYTES_MIN: u64 = 8 + 4 + 8 + 4 + 8;

/// What stands before the metadata.
struct Preamble {
    version: u32,
    tensor_count: u64,
    metadata_count: u64,
}

pub(crate) fn parse(bytes: &[u8], file_len: u64) -> Result<Directory, ParseError> {
    let mut cursor = Cursor::new(bytes, file_len);
    let preamble = read_preamble(&mut cursor)?;
    let metadata = read_metadata(&mut cursor, &preamble)?;
    let alignment = read_alignment(&metadata)?;
    let split = Split::from_metadata(&metadata)?;
    let records = read_records(&mut cursor, preamble.tensor_count)?;
    let data_start = cursor.position().next_multiple_of(u64::from(alignment));
    let placed = place(records, data_start, alignment, file_len)?;
    let file = FileHeader {
        version: preamble.version,
        alignment,
        header_len: data_start.min(file_len),
    };
    Ok(Directory {
        files: vec![file],
        metadata,
        tensors: placed.tensors,
        extents: placed.extents,
        by_name: placed.by_name,
        split,
    })
}

fn read_preamble(cursor: &mut Cursor<'_>) -> Result<Preamble, ParseError> {
    let found = cursor.array(Field::Header)?;
    if found != MAGIC {
        return Err(ParseError::Magic { found });
    }
    let version = cursor.u32(Field::Header)?;
    match version {
        2 | 3 => {}
        _ if (1..=3).contains(&version.swap_bytes()) => {
            return Err(ParseError::BigEndian {
                version: version.swap_bytes(),
            });
        }
        _ => return Err(ParseError::Version { version }),
    }
    let tensor_count = cursor.u64(Field::Header)?;
    let metadata_count = cursor.u64(Field::Header)?;
    ParseError::over_limit(Field::TensorCount, tensor_count, limits::TENSOR_COUNT)?;
    ParseError::over_limit(Field::MetadataCount, metadata_count, limits::METADATA_COUNT)?;
    Ok(Preamble {
        version,
        tensor_count,
        metadata_count,
    })
}

fn read_metadata(cursor: &mut Cursor<'_>, preamble: &Preamble) -> Result<Metadata, ParseError> {
    // The records are demanded too, so that a caller who was told `Incomplete` fetches them in the same go.
    cursor.demand(
        preamble.metadata_count * ENTRY_BYTES_MIN + preamble.tensor_count * RECORD_BYTES_MIN,
        Field::Header,
    )?;
    let mut metadata = Metadata::default();
    for _ in 0..preamble.metadata_count {
        let key_bytes = cursor.string(Field::Key, limits::KEY_BYTES)?;
        let Ok(key) = std::str::from_utf8(key_bytes) else {
            return Err(ParseError::metadata(
                &String::from_utf8_lossy(key_bytes),
                MetadataFault::KeyNotUtf8,
            ));
        };
        let type_id = cursor.u32(Field::Value)?;
        let value = read_value(cursor, key, type_id)?;
        if !metadata.push(key, value) {
            return Err(ParseError::metadata(key, MetadataFault::Duplicate));
        }
    }
    Ok(metadata)
}

fn read_value(cursor: &mut Cursor<'_>, key: &str, type_id: u32) -> Result<Value, ParseError> {
    if type_id == ARRAY_ID {
        return read_array(cursor, key).map(Value::Array);
    }
    let Some(value_type) = ValueType::from_id(type_id) else {
        return Err(ParseError::metadata(
            key,
            MetadataFault::UnknownType { type_id },
        ));
    };
    Ok(match value_type {
        ValueType::U8 => Value::U8(u8::from_le_bytes(cursor.array(Field::Value)?)),
        ValueType::I8 => Value::I8(i8::from_le_bytes(cursor.array(Field::Value)?)),
        ValueType::U16 => Value::U16(u16::from_le_bytes(cursor.array(Field::Value)?)),
        ValueType::I16 => Value::I16(i16::from_le_bytes(cursor.array(Field::Value)?)),
        ValueType::U32 => Value::U32(u32::from_le_bytes(cursor.array(Field::Value)?)),
        ValueType::I32 => Value::I32(i32::from_le_bytes(cursor.array(Field::Value)?)),
        ValueType::U64 => Value::U64(u64::from_le_bytes(cursor.array(Field::Value)?)),
        ValueType::I64 => Value::I64(i64::from_le_bytes(cursor.array(Field::Value)?)),
        ValueType::F32 => Value::F32(f32::from_le_bytes(cursor.array(Field::Value)?)),
        ValueType::F64 => Value::F64(f64::from_le_bytes(cursor.array(Field::Value)?)),
        ValueType::Bool => Value::Bool(bool_from(cursor.array(Field::Value)?, key)?),
        ValueType::String => {
            Value::String(ByteString::from(cursor.string(Field::String, u64::MAX)?))
        }
    })
}

fn read_array(cursor: &mut Cursor<'_>, key: &str) -> Result<Array, ParseError> {
    let type_id = cursor.u32(Field::Array)?;
    let len = cursor.u64(Field::Array)?;
    if type_id == ARRAY_ID {
        return Err(ParseError::metadata(key, MetadataFault::NestedArray));
    }
    let Some(element_type) = ValueType::from_id(type_id) else {
        return Err(ParseError::metadata(
            key,
            MetadataFault::UnknownElementType { type_id },
        ));
    };
    if element_type == ValueType::String {
        return read_strings(cursor, len).map(Array::String);
    }
    let bytes = cursor.take(len.saturating_mul(element_type.min_bytes()), Field::Array)?;
    Ok(match element_type {
        ValueType::U8 => Array::U8(bytes.to_vec()),
        ValueType::I8 => Array::I8(numbers(bytes, i8::from_le_bytes)),
        ValueType::U16 => Array::U16(numbers(bytes, u16::from_le_bytes)),
        ValueType::I16 => Array::I16(numbers(bytes, i16::from_le_bytes)),
        ValueType::U32 => Array::U32(numbers(bytes, u32::from_le_bytes)),
        ValueType::I32 => Array::I32(numbers(bytes, i32::from_le_bytes)),
        ValueType::U64 => Array::U64(numbers(bytes, u64::from_le_bytes)),
        ValueType::I64 => Array::I64(numbers(bytes, i64::from_le_bytes)),
        ValueType::F32 => Array::F32(numbers(bytes, f32::from_le_bytes)),
        ValueType::F64 => Array::F64(numbers(bytes, f64::from_le_bytes)),
        ValueType::Bool => Array::Bool(
            bytes
                .iter()
                .map(|&byte| bool_from([byte], key))
                .collect::<Result<_, _>>()?,
        ),
        ValueType::String => unreachable!("strings were read above"),
    })
}

fn numbers<T, const N: usize>(bytes: &[u8], from_le_bytes: fn([u8; N]) -> T) -> Vec<T> {
    let (chunks, rest) = bytes.as_chunks();
    debug_assert!(rest.is_empty(), "a whole number of elements was taken");
    chunks.iter().copied().map(from_le_bytes).collect()
}

fn bool_from([byte]: [u8; 1], key: &str) -> Result<bool, ParseError> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(ParseError::metadata(key, MetadataFault::NotBool { byte })),
    }
}

fn read_strings(cursor: &mut Cursor<'_>, len: u64) -> Result<StringArray, ParseError> {
    cursor.demand(
        len.saturating_mul(ValueType::String.min_bytes()),
        Field::Array,
    )?;
    // Walked once to add up the lengths, so that nothing is set aside for strings that are not all here, and nothing grows.
    let mut total_bytes = 0;
    let mut ahead = cursor.clone();
    for _ in 0..len {
        total_bytes += ahead.string(Field::String, u64::MAX)?.len();
    }
    let mut strings = StringArray::default();
    strings.reserve(
        usize::try_from(len).expect("as many strings are in memory"),
        total_bytes,
    );
    for _ in 0..len {
        strings.push(cursor.string(Field::String, u64::MAX)?);
    }
    Ok(strings)
}

fn read_alignment(metadata: &Metadata) -> Result<u32, ParseError> {
    match metadata.get(ALIGNMENT_KEY) {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(&Value::U32(alignment))
            if alignment.is_power_of_two() && alignment <= limits::ALIGNMENT =>
        {
            Ok(alignment)
        }
        Some(&Value::U32(alignment)) => Err(ParseError::metadata(
            ALIGNMENT_KEY,
            MetadataFault::Alignment { alignment },
        )),
        // Other readers insist on the exact type, so a file with another one is laid out for nobody.
        Some(value) => {
            Err(
                MetadataError::wrong_kind(ALIGNMENT_KEY, Kind::One(ValueType::U32), value.kind())
                    .into(),
            )
        }
    }
}

fn read_records(cursor: &mut Cursor<'_>, count: u64) -> Result<Vec<Record>, ParseError> {
    cursor.demand(count * RECORD_BYTES_MIN, Field::TensorRecord)?;
    (0..count).map(|_| read_record(cursor)).collect()
}

fn read_record(cursor: &mut Cursor<'_>) -> Result<Record, ParseError> {
    let name_bytes = cursor.string(Field::TensorName, limits::NAME_BYTES)?;
    let Ok(name) = std::str::from_utf8(name_bytes) else {
        return Err(ParseError::tensor(
            &String::from_utf8_lossy(name_bytes),
            TensorFault::NameNotUtf8,
        ));
    };
    let fault = |fault| ParseError::tensor(name, fault);
    let n_dims = cursor.u32(Field::TensorRecord)?;
    let dims_buffer = &mut [0; MAX_DIMS];
    let dims = usize::try_from(n_dims)
        .ok()
        .and_then(|n_dims| dims_buffer.get_mut(..n_dims))
        .ok_or_else(|| fault(TensorFault::DimCount { n_dims }))?;
    for dim in dims.iter_mut() {
        *dim = cursor.u64(Field::TensorRecord)?;
    }
    let shape = Shape::new(dims).map_err(fault)?;
    let type_id = cursor.u32(Field::TensorRecord)?;
    let tensor_type = TensorType::from_id(type_id).ok_or_else(|| {
        fault(match TensorType::removed_name(type_id) {
            Some(type_name) => TensorFault::RemovedType { type_id, type_name },
            None => TensorFault::UnknownType { type_id },
        })
    })?;
    let data_offset = cursor.u64(Field::TensorRecord)?;
    Ok(Record {
        name: name.to_owned(),
        shape,
        tensor_type,
        data_offset,
    })
}
