//! The primitives of the encoding: fixed-width integers and length-prefixed bytes, each with a bound.

use std::fmt;

/// Why bytes are no message, or a message cannot become bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodecError {
    /// The bytes end inside the named field.
    Truncated { field: &'static str },
    /// The named field is longer than its bound (both in bytes).
    TooLong {
        field: &'static str,
        length: usize,
        bound: usize,
    },
    /// The named field holds a value that it cannot have.
    Invalid { field: &'static str },
    /// A kind of message that this build does not know: a newer peer's. To be logged and ignored.
    UnknownKind { kind: u8 },
    /// Bytes are left after the last field.
    Trailing { length: usize },
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { field } => write!(f, "message ends inside {field}"),
            Self::TooLong {
                field,
                length,
                bound,
            } => write!(f, "{field} has {length} bytes, at most {bound} fit"),
            Self::Invalid { field } => write!(f, "{field} has an impossible value"),
            Self::UnknownKind { kind } => write!(f, "unknown kind of message {kind}"),
            Self::Trailing { length } => write!(f, "{length} bytes after the end of the message"),
        }
    }
}

impl std::error::Error for CodecError {}

impl From<CodecError> for std::io::Error {
    /// [`CodecError::UnknownKind`] becomes `Unsupported` (ignore it), all else `InvalidData`.
    fn from(error: CodecError) -> Self {
        let kind = match error {
            CodecError::UnknownKind { .. } => std::io::ErrorKind::Unsupported,
            _ => std::io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

/// Builds a message.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// With room for `capacity` bytes, so that filling it leaves no abandoned copies behind in freed memory.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(capacity),
        }
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn i32(&mut self, value: i32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// A count of following elements.
    pub(crate) fn count(&mut self, field: &'static str, length: usize) -> Result<(), CodecError> {
        let count = u32::try_from(length).map_err(|_| CodecError::TooLong {
            field,
            length,
            bound: u32::MAX as usize,
        })?;
        self.u32(count);
        Ok(())
    }

    pub(crate) fn bytes(
        &mut self,
        field: &'static str,
        value: &[u8],
        bound: usize,
    ) -> Result<(), CodecError> {
        if value.len() > bound {
            return Err(CodecError::TooLong {
                field,
                length: value.len(),
                bound,
            });
        }
        self.count(field, value.len())?;
        self.bytes.extend_from_slice(value);
        Ok(())
    }

    pub(crate) fn option_i32(&mut self, value: Option<i32>) {
        self.bool(value.is_some());
        if let Some(value) = value {
            self.i32(value);
        }
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Takes a message apart.
#[derive(Debug)]
pub(crate) struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn take<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], CodecError> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(CodecError::Truncated { field })?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, CodecError> {
        self.take::<1>(field).map(|[byte]| byte)
    }

    pub(crate) fn bool(&mut self, field: &'static str) -> Result<bool, CodecError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CodecError::Invalid { field }),
        }
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, CodecError> {
        self.take(field).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, CodecError> {
        self.take(field).map(u32::from_le_bytes)
    }

    pub(crate) fn i32(&mut self, field: &'static str) -> Result<i32, CodecError> {
        self.take(field).map(i32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, CodecError> {
        self.take(field).map(u64::from_le_bytes)
    }

    /// The number of elements that follow. Each takes at least `least` bytes, so a count that the rest cannot hold is
    /// refused here and nobody reserves memory for it.
    pub(crate) fn count(&mut self, field: &'static str, least: usize) -> Result<usize, CodecError> {
        let count = usize::try_from(self.u32(field)?).map_err(|_| CodecError::Invalid { field })?;
        if count.saturating_mul(least) > self.rest.len() {
            return Err(CodecError::Truncated { field });
        }
        Ok(count)
    }

    pub(crate) fn bytes(
        &mut self,
        field: &'static str,
        bound: usize,
    ) -> Result<&'a [u8], CodecError> {
        let length =
            usize::try_from(self.u32(field)?).map_err(|_| CodecError::Invalid { field })?;
        if length > bound {
            return Err(CodecError::TooLong {
                field,
                length,
                bound,
            });
        }
        let (head, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(CodecError::Truncated { field })?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn text(&mut self, field: &'static str, bound: usize) -> Result<String, CodecError> {
        let bytes = self.bytes(field, bound)?;
        std::str::from_utf8(bytes)
            .map(str::to_owned)
            .map_err(|_| CodecError::Invalid { field })
    }

    pub(crate) fn option_i32(&mut self, field: &'static str) -> Result<Option<i32>, CodecError> {
        if self.bool(field)? {
            self.i32(field).map(Some)
        } else {
            Ok(None)
        }
    }

    pub(crate) fn finish(self) -> Result<(), CodecError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(CodecError::Trailing {
                length: self.rest.len(),
            })
        }
    }
}
