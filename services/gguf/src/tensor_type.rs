use std::fmt;

/// One row per type: name, id, elements of a block, bytes of a block.
macro_rules! tensor_types {
    ($($name:ident = $id:literal, $block_len:literal, $block_bytes:expr;)+) => {
        /// How a tensor's elements lie in the file: the quantised layout, not only the element.
        ///
        /// The discriminant is ggml's id. Blocks of a row follow each other without gaps and a row is a whole number of blocks.
        /// Sources: ggml's `ggml.h` (ids) and `ggml-common.h` (blocks).
        #[expect(non_camel_case_types, reason = "these are the names that every GGUF tool prints")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum TensorType {
            $(#[doc = concat!("Blocks of ", stringify!($block_len), " elements.")] $name = $id,)+
        }

        impl TensorType {
            /// Every type, by ascending id.
            pub const ALL: &'static [TensorType] = &[$(TensorType::$name),+];

            /// The type with ggml's id `id`; `None` if it is unknown or was removed from the format.
            pub const fn from_id(id: u32) -> Option<TensorType> {
                match id {
                    $($id => Some(TensorType::$name),)+
                    _ => None,
                }
            }

            /// The name, as in `Q8_0`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(TensorType::$name => stringify!($name),)+
                }
            }

            const fn block(self) -> (usize, usize) {
                match self {
                    $(TensorType::$name => ($block_len, $block_bytes),)+
                }
            }
        }
    };
}

// A block's bytes are summed in the order of its fields: scales, then high bits where they are apart, then quants.
// Q8_1 and Q8_K are what activations become on the way through a matrix product; their ids are known, files do not hold them.
tensor_types! {
    F32     =  0,   1, 4;
    F16     =  1,   1, 2;
    Q4_0    =  2,  32, 2 + 16;
    Q4_1    =  3,  32, 2 + 2 + 16;
    Q5_0    =  6,  32, 2 + 4 + 16;
    Q5_1    =  7,  32, 2 + 2 + 4 + 16;
    Q8_0    =  8,  32, 2 + 32;
    Q8_1    =  9,  32, 2 + 2 + 32;
    Q2_K    = 10, 256, 16 + 64 + 2 + 2;
    Q3_K    = 11, 256, 32 + 64 + 12 + 2;
    Q4_K    = 12, 256, 2 + 2 + 12 + 128;
    Q5_K    = 13, 256, 2 + 2 + 12 + 32 + 128;
    Q6_K    = 14, 256, 128 + 64 + 16 + 2;
    Q8_K    = 15, 256, 4 + 256 + 32;
    IQ2_XXS = 16, 256, 2 + 64;
    IQ2_XS  = 17, 256, 2 + 64 + 8;
    IQ3_XXS = 18, 256, 2 + 96;
    IQ1_S   = 19, 256, 2 + 32 + 16;
    IQ4_NL  = 20,  32, 2 + 16;
    IQ3_S   = 21, 256, 2 + 64 + 8 + 32 + 4;
    IQ2_S   = 22, 256, 2 + 64 + 8 + 8;
    IQ4_XS  = 23, 256, 2 + 2 + 4 + 128;
    I8      = 24,   1, 1;
    I16     = 25,   1, 2;
    I32     = 26,   1, 4;
    I64     = 27,   1, 8;
    F64     = 28,   1, 8;
    IQ1_M   = 29, 256, 32 + 16 + 8;
    BF16    = 30,   1, 2;
    TQ1_0   = 34, 256, 48 + 4 + 2;
    TQ2_0   = 35, 256, 64 + 2;
    MXFP4   = 39,  32, 1 + 16;
    NVFP4   = 40,  64, 4 + 32;
    Q1_0    = 41, 128, 2 + 16;
    Q2_0    = 42,  64, 2 + 16;
}

impl TensorType {
    /// ggml's id, as the file stores it.
    pub const fn id(self) -> u32 {
        self as u32
    }

    /// Elements of one block; 1 for types that are not quantised.
    pub const fn block_len(self) -> usize {
        self.block().0
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        self.block().1
    }

    /// Bytes of a row of `n` elements; `None` if `n` is not a whole number of blocks or the product leaves 64 bits.
    pub const fn row_bytes(self, n: u64) -> Option<u64> {
        let (block_len, block_bytes) = self.block();
        if !n.is_multiple_of(block_len as u64) {
            return None;
        }
        (n / block_len as u64).checked_mul(block_bytes as u64)
    }

    /// The name of a type that ggml once had under `id` and then took out of the format.
    pub const fn removed_name(id: u32) -> Option<&'static str> {
        match id {
            4 => Some("Q4_2"),
            5 => Some("Q4_3"),
            31 => Some("Q4_0_4_4"),
            32 => Some("Q4_0_4_8"),
            33 => Some("Q4_0_8_8"),
            36 => Some("IQ4_NL_4_4"),
            37 => Some("IQ4_NL_4_8"),
            38 => Some("IQ4_NL_8_8"),
            _ => None,
        }
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_the_format_and_lead_back() {
        for id in 0..=64 {
            if let Some(tensor_type) = TensorType::from_id(id) {
                assert_eq!(tensor_type.id(), id);
                assert_eq!(
                    TensorType::removed_name(id),
                    None,
                    "{tensor_type} is both live and removed"
                );
            }
        }
        assert_eq!(TensorType::ALL.len(), 35);
        assert!(TensorType::ALL.is_sorted_by_key(|t| t.id()));
        assert_eq!(TensorType::from_id(4), None);
        assert_eq!(TensorType::from_id(999), None);
    }

    /// Bits per element as llama.cpp's documentation and its quantiser print them: an independent look at the sums in the table.
    #[test]
    fn bits_per_element_are_the_published_ones() {
        fn check(tensor_type: TensorType, expected: f64) {
            let bits = tensor_type.block_bytes() as f64 * 8.0 / tensor_type.block_len() as f64;
            assert_eq!(bits, expected, "{tensor_type}");
        }
        check(TensorType::F32, 32.0);
        check(TensorType::BF16, 16.0);
        check(TensorType::Q4_0, 4.5);
        check(TensorType::Q5_1, 6.0);
        check(TensorType::Q8_0, 8.5);
        check(TensorType::Q8_1, 9.0);
        check(TensorType::Q2_K, 2.625);
        check(TensorType::Q3_K, 3.4375);
        check(TensorType::Q4_K, 4.5);
        check(TensorType::Q5_K, 5.5);
        check(TensorType::Q6_K, 6.5625);
        check(TensorType::IQ1_S, 1.5625);
        check(TensorType::IQ1_M, 1.75);
        check(TensorType::IQ2_XXS, 2.0625);
        check(TensorType::IQ2_XS, 2.3125);
        check(TensorType::IQ2_S, 2.5625);
        check(TensorType::IQ3_XXS, 3.0625);
        check(TensorType::IQ3_S, 3.4375);
        check(TensorType::IQ4_XS, 4.25);
        check(TensorType::IQ4_NL, 4.5);
        check(TensorType::TQ1_0, 1.6875);
        check(TensorType::TQ2_0, 2.0625);
        check(TensorType::MXFP4, 4.25);
        check(TensorType::NVFP4, 4.5);
        check(TensorType::Q1_0, 1.125);
        check(TensorType::Q2_0, 2.25);
    }

    #[test]
    fn row_bytes_wants_whole_blocks_and_64_bits() {
        assert_eq!(TensorType::Q8_0.row_bytes(4096), Some(4352));
        assert_eq!(TensorType::Q4_K.row_bytes(32), None);
        assert_eq!(TensorType::F64.row_bytes(u64::MAX), None);
        assert_eq!(TensorType::I8.row_bytes(u64::MAX), Some(u64::MAX));
    }
}
