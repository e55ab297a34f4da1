//! Words as languages have them, and the numbers they are drawn with: the same ones in each run.

/// Different words.
pub(crate) const WORDS: usize = 30_000;

/// A generator of numbers that are the same in each run (xorshift64*, Vigna 2016).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}

/// Words and how often they come.
pub(crate) struct Language {
    pub(crate) words: Vec<String>,
    sums: Vec<f64>,
}

impl Language {
    pub(crate) fn new(random: &mut Random) -> Self {
        let letters: Vec<char> = ('a'..='z').collect();
        let mut sum = 0.0;
        let mut language = Self {
            words: Vec::new(),
            sums: Vec::new(),
        };
        for n in 0..WORDS {
            let length = 3 + random.below(8);
            let word = (0..length).map(|_| letters[random.below(26)]).collect();
            language.words.push(word);
            sum += 1.0 / (n + 1) as f64;
            language.sums.push(sum);
        }
        language
    }

    pub(crate) fn word(&self, random: &mut Random) -> &str {
        let place = random.next() as f64 / u64::MAX as f64 * self.sums[WORDS - 1];
        let n = self.sums.partition_point(|sum| *sum < place);
        &self.words[n.min(WORDS - 1)]
    }

    pub(crate) fn text(&self, random: &mut Random) -> String {
        let length = [5, 20, 60, 150, 400][random.below(5)];
        let words: Vec<&str> = (0..length).map(|_| self.word(random)).collect();
        words.join(" ")
    }
}
