use crate::{Field, ParseError, limits};

/// Where the parser stands in a prefix of a file.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
    file_len: u64,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8], file_len: u64) -> Cursor<'a> {
        // Bytes that the file cannot have, or that no header may reach, are not believed.
        let believed = usize::try_from(file_len.min(limits::HEADER_BYTES)).unwrap_or(usize::MAX);
        Cursor {
            bytes: &bytes[..bytes.len().min(believed)],
            position: 0,
            file_len,
        }
    }

    pub(crate) fn position(&self) -> u64 {
        self.position as u64
    }

    /// Checks that `len` more bytes are here. Call it before memory is set aside for what they hold.
    pub(crate) fn demand(&self, len: u64, field: Field) -> Result<(), ParseError> {
        let here = (self.bytes.len() - self.position) as u64;
        if len <= here {
            Ok(())
        } else {
            Err(self.lacks(len, field))
        }
    }

    /// Why `len` more bytes are not here.
    #[cold]
    fn lacks(&self, len: u64, field: Field) -> ParseError {
        let need_bytes = self.position().saturating_add(len);
        if need_bytes > self.file_len {
            ParseError::Truncated {
                field,
                need_bytes,
                file_len: self.file_len,
            }
        } else if need_bytes > limits::HEADER_BYTES {
            ParseError::OverLimit {
                field: Field::Header,
                value: need_bytes,
                limit: limits::HEADER_BYTES,
            }
        } else {
            ParseError::Incomplete { need_bytes }
        }
    }

    pub(crate) fn take(&mut self, len: u64, field: Field) -> Result<&'a [u8], ParseError> {
        self.demand(len, field)?;
        let start = self.position;
        self.position += usize::try_from(len).expect("the bytes are in memory");
        Ok(&self.bytes[start..self.position])
    }

    pub(crate) fn array<const N: usize>(&mut self, field: Field) -> Result<[u8; N], ParseError> {
        let bytes = self.take(N as u64, field)?;
        Ok(bytes.try_into().expect("N bytes were taken"))
    }

    pub(crate) fn u32(&mut self, field: Field) -> Result<u32, ParseError> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn u64(&mut self, field: Field) -> Result<u64, ParseError> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    /// A length of at most `limit` and so many bytes.
    pub(crate) fn string(&mut self, field: Field, limit: u64) -> Result<&'a [u8], ParseError> {
        let len = self.u64(field)?;
        ParseError::over_limit(field, len, limit)?;
        self.take(len, field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_prefix_is_incomplete_and_a_short_file_truncated() {
        let check = |given: usize, file_len: u64, take: u64, expected: Result<(), ParseError>| {
            let bytes = vec![0; given];
            assert_eq!(
                Cursor::new(&bytes, file_len)
                    .take(take, Field::Key)
                    .map(|_| ()),
                expected
            );
        };
        check(8, 100, 8, Ok(()));
        check(8, 100, 9, Err(ParseError::Incomplete { need_bytes: 9 }));
        check(
            8,
            100,
            101,
            Err(ParseError::Truncated {
                field: Field::Key,
                need_bytes: 101,
                file_len: 100,
            }),
        );
        check(
            8,
            4,
            5,
            Err(ParseError::Truncated {
                field: Field::Key,
                need_bytes: 5,
                file_len: 4,
            }),
        );
        check(
            8,
            100,
            u64::MAX,
            Err(ParseError::Truncated {
                field: Field::Key,
                need_bytes: u64::MAX,
                file_len: 100,
            }),
        );
        let limit = limits::HEADER_BYTES;
        check(
            8,
            u64::MAX,
            limit,
            Err(ParseError::Incomplete { need_bytes: limit }),
        );
        let too_long = ParseError::OverLimit {
            field: Field::Header,
            value: limit + 1,
            limit,
        };
        check(8, u64::MAX, limit + 1, Err(too_long.clone()));
        // Also where the bytes are there: zeroed memory that nobody touches costs nothing.
        let given = usize::try_from(limit).expect("64-bit");
        check(given + 8, u64::MAX, limit, Ok(()));
        check(given + 8, u64::MAX, limit + 1, Err(too_long));
    }
}
