//! CRC-64/NVME, the one checksum that the store's S3 client takes from `crc-fast`, under that crate's names.
//!
//! The real crate keeps the tables of every known CRC in the binary, 650 kB, because it chooses among them while it runs.
//! Here are two kilobytes; a backup is checked by SHA-256, and this sum is only made where an S3 endpoint is set up to ask
//! for it.

/// The algorithms that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrcAlgorithm {
    /// CRC-64/NVME: polynomial `ad93d23594c93659`, reflected, all ones before and after.
    Crc64Nvme,
}

/// The polynomial with its bits reversed.
const POLYNOMIAL: u64 = 0x9A6C_9329_AC4B_C9B5;

static TABLE: [u64; 256] = table();

#[expect(
    clippy::indexing_slicing,
    reason = "computed by the compiler, which refuses an index out of bounds"
)]
const fn table() -> [u64; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    let mut first = 0_u64;
    while byte < table.len() {
        let mut rest = first;
        let mut bit = 0;
        while bit < 8 {
            rest = (rest >> 1) ^ (POLYNOMIAL * (rest & 1));
            bit += 1;
        }
        table[byte] = rest;
        byte += 1;
        first += 1;
    }
    table
}

/// The checksum of what came so far.
#[derive(Clone, Copy, Debug)]
pub struct Digest(u64);

impl Digest {
    /// Of nothing.
    #[must_use]
    pub const fn new(algorithm: CrcAlgorithm) -> Self {
        match algorithm {
            CrcAlgorithm::Crc64Nvme => Self(u64::MAX),
        }
    }

    /// Takes in more bytes.
    pub fn update(&mut self, data: &[u8]) {
        for &byte in data {
            let [low, ..] = self.0.to_le_bytes();
            // A byte is always within the table.
            let entry = TABLE.get(usize::from(low ^ byte)).copied().unwrap_or(0);
            self.0 = (self.0 >> 8) ^ entry;
        }
    }

    /// The sum; the digest stays as it is.
    #[must_use]
    pub const fn finalize(&self) -> u64 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(parts: &[&[u8]]) -> u64 {
        let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
        parts.iter().for_each(|part| digest.update(part));
        digest.finalize()
    }

    /// The check value of the NVM Express specification's CRC, as catalogues of CRCs give it.
    #[test]
    fn the_check_value_is_right() {
        assert_eq!(of(&[b"123456789"]), 0xAE8B_1486_0A79_9888);
        assert_eq!(of(&[b"1234", b"", b"56789"]), 0xAE8B_1486_0A79_9888);
        assert_eq!(of(&[]), 0);
    }
}
