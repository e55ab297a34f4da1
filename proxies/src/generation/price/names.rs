//! Under which names a model may stand in a price table.
//!
//! The wire knows `openrouter/anthropic/claude-opus-4.8:nitro`, `claude-opus-4-8[1m]`, `claude-opus-4-8-20260101`;
//! the table knows `claude-opus-4-8`.

/// Names to look up, the most particular first.
pub(super) fn candidates(model: &str) -> Vec<String> {
    let mut names = Vec::with_capacity(8);
    let mut push = |name: &str| {
        if !name.is_empty() && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    };
    push(model);
    let lower = model.trim().to_ascii_lowercase();
    push(&lower);
    let plain = without_suffix(&lower);
    push(plain);
    // Vendor prefixes go one at a time: `openrouter/anthropic/x`, `anthropic/x`, `x`.
    let mut rest = plain;
    let mut bare = plain;
    while let Some((_, inner)) = rest.split_once('/') {
        push(inner);
        rest = inner;
        bare = inner;
    }
    let dashed = dashes_between_digits(bare);
    push(&dashed);
    for name in [bare, dashed.as_str()] {
        push(without_date(name));
        push(name.strip_suffix("-latest").unwrap_or(name));
    }
    names
}

/// Strips what selects a route or a context size, not a price: `:free`, `:nitro`, `[1m]`, `@20250101`.
fn without_suffix(model: &str) -> &str {
    let model = model.split_once('[').map_or(model, |(name, _)| name);
    let model = model.split_once('@').map_or(model, |(name, _)| name);
    let tail = model.rfind('/').map_or(0, |at| at + 1);
    match model.get(tail..).and_then(|last| last.find(':')) {
        Some(at) => model.get(..tail + at).unwrap_or(model),
        None => model,
    }
}

/// `claude-opus-4.8` as Anthropic itself writes it.
fn dashes_between_digits(model: &str) -> String {
    let bytes = model.as_bytes();
    let digit = |at: Option<usize>| {
        at.and_then(|at| bytes.get(at))
            .is_some_and(u8::is_ascii_digit)
    };
    model
        .char_indices()
        .map(|(at, c)| match c {
            '.' if digit(at.checked_sub(1)) && digit(Some(at + 1)) => '-',
            other => other,
        })
        .collect()
}

/// Strips a trailing `-YYYYMMDD` or `-YYYY-MM-DD`.
fn without_date(model: &str) -> &str {
    let all_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if let Some((name, date)) = model.rsplit_once('-')
        && date.len() == 8
        && all_digits(date)
    {
        return name;
    }
    let mut parts = model.rsplitn(4, '-');
    if let (Some(day), Some(month), Some(year), Some(name)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
        && [(day, 2), (month, 2), (year, 4)]
            .iter()
            .all(|(part, len)| part.len() == *len && all_digits(part))
    {
        return name;
    }
    model
}

#[cfg(test)]
mod tests {
    use super::candidates;

    #[test]
    fn spellings_lead_to_the_table() {
        for (model, name) in [
            ("claude-opus-4-8", "claude-opus-4-8"),
            ("claude-opus-4-8[1m]", "claude-opus-4-8"),
            ("claude-opus-4-8-20260101", "claude-opus-4-8"),
            ("anthropic/claude-opus-4.8", "claude-opus-4-8"),
            (
                "openrouter/anthropic/claude-opus-4.8:nitro",
                "claude-opus-4-8",
            ),
            ("openai/gpt-5.5:free", "gpt-5.5"),
            ("gpt-4.1-2025-04-14", "gpt-4.1"),
            ("Claude-Opus-4-8", "claude-opus-4-8"),
            ("claude-opus-4-8@20260101", "claude-opus-4-8"),
            ("grok-4-latest", "grok-4"),
        ] {
            assert!(
                candidates(model).iter().any(|c| c == name),
                "{model}: {:?}",
                candidates(model)
            );
        }
    }

    #[test]
    fn the_particular_goes_first() {
        assert_eq!(
            candidates("claude-haiku-4-5-20251001")[0],
            "claude-haiku-4-5-20251001"
        );
        assert!(candidates("").is_empty());
    }
}
