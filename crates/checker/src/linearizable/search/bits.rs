//! Sets of steps that differ little from one another.

/// A set of steps, compared by the part of it that differs between configurations.
#[derive(Debug)]
pub(super) struct Bits {
    pub(super) words: Vec<u64>,
    count: usize,
    /// Every word before it is full.
    full: usize,
}

impl Bits {
    pub(super) fn new(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(64)], count: 0, full: 0 }
    }

    pub(super) fn has(&self, bit: usize) -> bool {
        self.words[bit / 64] >> (bit % 64) & 1 == 1
    }

    pub(super) fn set(&mut self, bit: usize) {
        self.words[bit / 64] |= 1 << (bit % 64);
        self.count += 1;
    }

    pub(super) fn clear(&mut self, bit: usize) {
        self.words[bit / 64] &= !(1 << (bit % 64));
        self.count -= 1;
        self.full = self.full.min(bit / 64);
    }

    /// Appends the number of full words at the front and the words from there to the last set bit:
    /// equal if and only if the sets are.
    pub(super) fn window(&mut self, output: &mut Vec<u64>) {
        while self.words.get(self.full) == Some(&u64::MAX) {
            self.full += 1;
        }
        output.push(self.full as u64);
        let mut left = self.count - self.full * 64;
        for &word in &self.words[self.full..] {
            if left == 0 {
                break;
            }
            output.push(word);
            left -= word.count_ones() as usize;
        }
    }
}

pub(super) fn is_subset(fewer: &[u64], more: &[u64]) -> bool {
    fewer.iter().zip(more).all(|(fewer, more)| fewer & !more == 0)
}
