//! Medians of rounds, and their ratios to nginx.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Figures by peer and case.
#[derive(Default)]
pub(crate) struct Report {
    peers: Vec<&'static str>,
    figures: BTreeMap<(&'static str, String, usize), Vec<f64>>,
    memory: BTreeMap<&'static str, f64>,
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Report {
    pub(crate) fn add(
        &mut self,
        peer: &'static str,
        what: &str,
        figures: impl Iterator<Item = f64>,
        memory: f64,
    ) {
        if !self.peers.contains(&peer) {
            self.peers.push(peer);
        }
        for (n, figure) in figures.enumerate() {
            self.figures
                .entry((peer, what.to_owned(), n))
                .or_default()
                .push(figure);
        }
        let peak = self.memory.entry(peer).or_default();
        *peak = peak.max(memory);
    }

    fn get(&self, peer: &'static str, what: &str, n: usize) -> f64 {
        self.figures
            .get(&(peer, what.to_owned(), n))
            .map_or(f64::NAN, |values| median(values))
    }

    pub(crate) fn table(&self) -> String {
        let columns = [
            ("post-1 p50 µs", "post-1", 0, true),
            ("post-1 p99 µs", "post-1", 1, true),
            ("post-32 p50 µs", "post-32", 0, true),
            ("post-32 p99 µs", "post-32", 1, true),
            ("post-32 /s", "post-32", 2, false),
            ("event p50 µs", "paced", 0, true),
            ("event p99 µs", "paced", 1, true),
            ("first event p50 µs", "paced", 2, true),
            ("events/s", "unpaced", 0, false),
        ];
        let mut text = String::new();
        for (title, what, n, added) in columns {
            let direct = self.get("direct", what, n);
            let base = |peer| self.get(peer, what, n) - if added { direct } else { 0.0 };
            let nginx = base("nginx");
            writeln!(
                text,
                "\n{title}{}",
                if added {
                    " (added to direct; ratio to nginx)"
                } else {
                    " (ratio to nginx)"
                }
            )
            .unwrap();
            for peer in &self.peers {
                let (own, value) = (base(peer), self.get(peer, what, n));
                if !value.is_nan() {
                    writeln!(
                        text,
                        "  {peer:10} {value:12.1}  {own:12.1}  {:8.2}",
                        own / nginx
                    )
                    .unwrap();
                }
            }
        }
        writeln!(text, "\npeak RSS MB").unwrap();
        for (peer, memory) in &self.memory {
            writeln!(text, "  {peer:10} {memory:12.1}").unwrap();
        }
        text
    }
}
