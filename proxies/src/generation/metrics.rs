//! The proxy's figures in Prometheus' text format (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
//!
//! Labels are sessions and models as the ledger tells them apart (bounded there), with what could break a line escaped.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use whim_wire::generation::Totals;

use super::proxy::GenerationProxy;

fn label(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _written = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _written = writeln!(self.0, "{name}{labels} {value}");
    }
}

impl GenerationProxy {
    /// All figures.
    #[must_use]
    pub fn metrics(&self) -> String {
        let spend = self.spend();
        let mut text = Text(String::new());
        text.head(
            "whim_generations_in_flight",
            "gauge",
            "Model calls in flight.",
        );
        text.value(
            "whim_generations_in_flight",
            "",
            self.board.in_flight().len(),
        );
        text.head("whim_spend_usd", "counter", "Spend by session and model.");
        let rows: Vec<(String, &Totals)> = spend
            .by_session
            .iter()
            .map(|row| {
                (
                    format!("{{session=\"{}\"}}", label(&row.session)),
                    &row.totals,
                )
            })
            .collect();
        let models: Vec<(String, &Totals)> = spend
            .by_model
            .iter()
            .map(|row| (format!("{{model=\"{}\"}}", label(&row.model)), &row.totals))
            .collect();
        for (labels, totals) in &rows {
            text.value("whim_spend_usd", labels, totals.usd);
        }
        text.head("whim_model_spend_usd", "counter", "Spend by model.");
        for (labels, totals) in &models {
            text.value("whim_model_spend_usd", labels, totals.usd);
        }
        text.head(
            "whim_generations_total",
            "counter",
            "Model calls that reached a provider.",
        );
        for (labels, totals) in &rows {
            text.value("whim_generations_total", labels, totals.requests);
        }
        text.head(
            "whim_generations_refused_total",
            "counter",
            "Model calls that a cap or limit answered.",
        );
        for (labels, totals) in &rows {
            text.value("whim_generations_refused_total", labels, totals.refused);
        }
        text.head("whim_tokens_total", "counter", "Tokens by kind.");
        let usage = spend.totals.usage;
        for (kind, count) in [
            ("input", usage.input_tokens),
            ("cache_read", usage.cache_read_tokens),
            ("cache_write_5m", usage.cache_write_5m_tokens),
            ("cache_write_1h", usage.cache_write_1h_tokens),
            ("output", usage.output_tokens),
        ] {
            text.value("whim_tokens_total", &format!("{{kind=\"{kind}\"}}"), count);
        }
        text.head(
            "whim_reserved_usd",
            "gauge",
            "What calls in flight may still cost.",
        );
        text.value("whim_reserved_usd", "", spend.reserved_usd);
        if let Some(cap) = spend.budget_usd {
            text.head("whim_budget_usd", "gauge", "The cap.");
            text.value("whim_budget_usd", "", cap);
        }
        let counters = &self.counters;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (name, help, value) in [
            (
                "whim_proxy_unauthorized_total",
                "Requests without a valid token.",
                load(&counters.unauthorized),
            ),
            (
                "whim_proxy_forbidden_total",
                "Requests of web pages or for other hosts.",
                load(&counters.forbidden),
            ),
            (
                "whim_proxy_retries_total",
                "Calls made again before their first byte.",
                load(&counters.retries),
            ),
            (
                "whim_proxy_answer_bytes_total",
                "Bytes of answers.",
                load(&counters.bytes_down),
            ),
            (
                "whim_proxy_stalls_total",
                "Answers that stopped for a while.",
                load(&counters.stalls),
            ),
            (
                "whim_proxy_unread_total",
                "Answers in an encoding that cannot be read.",
                load(&counters.blind),
            ),
            (
                "whim_ledger_left_out_total",
                "Lines of refused calls that the ledger could not keep up with.",
                self.ledger.left_out(),
            ),
            (
                "whim_activity_dropped_total",
                "Events that nobody took in time.",
                self.board.dropped(),
            ),
        ] {
            text.head(name, "counter", help);
            text.value(name, "", value);
        }
        text.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::Config;

    #[test]
    fn a_label_cannot_break_a_line() {
        assert_eq!(label("a\"b\\c\nd"), "a\\\"b\\\\c\u{fffd}d");
    }

    #[test]
    fn every_line_is_a_comment_or_a_sample() {
        let dir = tempfile::tempdir().unwrap();
        let proxy = GenerationProxy::open(Config::new(dir.path().to_owned())).unwrap();
        for line in proxy.metrics().lines() {
            let sample = line
                .rsplit_once(' ')
                .is_some_and(|(_, value)| value.parse::<f64>().is_ok());
            assert!(line.starts_with("# ") || sample, "{line}");
        }
    }
}
