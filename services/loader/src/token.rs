//! Lease tokens.

use std::{fmt, fs::File, io, io::Read as _};

/// Length of a token in bytes: more than anybody can guess.
pub(crate) const TOKEN_BYTES: usize = 32;

/// What a lease is claimed with. Whoever knows it may have the lease, so it is never printed.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub(crate) struct Token([u8; TOKEN_BYTES]);

/// The operating system's random numbers.
///
/// Kept open, so that a daemon that has started can always issue tokens, also when it is out of descriptors.
#[derive(Debug)]
pub(crate) struct TokenSource(File);

// === impl Token ===

impl Token {
    /// A token as a client presents it; `None` if it cannot be one.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Token> {
        bytes.try_into().ok().map(Token)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

// === impl TokenSource ===

impl TokenSource {
    pub(crate) fn open() -> io::Result<TokenSource> {
        File::open("/dev/urandom").map(TokenSource)
    }

    /// A token that nobody has seen.
    pub(crate) fn next(&self) -> io::Result<Token> {
        let mut bytes = [0; TOKEN_BYTES];
        (&self.0).read_exact(&mut bytes)?;
        Ok(Token(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_and_stay_unseen() {
        let source = TokenSource::open().unwrap();
        let (a, b) = (source.next().unwrap(), source.next().unwrap());
        assert_ne!(a.as_bytes(), b.as_bytes());
        assert_eq!(format!("{a:?}"), "Token(..)");
        assert_eq!(Token::from_bytes(a.as_bytes()), Some(a));
        assert_eq!(Token::from_bytes(&a.as_bytes()[1..]), None);
        assert_eq!(Token::from_bytes(b""), None);
    }
}
