//! The alphabet of byte-level vocabularies: 256 printable characters, one for each byte.
//!
//! GPT-2 wanted tokens that can be written in a text file, so each byte got a character: the printable ones of Latin-1 stand for themselves, the other 68 bytes, in ascending order, for U+0100 and on.

/// Bytes that stand for themselves.
const fn is_printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

/// One past the last character of the alphabet.
const END: usize = 0x100 + 68;

/// Character to byte; `None` for characters below `END` that are not in the alphabet.
const BYTES: [Option<u8>; END] = {
    let mut bytes = [None; END];
    let mut moved = 0x100;
    let mut byte = 0u8;
    loop {
        if is_printable(byte) {
            bytes[byte as usize] = Some(byte);
        } else {
            bytes[moved] = Some(byte);
            moved += 1;
        }
        if byte == u8::MAX {
            break;
        }
        byte += 1;
    }
    bytes
};

/// Appends the bytes that `spelled` stands for to `out`. What is not of the alphabet (or not UTF-8) is copied as it is; the answer says whether everything was.
pub(crate) fn append_bytes(spelled: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    // Bytes are never more than their spelling. Room for all of it first: the loop below runs over megabytes when a vocabulary is loaded.
    out.resize(start + spelled.len(), 0);
    let room = &mut out[start..];
    let (mut read, mut written) = (0, 0);
    let mut pure = true;
    while let Some(&first) = spelled.get(read) {
        let byte = match (first, spelled.get(read + 1)) {
            (b'!'..=b'~', _) => first,
            // The rest of the alphabet lies between U+0080 and U+07FF: two bytes of UTF-8 each.
            (0xc2..=0xdf, Some(&second)) if let Some(byte) = two_bytes(first, second) => {
                read += 1;
                byte
            }
            _ => {
                pure = false;
                first
            }
        };
        room[written] = byte;
        read += 1;
        written += 1;
    }
    out.truncate(start + written);
    pure
}

/// The byte that a character of two bytes of UTF-8 stands for.
fn two_bytes(first: u8, second: u8) -> Option<u8> {
    let character = (usize::from(first) & 0x1f) << 6 | usize::from(second) & 0x3f;
    if second & 0xc0 == 0x80 {
        BYTES.get(character).copied().flatten()
    } else {
        None
    }
}

/// The character that stands for `byte`.
#[cfg(test)]
pub(crate) fn character(byte: u8) -> char {
    let position = BYTES
        .iter()
        .position(|&candidate| candidate == Some(byte))
        .expect("every byte has a character");
    u32::try_from(position)
        .ok()
        .and_then(char::from_u32)
        .expect("the alphabet ends at U+0144")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_character() {
        for byte in 0..=u8::MAX {
            let mut out = Vec::new();
            assert!(append_bytes(
                character(byte).to_string().as_bytes(),
                &mut out
            ));
            assert_eq!(out, [byte]);
        }
    }

    #[test]
    fn known_spellings() {
        let check = |spelled: &str, expected: &[u8], pure: bool| {
            let mut out = b"kept".to_vec();
            assert_eq!(
                append_bytes(spelled.as_bytes(), &mut out),
                pure,
                "{spelled}"
            );
            assert_eq!(&out[4..], expected, "{spelled}");
        };
        check("Ġthe", b" the", true);
        check("Ċ", b"\n", true);
        check("ÃŃ", "í".as_bytes(), true);
        check("a b", b"a b", false);
        check("<｜x｜>", "<｜x｜>".as_bytes(), false);
        check("ń", "ń".as_bytes(), false);
    }

    #[test]
    fn invalid_utf8_is_copied() {
        let mut out = Vec::new();
        assert!(!append_bytes(b"a\xc3\xff\xe2\x82", &mut out));
        assert_eq!(out, b"a\xc3\xff\xe2\x82");
    }
}
