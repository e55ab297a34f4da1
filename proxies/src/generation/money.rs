//! Exact prices: decimal texts as integers of atto-dollars (10⁻¹⁸ USD), rounded up once at the end.
//!
//! Price tables write rates such as `2.5e-08` or `0.00000125`; as floats their products are off by a few ulps, and a
//! cap that is compared with them is off too. Here a rate is an integer, a product is an integer, and only the sum of
//! a whole call is rounded, upwards, to a nano-dollar. Everything saturates instead of wrapping.

use std::fmt;

use whim_wire::money::NanoUsd;

/// 10⁻¹⁸ USD.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct AttoUsd(pub u128);

const DIGITS: i32 = 18;
const ATTO_PER_NANO: u128 = 1_000_000_000;

/// Why a text is no price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PriceTextError {
    /// Not a JSON number.
    #[error("not a decimal number")]
    Syntax,
    /// A price below zero.
    #[error("negative")]
    Negative,
    /// Larger than can be counted (about 3·10²⁰ USD).
    #[error("too large")]
    Range,
}

impl AttoUsd {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// Reads a decimal with optional fraction and exponent, exactly. Digits below 10⁻¹⁸ round up: towards the dearer.
    ///
    /// # Errors
    /// [`PriceTextError`]; the text is not interpreted beyond the first mistake.
    pub fn parse(text: &str) -> Result<Self, PriceTextError> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let exponent: i32 = parse_exponent(exponent)?;
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
        if whole.is_empty() || fraction.is_empty() {
            return Err(PriceTextError::Syntax);
        }
        // value = digits · 10^(exponent − len(fraction)); wanted in units of 10^−18.
        let shift = exponent
            .saturating_sub(i32::try_from(fraction.len()).map_err(|_| PriceTextError::Range)?)
            .saturating_add(DIGITS);
        let digits = whole.bytes().chain(fraction.bytes());
        let mut value: u128 = 0;
        let mut inexact = false;
        let total =
            i32::try_from(whole.len() + fraction.len()).map_err(|_| PriceTextError::Range)?;
        for (position, digit) in (0i32..).zip(digits) {
            if !digit.is_ascii_digit() {
                return Err(PriceTextError::Syntax);
            }
            // A negative shift drops the last −shift digits.
            if shift < 0 && position >= total.saturating_add(shift) {
                inexact |= digit != b'0';
                continue;
            }
            value = value
                .checked_mul(10)
                .and_then(|v| v.checked_add(u128::from(digit - b'0')))
                .ok_or(PriceTextError::Range)?;
        }
        if value != 0 && shift > 0 {
            let factor = u32::try_from(shift)
                .ok()
                .and_then(|s| 10u128.checked_pow(s));
            value = factor
                .and_then(|f| value.checked_mul(f))
                .ok_or(PriceTextError::Range)?;
        }
        if inexact {
            value = value.saturating_add(1);
        }
        if negative && value != 0 {
            return Err(PriceTextError::Negative);
        }
        Ok(Self(value))
    }

    /// This rate for that many units.
    #[must_use]
    pub fn times(self, units: u64) -> Self {
        Self(self.0.saturating_mul(u128::from(units)))
    }

    /// Sum.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// Scaled by a multiplier, rounded up to an atto-dollar.
    #[must_use]
    pub fn scaled(self, by: Multiplier) -> Self {
        // Dividing first keeps large amounts from saturating early; the remainder is scaled on its own.
        let (quotient, remainder) = (self.0 / Multiplier::ONE.0, self.0 % Multiplier::ONE.0);
        let whole = quotient.saturating_mul(by.0);
        let rest = remainder.saturating_mul(by.0).div_ceil(Multiplier::ONE.0);
        Self(whole.saturating_add(rest))
    }

    /// Rounded up to a nano-dollar.
    #[must_use]
    pub fn ceil_nano(self) -> NanoUsd {
        NanoUsd(u64::try_from(self.0.div_ceil(ATTO_PER_NANO)).unwrap_or(u64::MAX))
    }
}

impl From<NanoUsd> for AttoUsd {
    fn from(nano: NanoUsd) -> Self {
        Self(u128::from(nano.0).saturating_mul(ATTO_PER_NANO))
    }
}

fn parse_exponent(text: &str) -> Result<i32, PriceTextError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(PriceTextError::Syntax);
    }
    // Beyond four digits the value is zero or out of range whatever the mantissa.
    let magnitude: i32 = match digits.trim_start_matches('0') {
        "" => 0,
        significant if significant.len() > 4 => 99_999,
        significant => significant.parse().map_err(|_| PriceTextError::Syntax)?,
    };
    Ok(if text.starts_with('-') {
        -magnitude
    } else {
        magnitude
    })
}

/// A factor on a price (regional or speed uplift), exact to 10⁻⁶.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Multiplier(u128);

impl Multiplier {
    /// No change.
    pub const ONE: Self = Self(1_000_000);

    /// Reads a decimal; digits below 10⁻⁶ round up.
    ///
    /// # Errors
    /// As [`AttoUsd::parse`]; a factor above 1,000 is [`PriceTextError::Range`].
    pub fn parse(text: &str) -> Result<Self, PriceTextError> {
        let micro = AttoUsd::parse(text)?.0.div_ceil(1_000_000_000_000);
        if micro > 1_000 * Self::ONE.0 {
            return Err(PriceTextError::Range);
        }
        Ok(Self(micro))
    }
}

impl fmt::Debug for Multiplier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "×{}.{:06}", self.0 / Self::ONE.0, self.0 % Self::ONE.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact() {
        for (text, atto) in [
            ("0", 0),
            ("0.0", 0),
            ("-0.0", 0),
            ("0e999999", 0),
            ("1", 1_000_000_000_000_000_000),
            ("1.25e-06", 1_250_000_000_000),
            ("0.00000125", 1_250_000_000_000),
            ("125E-8", 1_250_000_000_000),
            ("2.5e+1", 25_000_000_000_000_000_000),
            ("1e-18", 1),
            ("1.0e-18", 1),
            ("1e-19", 1),
            ("1.1e-18", 2),
            ("1e-99999", 1),
            ("2.9999999999999997e-07", 300_000_000_000),
        ] {
            assert_eq!(AttoUsd::parse(text), Ok(AttoUsd(atto)), "{text}");
        }
    }

    #[test]
    fn what_is_no_price_is_refused() {
        for text in [
            "", ".", "1.", ".1", "NaN", "inf", "1e", "e1", "--1", "0x1", "1 ", "1e1.5",
        ] {
            assert_eq!(AttoUsd::parse(text), Err(PriceTextError::Syntax), "{text}");
        }
        for text in ["1e308", "1e99999999", "9".repeat(60).as_str()] {
            assert_eq!(AttoUsd::parse(text), Err(PriceTextError::Range), "{text}");
        }
        assert_eq!(AttoUsd::parse("-1e-9"), Err(PriceTextError::Negative));
    }

    #[test]
    fn rounding_happens_once_and_upwards() {
        assert_eq!(AttoUsd(0).ceil_nano(), NanoUsd(0));
        assert_eq!(AttoUsd(1).ceil_nano(), NanoUsd(1));
        assert_eq!(AttoUsd(1_000_000_000).ceil_nano(), NanoUsd(1));
        assert_eq!(AttoUsd(1_000_000_001).ceil_nano(), NanoUsd(2));
        assert_eq!(AttoUsd(u128::MAX).ceil_nano(), NanoUsd(u64::MAX));
    }

    #[test]
    fn multipliers_scale_exactly() {
        let uplift = Multiplier::parse("1.1").unwrap();
        assert_eq!(AttoUsd(10).scaled(uplift), AttoUsd(11));
        assert_eq!(AttoUsd(1).scaled(uplift), AttoUsd(2), "rounded up");
        assert_eq!(
            AttoUsd(123_456_789).scaled(Multiplier::ONE),
            AttoUsd(123_456_789)
        );
        assert_eq!(AttoUsd(u128::MAX).scaled(uplift), AttoUsd(u128::MAX));
    }
}
