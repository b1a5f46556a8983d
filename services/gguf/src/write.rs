//! The way back: from metadata and tensor shapes to header bytes.

use crate::parse::ALIGNMENT_KEY;
use crate::place::data_bytes;
use crate::value::ARRAY_ID;
use crate::{
    Array, DEFAULT_ALIGNMENT, Directory, Kind, MAGIC, ParseError, Shape, TensorFault, TensorType,
    Value, limits,
};

/// Lays out one GGUF file: collects metadata and tensors, then gives the header and the place of each tensor's data.
///
/// ```
/// use gguf::{TensorType, write::Writer};
/// let header = Writer::new().metadata("general.architecture", "llama").tensor("output.weight", &[32, 2], TensorType::F32).finish()?;
/// let mut file = header.bytes;
/// let tensor = header.directory.require("output.weight").expect("it was just added");
/// file.resize(tensor.offset_bytes as usize, 0);
/// file.extend_from_slice(&[0; 32 * 2 * 4]);
/// file.resize(header.file_len as usize, 0);
/// # Ok::<(), gguf::ParseError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Writer {
    version: u32,
    metadata: Vec<(String, Value)>,
    tensors: Vec<(String, Vec<u64>, TensorType)>,
}

/// A header, ready to be written before the tensors' data.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// The header with the padding behind it: the data section begins where it ends.
    pub bytes: Vec<u8>,
    /// What a reader makes of the file: each tensor's `offset_bytes` and `len_bytes` say where its data goes.
    pub directory: Directory,
    /// Length of the whole file, with the padding after the last tensor that llama.cpp insists on.
    pub file_len: u64,
}

impl Writer {
    /// An empty file of version 3.
    #[expect(
        clippy::new_without_default,
        reason = "an empty file is where a chain of calls begins, not a value that anybody defaults to"
    )]
    pub fn new() -> Writer {
        Writer {
            version: 3,
            metadata: Vec::new(),
            tensors: Vec::new(),
        }
    }

    /// Sets the version of the format: 2 or 3.
    pub fn version(mut self, version: u32) -> Writer {
        self.version = version;
        self
    }

    /// Sets the alignment of tensor data, in bytes: adds the metadata key for it. Without it, [`DEFAULT_ALIGNMENT`] holds.
    pub fn alignment(self, alignment: u32) -> Writer {
        self.metadata(ALIGNMENT_KEY, alignment)
    }

    /// Appends a metadata entry.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<Value>) -> Writer {
        self.metadata.push((key.into(), value.into()));
        self
    }

    /// Appends a tensor; `dims` has the fastest dimension first.
    pub fn tensor(
        mut self,
        name: impl Into<String>,
        dims: &[u64],
        tensor_type: TensorType,
    ) -> Writer {
        self.tensors.push((name.into(), dims.to_vec(), tensor_type));
        self
    }

    /// Lays the file out. Tensors follow each other in the order in which they were added, each aligned.
    /// # Errors
    /// What [`Directory::parse`] has against the file: the header is read back before it is given away.
    pub fn finish(self) -> Result<Header, ParseError> {
        let alignment = u64::from(self.effective_alignment());
        let mut bytes = Vec::new();
        bytes.extend(MAGIC);
        bytes.extend(self.version.to_le_bytes());
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            put_string(&mut bytes, key.as_bytes());
            put_value(&mut bytes, value);
        }
        let mut data_len: u64 = 0;
        for (name, dims, tensor_type) in &self.tensors {
            let fault = |fault| ParseError::tensor(name, fault);
            let shape = Shape::new(dims).map_err(fault)?;
            put_record(&mut bytes, name, &shape, *tensor_type, data_len);
            let end = data_len.checked_add(data_bytes(&shape, *tensor_type).map_err(fault)?);
            data_len = end
                .and_then(|end| end.checked_next_multiple_of(alignment))
                .ok_or_else(|| fault(TensorFault::TooLarge))?;
        }
        let data_start = (bytes.len() as u64).next_multiple_of(alignment);
        bytes.resize(
            usize::try_from(data_start).expect("the header is in memory"),
            0,
        );
        let file_len = data_start.saturating_add(data_len);
        let directory = Directory::parse(&bytes, file_len)?;
        Ok(Header {
            bytes,
            directory,
            file_len,
        })
    }

    /// What readers will take the alignment to be. One that they refuse is found when the header is read back; until then any will do.
    fn effective_alignment(&self) -> u32 {
        let declared = self.metadata.iter().find(|(key, _)| key == ALIGNMENT_KEY);
        match declared {
            Some((_, Value::U32(alignment)))
                if alignment.is_power_of_two() && *alignment <= limits::ALIGNMENT =>
            {
                *alignment
            }
            _ => DEFAULT_ALIGNMENT,
        }
    }
}

fn put_string(bytes: &mut Vec<u8>, string: &[u8]) {
    bytes.extend((string.len() as u64).to_le_bytes());
    bytes.extend_from_slice(string);
}

fn put_value(bytes: &mut Vec<u8>, value: &Value) {
    let type_id = match value.kind() {
        Kind::One(value_type) => value_type.id(),
        Kind::Many(_) | Kind::AnyArray => ARRAY_ID,
    };
    bytes.extend(type_id.to_le_bytes());
    match value {
        Value::U8(v) => bytes.extend(v.to_le_bytes()),
        Value::I8(v) => bytes.extend(v.to_le_bytes()),
        Value::U16(v) => bytes.extend(v.to_le_bytes()),
        Value::I16(v) => bytes.extend(v.to_le_bytes()),
        Value::U32(v) => bytes.extend(v.to_le_bytes()),
        Value::I32(v) => bytes.extend(v.to_le_bytes()),
        Value::U64(v) => bytes.extend(v.to_le_bytes()),
        Value::I64(v) => bytes.extend(v.to_le_bytes()),
        Value::F32(v) => bytes.extend(v.to_le_bytes()),
        Value::F64(v) => bytes.extend(v.to_le_bytes()),
        Value::Bool(v) => bytes.push(u8::from(*v)),
        Value::String(v) => put_string(bytes, v.as_bytes()),
        Value::Array(v) => put_array(bytes, v),
    }
}

fn put_array(bytes: &mut Vec<u8>, array: &Array) {
    bytes.extend(array.element_type().id().to_le_bytes());
    bytes.extend((array.len() as u64).to_le_bytes());
    match array {
        Array::U8(v) => bytes.extend_from_slice(v),
        Array::I8(v) => bytes.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::U16(v) => bytes.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::I16(v) => bytes.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::U32(v) => bytes.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::I32(v) => bytes.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::U64(v) => bytes.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::I64(v) => bytes.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::F32(v) => bytes.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::F64(v) => bytes.extend(v.iter().flat_map(|v| v.to_le_bytes())),
        Array::Bool(v) => bytes.extend(v.iter().copied().map(u8::from)),
        Array::String(v) => v.iter().for_each(|string| put_string(bytes, string)),
    }
}

fn put_record(
    bytes: &mut Vec<u8>,
    name: &str,
    shape: &Shape,
    tensor_type: TensorType,
    data_offset: u64,
) {
    let n_dims = u32::try_from(shape.dims().len()).expect("a shape has at most four dimensions");
    put_string(bytes, name.as_bytes());
    bytes.extend(n_dims.to_le_bytes());
    bytes.extend(shape.dims().iter().flat_map(|dim| dim.to_le_bytes()));
    bytes.extend(tensor_type.id().to_le_bytes());
    bytes.extend(data_offset.to_le_bytes());
}
