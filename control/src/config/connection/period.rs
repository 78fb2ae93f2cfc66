//! Spans of time.

use std::time::Duration;

use toml::Spanned;

use super::section::Period;
use crate::config::source::Source;

/// Ten years: longer is a slip of the pen.
const LONGEST_SECONDS: u64 = 10 * 366 * 86400;

/// Reads a span of at least `least_seconds`, or notes the problem.
pub(super) fn read(source: &Source, period: &Spanned<Period>, least_seconds: u64) -> Option<Duration> {
    let seconds = match period.get_ref() {
        Period::Seconds(seconds) => u64::try_from(*seconds).ok(),
        Period::Text(text) => parse(text),
    };
    match seconds.filter(|seconds| (least_seconds..=LONGEST_SECONDS).contains(seconds)) {
        Some(seconds) => Some(Duration::from_secs(seconds)),
        None => {
            let found = match period.get_ref() {
                Period::Seconds(seconds) => seconds.to_string(),
                Period::Text(text) => format!("{text:?}"),
            };
            source.problem(
                period.span(),
                format!("found {found}: expected at least {least_seconds} seconds, as a number or as \"90s\", \"15m\", \"8h\", \"2d\""),
            );
            None
        }
    }
}

fn parse(text: &str) -> Option<u64> {
    let (digits, unit) = match text.find(|character: char| !character.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read_and_nothing_else() {
        for (text, seconds) in [
            ("90", 90),
            ("90s", 90),
            ("15m", 900),
            ("8h", 28800),
            ("2d", 172_800),
        ] {
            assert_eq!(parse(text), Some(seconds), "{text}");
        }
        for text in [
            "",
            "s",
            "1w",
            "-1s",
            "1.5h",
            "1 h",
            "99999999999999999999s",
            "9999999999999999999d",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
