//! Numbers, rates, times and sizes as people read them.

use std::time::Duration;

pub(super) fn percent(part: u64, whole: u64) -> String {
    format!("{:.1} %", part as f64 * 100.0 / whole.max(1) as f64)
}

pub(super) fn rate(value: f64) -> String {
    if value >= 1e4 {
        compact(value)
    } else if value >= 10.0 {
        thousands(value.round() as u64)
    } else {
        compact((value * 10.0).round() / 10.0)
    }
}

pub(super) fn seconds(seconds: Option<f64>) -> String {
    match seconds {
        None => "–".into(),
        Some(seconds) if seconds < 0.01 => format!("{:.1} ms", seconds * 1e3),
        Some(seconds) if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.1} s"),
    }
}

pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds} s"),
        (0, 0, minutes, _) => format!("{minutes} min"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, ..) => format!("{days} d {hours} h"),
    }
}

pub(super) fn bytes(bytes: i64) -> String {
    let bytes = bytes as f64;
    let (value, unit) = match bytes {
        b if b >= 1_073_741_824.0 => (b / 1_073_741_824.0, "GiB"),
        b if b >= 1_048_576.0 => (b / 1_048_576.0, "MiB"),
        b if b >= 1_024.0 => (b / 1_024.0, "KiB"),
        b => (b, "bytes"),
    };
    format!("{} {unit}", compact(value))
}

pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// A short number, for an axis.
pub(super) fn compact(value: f64) -> String {
    let (value, unit) = match value.abs() {
        size if size >= 1e6 => (value / 1e6, " M"),
        size if size >= 1e4 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let text = format!("{value:.*}", usize::from(value.abs() < 10.0 && value.fract().abs() > 0.01));
    text + unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        assert_eq!([0, 999, 1_000, 12_345_678].map(thousands), ["0", "999", "1,000", "12,345,678"]);
        assert_eq!(
            [0.0, 0.2, 9.96, 1_234.5, 50_000.0].map(rate),
            ["0", "0.2", "10", "1,235", "50 k"]
        );
        assert_eq!(
            [None, Some(0.0012), Some(0.0123), Some(1.5)].map(seconds),
            ["–", "1.2 ms", "12 ms", "1.5 s"]
        );
        assert_eq!(
            [0, 800, 3 << 20, 4 << 30].map(bytes),
            ["0 bytes", "800 bytes", "3 MiB", "4 GiB"]
        );
        let spans = [5, 90, 3_700, 90_000].map(|seconds| duration(Duration::from_secs(seconds)));
        assert_eq!(spans, ["5 s", "1 min", "1 h 1 min", "1 d 1 h"]);
    }

    #[test]
    fn numbers_are_short() {
        let numbers = [0.0, 0.25, 2.0, 2.5, 12.5, 1_200.0, 12_000.0, 2_500_000.0];
        let short = ["0", "0.2", "2", "2.5", "12", "1200", "12 k", "2.5 M"];
        assert_eq!(numbers.map(compact), short);
    }
}
