//! How long to wait before a request is sent again.

use std::time::{Duration, SystemTime};

use crate::request::Key;

/// Exponential backoff with full jitter (Brooker 2015, "Exponential Backoff and Jitter"): a time drawn
/// uniformly between zero and `base * 2^n`, at most `cap`. The draw is a function of the key and `n`; it
/// decides when a request is sent, never what is in the cache.
pub(crate) fn backoff(key: &Key, n: u32, base: Duration, cap: Duration) -> Duration {
    let most = base.saturating_mul(1u32.checked_shl(n).unwrap_or(u32::MAX)).min(cap);
    most.mul_f64(key.fraction("backoff", n))
}

/// Reads a `Retry-After` header (RFC 9110, section 10.2.3): seconds, or a date. A date in the past is no
/// wait.
pub(crate) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    // Some servers send fractions of seconds, which the standard does not allow.
    if let Some(seconds) = value.parse::<f64>().ok().filter(|seconds| (0.0..1e9).contains(seconds)) {
        return Some(Duration::from_secs_f64(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Request;

    #[test]
    fn backoff_doubles_up_to_the_cap_and_is_spread() {
        let (base, cap) = (Duration::from_millis(500), Duration::from_secs(60));
        let keys: Vec<Key> = (0..400).map(|i| Request::new(format!("{i}"), Vec::new()).key()).collect();
        for (n, most) in [(0, 0.5), (1, 1.0), (3, 4.0), (7, 60.0), (40, 60.0)] {
            let waits: Vec<f64> = keys.iter().map(|key| backoff(key, n, base, cap).as_secs_f64()).collect();
            let mean = waits.iter().sum::<f64>() / 400.0;
            assert!(waits.iter().all(|&wait| wait <= most), "{n}");
            assert!((0.42..0.58).contains(&(mean / most)), "{n}: {mean}");
        }
        assert_eq!(backoff(&keys[0], 3, base, cap), backoff(&keys[0], 3, base, cap));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        // 1994-11-06 08:49:37 UTC, the date of the standard's examples.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let check = |value, expected: Option<f64>| {
            assert_eq!(retry_after(value, now), expected.map(Duration::from_secs_f64), "{value}");
        };
        check("120", Some(120.0));
        check(" 0 ", Some(0.0));
        check("1.5", Some(1.5));
        check("Sun, 06 Nov 1994 08:49:47 GMT", Some(10.0));
        check("Sunday, 06-Nov-94 08:50:37 GMT", Some(60.0));
        check("Sun Nov  6 08:49:38 1994", Some(1.0));
        check("Sun, 06 Nov 1994 08:49:00 GMT", Some(0.0));
        for wrong in ["", "soon", "-5", "inf", "NaN"] {
            check(wrong, None);
        }
        assert!(retry_after("99999999999999999999999", now).is_some());
    }
}
