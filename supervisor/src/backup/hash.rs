//! SHA-256 that can be put aside and gone on with, so that a file that grew is not read again from its start. Pure.

use serde::{Deserialize, Serialize};
use sha2::digest::generic_array::GenericArray;

use super::store::hex;

/// Bytes that the compression function takes at once.
const BLOCK: usize = 64;
/// FIPS 180-4, 5.3.3.
const START: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// The hash of what came so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    state: [u32; 8],
    /// Less than a block.
    rest: Vec<u8>,
    bytes: u64,
}

impl Default for Running {
    fn default() -> Self {
        Self {
            state: START,
            rest: Vec::new(),
            bytes: 0,
        }
    }
}

impl Running {
    /// Bytes so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn update(&mut self, mut more: &[u8]) {
        self.bytes = self.bytes.wrapping_add(more.len() as u64);
        if !self.rest.is_empty() {
            let missing = BLOCK.saturating_sub(self.rest.len()).min(more.len());
            let (first, others) = more.split_at(missing);
            self.rest.extend_from_slice(first);
            more = others;
            if self.rest.len() < BLOCK {
                return;
            }
            let block = std::mem::take(&mut self.rest);
            compress(&mut self.state, &block);
        }
        let (blocks, rest) = more.split_at(more.len() - more.len() % BLOCK);
        for block in blocks.chunks_exact(BLOCK) {
            compress(&mut self.state, block);
        }
        self.rest.extend_from_slice(rest);
    }

    /// The digest, hexadecimal.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut state = self.state;
        let mut end = self.rest.clone();
        end.push(0x80);
        let zeros = (2 * BLOCK - 8 - end.len()) % BLOCK;
        end.resize(end.len() + zeros, 0);
        end.extend_from_slice(&self.bytes.wrapping_mul(8).to_be_bytes());
        for block in end.chunks_exact(BLOCK) {
            compress(&mut state, block);
        }
        let digest: Vec<u8> = state.iter().flat_map(|word| word.to_be_bytes()).collect();
        hex(&digest)
    }
}

fn compress(state: &mut [u32; 8], block: &[u8]) {
    sha2::compress256(state, std::slice::from_ref(GenericArray::from_slice(block)));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_sha_256_however_it_is_fed(content in proptest::collection::vec(any::<u8>(), 0..400), cuts in proptest::collection::vec(0_usize..400, 0..6)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(content.len())).collect();
            cuts.sort_unstable();
            let mut running = Running::default();
            let mut from = 0;
            for cut in cuts.into_iter().chain([content.len()]) {
                running.update(&content[from..cut]);
                from = cut;
                // Put aside and taken up again.
                running = serde_json::from_str(&serde_json::to_string(&running).unwrap()).unwrap();
            }
            prop_assert_eq!(running.digest(), crate::backup::store::segment_name(&content));
            prop_assert_eq!(running.bytes(), content.len() as u64);
        }
    }
}
