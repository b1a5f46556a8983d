//! Header bytes put together by hand, so that the parser is also held against something that is not its own writer.

/// Ids of value types, as the format has them.
pub(crate) mod id {
    pub(crate) const U8: u32 = 0;
    pub(crate) const U32: u32 = 4;
    pub(crate) const BOOL: u32 = 7;
    pub(crate) const STRING: u32 = 8;
    pub(crate) const ARRAY: u32 = 9;
}

/// Bytes of a file under construction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Raw(pub(crate) Vec<u8>);

impl Raw {
    /// Magic, version and counts.
    pub(crate) fn preamble(version: u32, tensor_count: u64, metadata_count: u64) -> Raw {
        Raw::default()
            .bytes(b"GGUF")
            .u32(version)
            .u64(tensor_count)
            .u64(metadata_count)
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Raw {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn u32(self, value: u32) -> Raw {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn u64(self, value: u64) -> Raw {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn string(self, string: &[u8]) -> Raw {
        self.u64(string.len() as u64).bytes(string)
    }

    /// A key and the type of its value; the value is to follow.
    pub(crate) fn key(self, key: &str, type_id: u32) -> Raw {
        self.string(key.as_bytes()).u32(type_id)
    }

    pub(crate) fn record(self, name: &str, dims: &[u64], type_id: u32, data_offset: u64) -> Raw {
        let counted = self
            .string(name.as_bytes())
            .u32(u32::try_from(dims.len()).expect("few"));
        let with_dims = dims.iter().fold(counted, |raw, &dim| raw.u64(dim));
        with_dims.u32(type_id).u64(data_offset)
    }

    /// Zeros up to the next multiple of `alignment`, and `data_len` more.
    pub(crate) fn data(mut self, alignment: usize, data_len: usize) -> Raw {
        let start = self.0.len().next_multiple_of(alignment);
        self.0.resize(start + data_len, 0);
        self
    }
}
